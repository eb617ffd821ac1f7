"""The stand-in for the 8x8 Cloud Storage Service, without sockets: a request in, an answer out.

It demands what the service demands and refuses what the service refuses; it never deletes.
Two origins: ``api``, and ``store``, where presigned URLs lead. Bulk downloads and buckets are not
here: phonofs uses neither. Below ``/-/`` the api origin shows its counters and takes faults and
changes, by hand or from another process.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import trio

from phonofs.fakeservice.account import Account, change
from phonofs.fakeservice.admin_api import Backdoor
from phonofs.fakeservice.fault_injection import after, before
from phonofs.fakeservice.faults import Asked, Fault, Faults
from phonofs.fakeservice.objects import Objects
from phonofs.fakeservice.options import Options, changed_options
from phonofs.fakeservice.request_log import Counters, Seen
from phonofs.fakeservice.responses import Answer, Request, of_json, refusal
from phonofs.fakeservice.routes import Call, route
from phonofs.fakeservice.tokens import Signer, Tokens

KNOWN_REGIONS = ("us-west", "us-east", "uk", "ap", "ca", "eu")


class Service:
    """The stand-in over one account.

    Owns the tokens, the counters and what is being restored; the account is the caller's, who may
    change it at any time. ``faults`` may be replaced while it runs; :meth:`choose` changes
    ``options``. ``url`` and ``store_url`` are the origins, set by the server before the first
    request. ``now_ms`` gives UTC epoch ms.
    """

    def __init__(
        self,
        account: Account,
        options: Options | None = None,
        faults: Faults | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.account = account
        self.options = options or Options()
        self.faults = faults or Faults()
        self.counters = Counters()
        self.url = "http://127.0.0.1:8801"
        self.store_url = "http://127.0.0.1:8802"
        self.now_ms = now_ms
        self.tokens = Tokens(self.options)
        self._signer = Signer()
        self._objects = Objects(self)
        self._handlers: Mapping[str, Callable[[Call], Answer]] = {
            "regions": lambda call: of_json(200, list(self.account.regions)),
            "search": self._objects.search,
            "record": self._objects.record,
            "metadata": self._objects.metadata,
            "content": self._objects.content,
            "restore": self._objects.restore,
            "delete": lambda call: refusal(403, "this key may not delete"),
        }
        self._backdoor = Backdoor(self)
        self._restoring: dict[tuple[str, str], float] = {}
        self._began_s: float | None = None

    async def answer(self, request: Request) -> Answer:
        """The answer to one request. Never raises; a body is sent by iterating its pieces."""
        call = route(request)
        self._settle()
        self._count(call)
        if call.handler == "backdoor":
            return self._backdoor.answer(call)
        fault = self.faults.decide(
            Asked(call.kind, request.path, call.id, call.region, self._age_s())
        )
        answer = await self._answer(call, fault)
        self.counters.statuses[answer.status] += 1
        return answer

    async def _answer(self, call: Call, fault: Fault | None) -> Answer:
        if self.options.latency_s:
            await trio.sleep(self.options.latency_s)
        instead = await before(fault, call, self)
        if instead is not None:
            return instead
        answer = self.respond(self._bent(call, fault))
        answer.delivery.bytes_per_s = self.options.bytes_per_s
        return after(fault, call, answer, self)

    def _bent(self, call: Call, fault: Fault | None) -> Call:
        """The call as a fault makes the service misunderstand it."""
        if fault is not None and fault.fail == "whole":
            return call.without("range")
        if fault is not None and fault.fail == "repeat" and call.kind == "search":
            return call.with_query(pageKey="0")
        return call

    def respond(self, call: Call) -> Answer:
        """What the service answers when nothing goes wrong."""
        if call.refused is not None:
            return call.refused
        if call.kind == "store":
            return self._from_store(call)
        if call.handler == "token":
            return self._token(call.request)
        if not self.tokens.accepts(call.request, trio.current_time()):
            return refusal(401, "no token, or one that has expired", www_authenticate="Bearer")
        if call.region not in {*KNOWN_REGIONS, *self.account.regions}:
            return refusal(404, f"no such region: {call.region}")
        return self._handlers[call.handler](call)

    def _token(self, request: Request) -> Answer:
        answer, issued = self.tokens.answer(request, trio.current_time(), self.now_ms())
        self.counters.tokens += issued
        return answer

    def _from_store(self, call: Call) -> Answer:
        """What an object store answers to a presigned URL."""
        with_bearer = self.options.presign_token
        if with_bearer == "refuse" and "authorization" in call.request.headers:
            return refusal(400, "only one way of authorization allowed")
        if with_bearer == "want" and not self.tokens.accepts(call.request, trio.current_time()):
            return refusal(401, "no token, or one that has expired", www_authenticate="Bearer")
        if not self._signer.accepts(call.request, self.now_ms()):
            return refusal(403, "the request has expired or its signature does not match")
        return self._objects.bytes_of(call, ranges=True)

    def presigned(self, path: str, life_s: float | None = None) -> str:
        """A URL of a path below ``/store`` or ``/storage``, on the origin that has it.

        It is good for ``life_s`` seconds, else as the options say.
        """
        life_s = self.options.presign_life_s if life_s is None else life_s
        origin = self.store_url if path.startswith("/store/") else self.url
        return origin + self._signer.sign(path, self.now_ms() + int(life_s * 1000), life_s)

    def choose(self, **choices: Any) -> None:
        """Answer in another way from now on; ``choices`` are fields of Options.

        With another key or secret all tokens die. Raises UsageError and changes nothing if a
        choice is unknown or out of range.
        """
        self.options = changed_options(self.options, choices)
        self.tokens.follow(self.options)

    def bring_back(self, region: str, id: str) -> None:
        """Begin to restore an archived object; it is there after ``restore_s``."""
        due = trio.current_time() + self.options.restore_s
        self._restoring.setdefault((region, id), due)
        self._settle()

    def _settle(self) -> None:
        """Let what was restored in the meantime be there."""
        if not self._restoring:
            return
        now_s = trio.current_time()
        for region, id in [key for key, due_s in self._restoring.items() if due_s <= now_s]:
            del self._restoring[region, id]
            change(self.account, region, id, self.now_ms(), state="AVAILABLE")

    def _age_s(self) -> float:
        now_s = trio.current_time()
        if self._began_s is None:
            self._began_s = now_s
        return now_s - self._began_s

    def _count(self, call: Call) -> None:
        request = call.request
        self.counters.requests[call.kind] += 1
        self.counters.seen.append(
            Seen(
                origin=request.origin,
                kind=call.kind,
                method=request.method,
                path=request.path,
                query=dict(request.query),
                headers=dict(request.headers),
                at_s=self._age_s(),
            )
        )
