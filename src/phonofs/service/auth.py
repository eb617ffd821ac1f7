"""Fetches the access token, renews it before it expires, and hands it to requests.

Used by the client. Its task runs in the nursery of the composition root, so that a caller that is
cancelled does not cancel a refresh that others wait for. The token is kept in memory only.
"""

import copy
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import trio

from phonofs.config import Secret
from phonofs.errors import (
    CredentialsRefused,
    CredentialsUnreadable,
    ServiceError,
    Unavailable,
    UsageError,
    WrongAccount,
)
from phonofs.service import oauth
from phonofs.service.errors_map import failure
from phonofs.service.session import TOKEN, Transport, new_request

log = logging.getLogger(__name__)

RENEW_AT = (0.80, 0.88)
"""Fraction of a token's life after which it is renewed; random, so that mounts differ."""

LEAST_INTERVAL_S = 1.0
"""Least time between two tries, whatever the responses say, so that renewals never spin."""

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 15.0
"""Pauses while the service cannot be reached; tries go on for as long as the mount lives."""

SHORT_LIFE_S = 60.0
"""A token whose life is not longer than this is renewed ahead only if it was used."""

SHORT_REJECTION_PAUSE_S = 2.0
"""If the pause between renewals is not longer than this, a rejected token is always renewed: tokens
may be revoked twice within a moment."""

LONGEST_REJECTION_PAUSE_S = 300.0
"""The service may refuse a fresh token for minutes while a new key is being replicated, or for
ever. Then the pause before the next renewal doubles up to this, and the current token stays in
use."""

DEAD_KEY_PAUSE_S = 30.0
LONGEST_DEAD_KEY_PAUSE_S = 300.0
"""Pauses while the service refuses key and secret; they are read again before every try."""

CREDENTIALS_S = 60.0
"""Timeout for reading key and secret: a locked keyring asks its owner, who may be away."""

LARGEST_ANSWER = 1 << 16

Credentials = tuple[str, Secret]
"""Key and secret."""


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token with its number, valid for ``life_s`` seconds, ``until`` (trio's clock)."""

    value: str = field(repr=False)
    generation: int
    life_s: float
    until: float


class TokenProvider(httpx.Auth):
    """Provides the access token; as :class:`httpx.Auth`, sends it with requests.

    Owns the token, its generation (incremented with every token fetched), and the error if there
    is no token.
    Invariants: only :meth:`run` fetches, so at most one refresh runs at a time; ``_error`` is set
    only if the last try failed; every outcome of a try wakes all waiters; during a pause that the
    service asked for, nothing waits for the pause to end.
    """

    def __init__(
        self,
        transport: Transport,
        credentials: Callable[[], Awaitable[Credentials]],
    ) -> None:
        """``credentials`` is called before every try.

        It may wait, and may raise UsageError, WrongAccount and ServiceError.
        """
        self._transport = transport
        self._url = transport.api_url + oauth.TOKEN_PATH
        self._credentials = credentials
        self._token: Token | None = None
        self._generation = 0
        self._error: ServiceError | None = None
        self._failures = 0
        self._not_before = 0.0
        self._rejection_pause_s = 0.0
        self._rejected_at = float("-inf")
        self._used = False
        self._trying = False
        self._tried_at = -LEAST_INTERVAL_S
        self._renew_at = 0.0
        self._changed = trio.Event()
        self._wanted = trio.Event()
        self._rejected = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a valid token until cancelled. Never returns, never fails."""
        task_status.started()
        while True:
            await self._until_due()
            self._trying = True
            try:
                await self._try()
            finally:
                self._trying = False
                self._changed.set()
                self._changed = trio.Event()

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send a request with the token; after a 401 once more, with a new one."""
        token = await self.token()
        request.headers["Authorization"] = f"Bearer {token.value}"
        response = yield request
        if response.status_code == 401:
            await response.aclose()  # its permit may be needed to ask for a token
            self.reject(token)
            request.headers["Authorization"] = f"Bearer {(await self.token()).value}"
            yield request

    async def token(self) -> Token:
        """Return a valid token; wait for the first one, or for a refresh that is running.

        Raises CredentialsRefused or Unavailable if the last try failed and no try is running.
        """
        self._used = True
        while True:
            if (token := self.current()) is not None:
                return token
            paused = trio.current_time() < self._not_before
            under_way = self._trying or (self._wanted.is_set() and not paused)
            if self._error is not None and not under_way:
                raise copy.copy(self._error)  # an error collects a traceback when it is raised
            if not under_way:
                self._wanted.set()
            await self._changed.wait()

    def current(self) -> Token | None:
        """Return the token if it is valid now, else None."""
        if self._token is not None and trio.current_time() < self._token.until:
            return self._token
        return None

    def reject(self, token: Token) -> None:
        """Renew ``token``, to which the service answered 401, unless a renewal just did not help.

        Only the first rejection of a token counts. Rejections also cover a case that no deadline
        can: a token that expired while the machine was suspended.
        """
        if token is not self._token:
            return
        now = trio.current_time()
        if now - self._rejected_at > LONGEST_REJECTION_PAUSE_S:
            self._rejection_pause_s = 0.0
        self._rejected_at = now
        if now - (token.until - token.life_s) < self._rejection_pause_s > SHORT_REJECTION_PAUSE_S:
            return
        longer_s = max(LEAST_INTERVAL_S, 2 * self._rejection_pause_s)
        self._rejection_pause_s = min(longer_s, LONGEST_REJECTION_PAUSE_S)
        log.debug("the service no longer accepts the token; it is renewed")
        self._rejected += 1
        self._token = None
        self._wanted.set()

    def retry_now(self) -> None:
        """Read the credentials again and try at once (SIGHUP).

        This ends our own pause, but not one that the service asked for.
        """
        self._rejection_pause_s = 0.0
        self._wanted.set()

    def statistics(self) -> dict[str, Any]:
        """Return whether the token is valid, its life left in seconds, counts, and the error.

        ``failures`` counts failures in a row. The token itself is never included.
        """
        token = self.current()
        left_s = token.until - trio.current_time() if token is not None else 0.0
        return {
            "valid": token is not None,
            "life_s": round(left_s, 1),
            "fetched": self._generation,
            "rejected": self._rejected,
            "failures": self._failures,
            "error": str(self._error) if self._error is not None else "",
        }

    async def _until_due(self) -> None:
        """Wait until the next try is due or wanted.

        Waits at least LEAST_INTERVAL_S after the last try, and as long as the service asked for.
        """
        with trio.move_on_at(self._renew_at):
            await self._wanted.wait()
        short = self._token is not None and self._token.life_s <= SHORT_LIFE_S
        if short and not self._used and self._error is None:
            await self._wanted.wait()
        await trio.sleep_until(max(self._tried_at + LEAST_INTERVAL_S, self._not_before))
        self._wanted = trio.Event()

    async def _try(self) -> None:
        self._tried_at = trio.current_time()
        try:
            grant = await self._fetch()
        except ServiceError as error:
            self._note_failure(error)
        except Exception as error:
            log.exception("asking for a token failed")
            self._note_failure(Unavailable(f"no token can be had ({type(error).__name__})"))
        else:
            self._note_success(grant)

    async def _fetch(self) -> oauth.Grant:
        key, secret = await self._read_credentials()
        headers = oauth.headers(key, secret)
        request = new_request(TOKEN, self._url, "POST", headers=headers, content=oauth.BODY)
        response, body = await self._transport.request(request, limit_bytes=LARGEST_ANSWER)
        if response.status_code == 200:
            return oauth.parse_grant(body)
        raise oauth.refusal(response.status_code) or failure(response, "a token")

    async def _read_credentials(self) -> Credentials:
        try:
            with trio.move_on_after(CREDENTIALS_S):
                return await self._credentials()
        except UsageError as error:
            raise CredentialsUnreadable(str(error)) from error
        except WrongAccount as error:
            raise CredentialsRefused(str(error)) from error
        raise CredentialsUnreadable(
            "the key and the secret could not be read: is the keyring locked?"
        )

    def _note_success(self, grant: oauth.Grant) -> None:
        if self._failures:
            log.info("a token was granted again after %d failures", self._failures)
        now = trio.current_time()
        self._generation += 1
        self._token = Token(grant.token, self._generation, grant.life_s, now + grant.life_s)
        self._used = False
        self._renew_at = now + grant.life_s * random.uniform(*RENEW_AT)  # noqa: S311
        self._error, self._failures, self._not_before = None, 0, 0.0

    def _note_failure(self, error: ServiceError) -> None:
        refused = isinstance(error, CredentialsRefused)
        first, longest = (
            (DEAD_KEY_PAUSE_S, LONGEST_DEAD_KEY_PAUSE_S)
            if refused
            else (FIRST_PAUSE_S, LONGEST_PAUSE_S)
        )
        if type(error) is not type(self._error):
            self._failures = 0
            log.log(logging.WARNING if refused else logging.INFO, "no token: %s", error)
        pause_s = min(first * 2 ** min(self._failures, 10), longest)
        self._failures += 1
        self._error = error
        asked_s = error.retry_after_s if isinstance(error, Unavailable) else None
        spread = random.uniform(0.8, 1.0)  # noqa: S311
        now = trio.current_time()
        self._not_before = now + (asked_s or 0.0)
        self._renew_at = max(now + pause_s * spread, self._not_before)
