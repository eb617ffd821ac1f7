"""The fake 8x8 Cloud Storage Service, without sockets: a request in, an answer out.

It requires what the real service requires and refuses what that refuses; it never deletes. It has
two origins: ``api``, and ``store`` for presigned URLs. It has no bulk downloads and no buckets,
because phonofs uses neither. Below ``/-/``, the api origin shows the counters and accepts fault
plans and changes.
"""

import time
from collections.abc import Callable, Mapping

import trio

from phonofs.fakeservice.account import Account
from phonofs.fakeservice.admin_api import AdminApi
from phonofs.fakeservice.fault_injection import alter_answer, answer_instead
from phonofs.fakeservice.faults import Asked, Fault, Faults
from phonofs.fakeservice.objects import Objects
from phonofs.fakeservice.options import Options
from phonofs.fakeservice.request_log import Seen
from phonofs.fakeservice.responses import Answer, Request, of_json, refusal
from phonofs.fakeservice.routes import Call, route
from phonofs.fakeservice.state import State

KNOWN_REGIONS = ("us-west", "us-east", "uk", "ap", "ca", "eu")


class Service(State):
    """Answers requests from the state of one account. The server and the tests use it."""

    def __init__(
        self,
        account: Account,
        options: Options | None = None,
        faults: Faults | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        super().__init__(account, options or Options(), faults or Faults(), now_ms)
        self._objects = Objects(self)
        self._admin = AdminApi(self)
        self._handlers: Mapping[str, Callable[[Call], Answer]] = {
            "regions": lambda call: of_json(200, list(self.account.regions)),
            "search": self._objects.search,
            "record": self._objects.record,
            "metadata": self._objects.metadata,
            "content": self._objects.content,
            "restore": self._objects.restore,
            "delete": lambda call: refusal(403, "this key may not delete"),
        }

    async def answer(self, request: Request) -> Answer:
        """Answer one request. Never raises; iterating the answer's pieces sends the body."""
        call = route(request)
        self.finish_restores()
        self.counters.add(_seen(call, self.age_s()))
        if call.handler == "admin":
            return self._admin.answer(call)
        asked = Asked(call.kind, request.path, call.id, call.region, self.age_s())
        answer = await self._answer(call, self.faults.decide(asked))
        self.counters.statuses[answer.status] += 1
        return answer

    async def _answer(self, call: Call, fault: Fault | None) -> Answer:
        if self.options.latency_s:
            await trio.sleep(self.options.latency_s)
        instead = await answer_instead(fault, call, self)
        if instead is not None:
            return instead
        answer = self._respond(_misunderstood(call, fault))
        answer.delivery.bytes_per_s = self.options.bytes_per_s
        return alter_answer(fault, call, answer, self, self._respond)

    def _respond(self, call: Call) -> Answer:
        """Answer as the service does when nothing goes wrong."""
        if call.refused is not None:
            return call.refused
        if call.kind == "store":
            return self._from_store(call)
        if call.handler == "token":
            return self._token(call.request)
        if not self.accepts_token(call.request):
            return refusal(401, "no token, or one that has expired", www_authenticate="Bearer")
        if call.region not in {*KNOWN_REGIONS, *self.account.regions}:
            return refusal(404, f"no such region: {call.region}")
        return self._handlers[call.handler](call)

    def _token(self, request: Request) -> Answer:
        answer, issued = self.tokens.answer(request, trio.current_time(), self.now_ms())
        self.counters.tokens += issued
        return answer

    def _from_store(self, call: Call) -> Answer:
        """Answer as an object store does to a presigned URL."""
        with_bearer = self.options.presign_token
        if with_bearer == "refuse" and "authorization" in call.request.headers:
            return refusal(400, "only one way of authorization allowed")
        if with_bearer == "want" and not self.accepts_token(call.request):
            return refusal(401, "no token, or one that has expired", www_authenticate="Bearer")
        if not self.accepts_signature(call.request):
            return refusal(403, "the request has expired or its signature does not match")
        return self._objects.bytes_of(call, ranges=True)


def _misunderstood(call: Call, fault: Fault | None) -> Call:
    """Return the call as a fault makes the service misunderstand it."""
    if fault is not None and fault.fail == "whole":
        return call.without("range")
    if fault is not None and fault.fail == "repeat" and call.kind == "search":
        return call.with_query(pageKey="0")
    return call


def _seen(call: Call, at_s: float) -> Seen:
    request = call.request
    return Seen(
        request.origin,
        call.kind,
        request.method,
        request.path,
        dict(request.query),
        dict(request.headers),
        at_s,
    )
