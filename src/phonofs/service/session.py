"""Requests and answers. Together with ``wire`` and ``transport_errors`` the only user of httpx.

Used by the token keeper and the client, on the event loop. Every request passes the gate of its
origin, holds a slot until its body is closed, carries the token to the service's own origin only,
and has deadlines: ``timeout_s`` to the answer's head, the same for each chunk, and a least speed.
Nothing is followed, decoded or tried again here. Errors are our own and quote no query, header or
body.
"""

import logging
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

import httpx
import trio

from phonofs import __version__
from phonofs.errors import (
    Malformed,
    PhonofsError,
    ServiceError,
    TooLarge,
    Unavailable,
    UsageError,
)
from phonofs.priority import Priority
from phonofs.service.backoff import asked_pause_s
from phonofs.service.content_headers import Headers, content_length
from phonofs.service.errors_map import EXPECTED, explained
from phonofs.service.http11 import Http11Transport, ResponseBody
from phonofs.service.limiter import Gates, Permit, PriorityLimiter
from phonofs.service.minimum_speed import MinimumSpeed
from phonofs.service.proxies import environment_proxies, proxy_for, through
from phonofs.service.tls import trusting
from phonofs.service.url_policy import Origin, UrlPolicy, origin_of

log = logging.getLogger(__name__)

CLOSING_S = 2.0
"""Closing a TLS stream can wait on the other side; after this it is left to the system."""

KEEP_ALIVE_S = 20.0
"""An idle connection is not used again after this: object stores close theirs from then on."""

KEPT_CHUNKS = 16
KEPT_BYTES = 1 << 16
"""How much is kept of an answer that is too long, to see what kind of answer it was."""

USER_AGENT = f"phonofs/{__version__}"

STORAGE, TOKENS = "storage", "tokens"
"""What requests to one origin are throttled together."""

SMALL_CHUNK = 64
SMALL_CHUNKS_AT_ONCE = 100
MOST_SMALL_CHUNKS = 1 << 15
"""Of a body by way of httpx, which takes about 50 us for each: so many go by before others get
their turn, and so many may come at all, and one more for every 64 bytes."""

Chunk = bytes | bytearray | memoryview
"""A piece of a body; a memoryview holds only until the next one is asked for."""


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token; ``generation`` counts those that were fetched, ``until`` is trio's clock."""

    value: str = field(repr=False)
    generation: int
    until: float


class Bearer(Protocol):
    """Who has the token (:class:`phonofs.service.auth.TokenProvider`)."""

    async def token(self) -> Token:
        """Wait for a valid one."""

    def current(self) -> Token | None:
        """The valid one, if there is one now."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: its ``kind`` for the statistics, and what is sent.

    ``throttled_with`` (:data:`STORAGE` or :data:`TOKENS`) names the requests to the same origin
    that a 429 pauses together.
    """

    kind: str
    url: str = field(repr=False)
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    throttled_with: str = STORAGE


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: status, headers (lower case), body, and the token it was asked with."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)
    token: Token | None = None
    pause_s: float | None = None


@dataclass(slots=True)
class Counts:
    """What was done so far: requests by kind, errors by class, bytes of bodies."""

    requests: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    received_bytes: int = 0

    def asked(self, kind: str) -> None:
        """Count one request."""
        self.requests[kind] += 1

    def failed(self, error: PhonofsError) -> None:
        """Count one error by its class."""
        self.errors[type(error).__name__] += 1

    def received(self, size: int) -> None:
        """Count ``size`` bytes of a body."""
        self.received_bytes += size


class Transport:
    """The way to the service. An async context manager; leaving it closes all connections.

    Owns the connections, the slots, the gates and the counts.
    """

    def __init__(
        self,
        api_url: str,
        *,
        max_connections: int = 16,
        timeout_s: float = 30.0,
        fast: bool = True,
        http: httpx.AsyncBaseTransport | None = None,
        context: ssl.SSLContext | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        """``fast``: by way of :mod:`phonofs.service.http11`, else by httpx's own transport.

        ``http`` stands in for the network (tests); ``proxies`` for those of the environment.

        Raises UsageError for an ``api_url`` that would show the token to others.
        """
        self.targets = UrlPolicy(api_url)
        self.slots = PriorityLimiter(max_connections)
        self.gates = Gates()
        self.timeout_s = timeout_s
        self._context = trusting() if context is None and http is None else context
        self._proxies = environment_proxies() if proxies is None else dict(proxies)
        self.counts = Counts()
        self._direct = http if http is not None else self._own(fast)
        self._given = http is not None
        self._by_proxy: dict[str, httpx.AsyncBaseTransport] = {}
        quiet()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with trio.move_on_after(CLOSING_S, shield=True):
            for transport in (self._direct, *self._by_proxy.values()):
                await transport.aclose()

    async def request(
        self, ask: Ask, *, limit_bytes: int, urgent: bool = True, bearer: Bearer | None = None
    ) -> Answer:
        """The whole answer. Raises TooLarge when its body is longer than ``limit_bytes``."""
        stream = await self.open(ask, urgent=urgent, bearer=bearer)
        return await stream.answer(limit_bytes)

    async def open(
        self, ask: Ask, *, urgent: bool | Priority = True, bearer: Bearer | None = None
    ) -> "Stream":
        """Send a request and return its response, whose body is still to come.

        The caller closes it; until then it holds a permit.

        Raises Unavailable if there is no response, also if the connection broke or the response
        is not HTTP; Untrusted for the server's certificate; Malformed for a host that may not be
        asked and for a response that is too costly to read; with ``bearer`` also the errors of
        the token provider.
        """
        origin = origin_of(ask.url)
        if bearer is not None and origin != self.targets.api:
            raise RuntimeError("the token stays with the service")
        throttled = origin, ask.throttled_with
        permit, token = await self._admit(urgent, bearer, throttled)
        sent_at = trio.current_time()
        try:
            response = await self._send(ask, origin, token)
            stream = Stream(self, ask, origin.host, response, token, permit, sent_at)
        except BaseException as error:
            permit.release()
            if isinstance(error, ServiceError):
                self.counts.failed(error)
            raise
        if stream.pause_s and stream.status == 429:
            self.gates.close(throttled, stream.pause_s)
        return stream

    def statistics(self) -> dict[str, Any]:
        """Requests by kind, errors by class, bytes received, slots, and the longest pause left.

        ``slots`` as in :meth:`PriorityLimiter.statistics`.
        """
        return {
            "requests": dict(self.counts.requests),
            "errors": dict(self.counts.errors),
            "received_bytes": self.counts.received_bytes,
            "slots": self.slots.statistics(),
            "paused_s": round(self.gates.longest_s, 3),
        }

    async def _admit(
        self, urgent: bool | Priority, bearer: Bearer | None, throttled: tuple[Origin, str]
    ) -> tuple[Permit, Token | None]:
        """Hold a slot, with no pause asked for and a token valid at that very moment.

        Nobody waits for a gate or a token while holding a slot: the keeper needs one too. Its
        request goes before all that wait, which will need the token.
        """
        while True:
            if bearer is not None:
                await bearer.token()
            await self.gates.passed(throttled)
            permit = await self.slots.acquire(urgent, first=throttled[1] == TOKENS)
            token = bearer.current() if bearer is not None else None
            if not self.gates.closed_s(throttled) and (bearer is None or token is not None):
                return permit, token
            permit.release()

    async def _send(self, ask: Ask, origin: Origin, token: Token | None) -> httpx.Response:
        self.counts.asked(ask.kind)
        proxy = None if self._given else proxy_for(origin, self._proxies)
        try:
            request = self._request(ask, origin, token)
            with trio.fail_after(self.timeout_s):
                response = await self._route(proxy).handle_async_request(request)
        except EXPECTED as error:
            raise explained(error, through(origin.host, proxy), self.timeout_s) from error
        if origin != self.targets.api and proxy is None:
            await self._check_server(response)
        return response

    def _request(self, ask: Ask, origin: Origin, token: Token | None) -> httpx.Request:
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **ask.headers}
        if token is not None:
            headers["Authorization"] = f"Bearer {token.value}"
        # httpcore leaves a socket open when it is cancelled while it connects, but not when its
        # own timeout ends it: so that comes a little earlier than ours.
        extensions: dict[str, Any] = {"timeout": {"connect": self.timeout_s * 0.95}}
        if origin != self.targets.api:
            extensions["check_address"] = self.targets.check_address
        try:
            request = httpx.Request(
                ask.method, ask.url, headers=headers, content=ask.body or None,
                extensions=extensions,
            )  # fmt: skip
            _ = request.url.host  # only now is a name in another script decoded
        except UnicodeError as error:
            raise Malformed(f"{origin.host} is not the name of a host") from error
        return request

    async def _check_server(self, response: httpx.Response) -> None:
        """Look at the address of a server that httpx reached, before its answer is used.

        The wire has looked before it sent anything; a proxy reaches servers by itself.
        """
        network = response.extensions.get("network_stream")
        address = network.get_extra_info("server_addr") if network is not None else None
        try:
            self.targets.check_address(str(address[0]) if address else "")
        except ServiceError:
            with trio.move_on_after(CLOSING_S, shield=True):
                await response.aclose()
            raise

    def _route(self, proxy: str | None) -> httpx.AsyncBaseTransport:
        if proxy is None:
            return self._direct
        if proxy not in self._by_proxy:
            self._by_proxy[proxy] = self._ordinary(proxy)
        return self._by_proxy[proxy]

    def _own(self, fast: bool) -> httpx.AsyncBaseTransport:
        if not fast or self._context is None:
            return self._ordinary(None)
        return Http11Transport(
            self._context,
            most=self.slots.total,
            keep_alive_s=KEEP_ALIVE_S,
            in_use=lambda: self.slots.in_use,
        )

    def _ordinary(self, proxy: str | None) -> httpx.AsyncBaseTransport:
        """httpx's own transport: HTTP/1.1 only, since its HTTP/2 has a fifth of the speed."""
        limits = httpx.Limits(
            max_connections=self.slots.total,
            max_keepalive_connections=self.slots.total,
            keepalive_expiry=KEEP_ALIVE_S,
        )
        try:
            return httpx.AsyncHTTPTransport(
                verify=self._context or True, http2=False, limits=limits, proxy=proxy
            )
        except (ImportError, ValueError) as error:
            raise UsageError("the proxy in the environment cannot be used") from error


class Stream:
    """An answer whose body is still to come: an async iterator over its chunks, in order.

    Holds a slot until its last byte came, or :meth:`aclose`, which may be called more than once.
    ``sent_at`` (trio's clock) is when the request was sent, after all waiting for a slot, a token
    and the end of a pause.
    """

    def __init__(
        self,
        transport: Transport,
        ask: Ask,
        host: str,
        response: httpx.Response,
        token: Token | None,
        permit: Permit,
        sent_at: float,
    ) -> None:
        self.status = response.status_code
        self.headers: Headers = {key.lower(): value for key, value in response.headers.items()}
        self.token = token
        self.url = ask.url
        self.sent_at = sent_at
        self._host = host
        self.pause_s = asked_pause_s(self.status, self.headers, time.time())
        self._transport = transport
        self._response = response
        self._wire = response.stream if isinstance(response.stream, ResponseBody) else None
        self._chunks: AsyncIterator[Chunk] = aiter(response.stream)  # type: ignore[arg-type]
        self._permit = permit
        self._pace = MinimumSpeed(transport.timeout_s)
        self._received = 0
        self._small_chunks = 0
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        """The next chunk. Raises Unavailable where it is cut off, late or too slow."""
        timeout_s = self._transport.timeout_s
        waited_s = 0.0
        try:
            chunk = self._now()
            if chunk is None:
                started = trio.current_time()
                with trio.fail_after(timeout_s):
                    chunk = await anext(self._chunks)
                waited_s = trio.current_time() - started
        except EXPECTED as error:
            raise self._failed(explained(error, self._host, timeout_s)) from error
        self._received += len(chunk)
        self._transport.counts.received(len(chunk))
        if self._pace.too_slow(waited_s, len(chunk)):
            raise self._failed(self._too_slow())
        if self._wire is None and len(chunk) < SMALL_CHUNK:
            await self._took_small_chunk()
        if self._wire is not None and self._wire.over and not self._closed:
            chunk = bytes(chunk)  # the buffer it lies in may be another's from now on
            self._closed = True
            self._wire.close()
            self._permit.release()
        return chunk

    async def _took_small_chunk(self) -> None:
        self._small_chunks += 1
        if self._small_chunks % SMALL_CHUNKS_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
        if self._small_chunks > MOST_SMALL_CHUNKS + self._received // SMALL_CHUNK:
            sentence = f"{self._host} sends its answer in too many small pieces"
            raise self._failed(Malformed(sentence))

    def _now(self) -> Chunk | None:
        """The next chunk where it is there already, or StopAsyncIteration: the way is spared."""
        if self._wire is None:
            return None
        if self._wire.over:
            raise StopAsyncIteration
        return self._wire.now()

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body, in ``timeout_s`` at most. Raises TooLarge beyond ``limit_bytes``."""
        parts, size = [], 0
        with trio.move_on_after(self._transport.timeout_s) as scope:
            async for chunk in self:
                parts.append(bytes(chunk))
                size += len(chunk)
                if size > limit_bytes:
                    start = b"".join(parts[:KEPT_CHUNKS])[:KEPT_BYTES]
                    raise self._failed(TooLarge(f"the answer of {self._host} is too long", start))
        if scope.cancelled_caught:
            raise self._failed(self._too_slow())
        return b"".join(parts)

    async def answer(self, limit_bytes: int) -> Answer:
        """Read the whole body as in :meth:`read`, and close it in any case."""
        try:
            body = await self.read(limit_bytes)
            return Answer(self.status, self.headers, body, self.token, self.pause_s)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the body and give the slot back, within 2 s whatever the other side does."""
        if self._closed:
            return
        self._closed = True
        try:
            with trio.move_on_after(CLOSING_S, shield=True):
                await self._close()
        finally:
            self._permit.release()

    async def _close(self) -> None:
        try:
            if self._wire is None and self._received == content_length(self.headers):
                await anext(self._chunks, None)  # httpcore keeps what was read to its very end
            if (closing := getattr(self._chunks, "aclose", None)) is not None:
                await closing()
            await self._response.aclose()
        except (httpx.HTTPError, OSError, RuntimeError, trio.BrokenResourceError) as error:
            log.debug("closing a connection failed: %s", type(error).__name__)

    def _too_slow(self) -> Unavailable:
        return Unavailable(f"{self._host} sends too slowly to wait for")

    def _failed(self, error: PhonofsError) -> PhonofsError:
        self._transport.counts.failed(error)
        return error


def quiet() -> None:
    """Keep httpx and httpcore from logging: they print whole URLs, signatures and headers."""
    for name in ("httpx", "httpcore", "hpack"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
