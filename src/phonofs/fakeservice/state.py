"""The state of the fake service, which all its parts share."""

from collections.abc import Callable
from typing import Any

import trio

from phonofs.fakeservice.account import Account, change
from phonofs.fakeservice.faults import Faults
from phonofs.fakeservice.options import Options, changed_options
from phonofs.fakeservice.request_log import Counters
from phonofs.fakeservice.responses import Request
from phonofs.fakeservice.tokens import Signer, Tokens


class State:
    """One account and how the fake service serves it.

    Owns the tokens, the counters and the objects being restored. The account belongs to the
    caller, who may change it at any time.

    account, options, faults   what is served, how, and which requests fail
    counters      counts of the requests and of the bytes sent
    tokens        the valid tokens
    url, store_url   the origins of the API and of presigned URLs, set by :meth:`listen_at`
    now_ms        the time as UTC epoch milliseconds
    """

    def __init__(
        self, account: Account, options: Options, faults: Faults, now_ms: Callable[[], int]
    ) -> None:
        self.account = account
        self.options = options
        self.faults = faults
        self.counters = Counters()
        self.tokens = Tokens(options)
        self.now_ms = now_ms
        self.url = "http://127.0.0.1:8801"
        self.store_url = "http://127.0.0.1:8802"
        self._signer = Signer()
        self._restoring: dict[tuple[str, str], float] = {}
        self._began_s: float | None = None

    def age_s(self) -> float:
        """Return the seconds since the first request."""
        now_s = trio.current_time()
        if self._began_s is None:
            self._began_s = now_s
        return now_s - self._began_s

    def listen_at(self, url: str, store_url: str) -> None:
        """Set the two origins. To be called before the first request."""
        self.url, self.store_url = url, store_url

    def misbehave(self, faults: Faults) -> None:
        """Follow this fault plan from now on."""
        self.faults = faults

    def choose(self, **choices: Any) -> None:
        """Change fields of the options.

        Another key or secret revokes all tokens. Raises UsageError and changes nothing if a
        choice is unknown or out of range.
        """
        self.options = changed_options(self.options, choices)
        self.tokens.follow(self.options)

    def presigned(self, path: str, life_s: float | None = None) -> str:
        """Return a URL of a path below ``/store`` or ``/storage``, on the origin that has it.

        It is valid for ``life_s`` seconds; the default is in the options.
        """
        life_s = self.options.presign_life_s if life_s is None else life_s
        origin = self.store_url if path.startswith("/store/") else self.url
        return origin + self._signer.sign(path, self.now_ms() + int(life_s * 1000), life_s)

    def restore(self, region: str, id: str) -> None:
        """Begin to restore an archived object; it becomes available after ``restore_s``."""
        due_s = trio.current_time() + self.options.restore_s
        self._restoring.setdefault((region, id), due_s)
        self.finish_restores()

    def finish_restores(self) -> None:
        """Make the objects available whose restore is due."""
        now_s = trio.current_time() if self._restoring else 0.0
        for region, id in [key for key, due_s in self._restoring.items() if due_s <= now_s]:
            del self._restoring[region, id]
            change(self.account, region, id, self.now_ms(), state="AVAILABLE")

    def accepts_token(self, request: Request) -> bool:
        """Whether the request has a valid token."""
        return self.tokens.accepts(request, trio.current_time())

    def accepts_signature(self, request: Request) -> bool:
        """Whether the request is for a presigned URL that is still valid."""
        return self._signer.accepts(request, self.now_ms())
