"""The state of the fake service, which the handlers of requests share."""

import time
from collections.abc import Callable
from typing import Any

import trio

from phonofs.fakeservice.account import Account, Item, change
from phonofs.fakeservice.faults import Faults
from phonofs.fakeservice.options import Options, changed_options
from phonofs.fakeservice.tokens import Signer, Tokens


class State:
    """One account and how the fake service serves it.

    Owns the tokens, the objects being restored, and the count of requests in the present window.
    The account belongs to the caller, who may change it at any time.

    account, options, faults   what is served, how, and which requests fail
    tokens, signer   the valid tokens, and what makes presigned URLs
    url, store_url   the origins of the API and of presigned URLs, set by :meth:`listen_at`
    now_ms           the time as UTC epoch milliseconds
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
        self.tokens = Tokens()
        self.signer = Signer(lambda: self.now_ms())  # a test may replace it
        self.now_ms = now_ms
        self.url = "http://127.0.0.1:8801"
        self.store_url = "http://127.0.0.1:8802"
        self._restoring: dict[tuple[str, str], float] = {}
        self._window_ends_s = 0.0
        self._in_window = 0

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
        if choices.keys() & {"key", "secret"}:
            self.tokens.revoke()

    def presigned(self, path: str, life_s: float | None = None) -> str:
        """Return a URL of a path below ``/store`` or ``/storage``, on the origin that has it.

        It is valid for ``life_s`` seconds; the default is in the options.
        """
        life_s = self.options.presign_life_s if life_s is None else life_s
        origin = self.store_url if path.startswith("/store/") else self.url
        return origin + self.signer.sign(path, life_s)

    def throttled_s(self) -> float:
        """Count a request; return how long its sender has to wait, 0 if it is not one too many."""
        now_s = trio.current_time()
        if now_s >= self._window_ends_s:
            self._window_ends_s, self._in_window = now_s + self.options.window_s, 0
        self._in_window += 1
        too_many = 0 < self.options.most_requests < self._in_window
        return self._window_ends_s - now_s if too_many else 0.0

    def sent(self, item: Item, start: int, stop: int) -> None:
        """Called when the bytes ``[start, stop)`` of an object were sent; tests count them."""

    def restore(self, region: str, id: str) -> None:
        """Begin to restore an archived object; it becomes available after ``restore_s``."""
        due_s = trio.current_time() + self.options.restore_s
        self._restoring.setdefault((region, id), due_s)

    def finish_restores(self) -> None:
        """Make the objects available whose restore is due."""
        for (region, id), due_s in list(self._restoring.items()):
            if due_s <= trio.current_time():
                del self._restoring[region, id]
                change(self.account, region, id, self.now_ms(), state="AVAILABLE")
