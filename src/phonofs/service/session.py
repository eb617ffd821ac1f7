"""Sends requests to the service and to object stores.

Used by the token provider and the client, on the event loop. Every request waits until its gate
is open (a 429 closes that of its origin and kind for a time), holds a permit until its body is
closed, and carries the token to the service's own origin only.

``timeout_s`` is the deadline of the response's head and of each chunk. Redirects are
not followed, bodies not decoded and requests not retried here. Errors are those of
:mod:`phonofs.errors`; their messages quote no query, header or body.
"""

import logging
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import httpx
import trio

from phonofs import __version__
from phonofs.errors import Malformed, ServiceError, UsageError
from phonofs.priority import Priority
from phonofs.service.errors_map import EXPECTED, explained
from phonofs.service.http11 import Http11Transport
from phonofs.service.limiter import Gates, Permit, PriorityLimiter
from phonofs.service.messages import TOKENS, Request, Response, Token
from phonofs.service.proxies import environment_proxies, proxy_for, through
from phonofs.service.streaming_response import CLOSING_S, Counts, StreamingResponse
from phonofs.service.tls import trusting
from phonofs.service.url_policy import Origin, UrlPolicy, origin_of

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 20.0
"""An idle connection is closed after this time; object stores close theirs from then on."""

USER_AGENT = f"phonofs/{__version__}"


class Bearer(Protocol):
    """Provides the token (:class:`phonofs.service.auth.TokenProvider`)."""

    async def token(self) -> Token:
        """Wait for a valid token."""

    def current(self) -> Token | None:
        """Return the token if it is valid now."""


class Transport:
    """Sends requests. An async context manager; leaving it closes all connections.

    Owns the connections, the permits, the gates and the counts.
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
        """``fast`` selects :mod:`phonofs.service.http11` instead of httpx's own transport.

        ``http`` replaces the network (in tests), ``proxies`` those of the environment.

        Raises UsageError for an ``api_url`` that would show the token to others.
        """
        self.targets = UrlPolicy(api_url)
        self.slots = PriorityLimiter(max_connections)
        self.gates = Gates()
        self.timeout_s = timeout_s
        self._context = trusting() if context is None and http is None else context
        self._proxies = environment_proxies() if proxies is None else dict(proxies)
        self.counts = Counts()
        self._direct = http if http is not None else self._direct_transport(fast)
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
        self,
        request: Request,
        *,
        limit_bytes: int,
        urgent: bool = True,
        bearer: Bearer | None = None,
    ) -> Response:
        """Return the whole response. Raises TooLarge if its body exceeds ``limit_bytes``."""
        stream = await self.open(request, urgent=urgent, bearer=bearer)
        return await stream.read_response(limit_bytes)

    async def open(
        self, request: Request, *, urgent: bool | Priority = True, bearer: Bearer | None = None
    ) -> StreamingResponse:
        """Send a request and return its response, whose body is still to come.

        The caller closes it; until then it holds a permit.

        Raises Unavailable if there is no response, also if the connection broke or the response
        is not HTTP; Untrusted for the server's certificate; Malformed for a host that may not be
        asked and for a response that is too costly to read; with ``bearer`` also the errors of
        the token provider.
        """
        origin = origin_of(request.url)
        if bearer is not None and origin != self.targets.api:
            raise RuntimeError("the token stays with the service")
        throttled = origin, request.throttled_with
        permit, token = await self._admit(urgent, bearer, throttled)
        sent_at = trio.current_time()
        try:
            response = await self._send(request, origin, token)
            stream = StreamingResponse(
                request.url,
                response,
                token=token,
                permit=permit,
                sent_at=sent_at,
                timeout_s=self.timeout_s,
                counts=self.counts,
            )
        except BaseException as error:
            permit.release()
            if isinstance(error, ServiceError):
                self.counts.failed(error)
            raise
        if stream.pause_s and stream.status == 429:
            self.gates.close(throttled, stream.pause_s)
        return stream

    def statistics(self) -> dict[str, Any]:
        """Return requests by kind, errors by class, bytes received, permits, and the longest pause.

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
        """Acquire a permit at a moment without a pause and with a valid token.

        No request waits for a gate or a token while it holds a permit, because the request for a
        token needs a permit too. That one goes before all that wait, which need the token.
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

    async def _send(self, request: Request, origin: Origin, token: Token | None) -> httpx.Response:
        self.counts.asked(request.kind)
        proxy = None if self._given else proxy_for(origin, self._proxies)
        try:
            message = self._http_request(request, origin, token)
            with trio.fail_after(self.timeout_s):
                response = await self._transport(proxy).handle_async_request(message)
        except EXPECTED as error:
            raise explained(error, through(origin.host, proxy), self.timeout_s) from error
        if origin != self.targets.api and proxy is None:
            await self._check_server(response)
        return response

    def _http_request(self, request: Request, origin: Origin, token: Token | None) -> httpx.Request:
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **request.headers}
        if token is not None:
            headers["Authorization"] = f"Bearer {token.value}"
        # httpcore leaves a socket open when it is cancelled while it connects, but not when its
        # own timeout ends it: so that comes a little earlier than ours.
        extensions: dict[str, Any] = {"timeout": {"connect": self.timeout_s * 0.95}}
        if origin != self.targets.api:
            extensions["check_address"] = self.targets.check_address
        try:
            message = httpx.Request(
                request.method, request.url, headers=headers, content=request.body or None,
                extensions=extensions,
            )  # fmt: skip
            _ = message.url.host  # only now is a name in another script decoded
        except UnicodeError as error:
            raise Malformed(f"{origin.host} is not the name of a host") from error
        return message

    async def _check_server(self, response: httpx.Response) -> None:
        """Check the address of the server that httpx reached, before its response is used.

        http11 checks before it sends anything; a proxy connects to servers by itself.
        """
        network = response.extensions.get("network_stream")
        address = network.get_extra_info("server_addr") if network is not None else None
        try:
            self.targets.check_address(str(address[0]) if address else "")
        except ServiceError:
            with trio.move_on_after(CLOSING_S, shield=True):
                await response.aclose()
            raise

    def _transport(self, proxy: str | None) -> httpx.AsyncBaseTransport:
        if proxy is None:
            return self._direct
        if proxy not in self._by_proxy:
            self._by_proxy[proxy] = self._httpx_transport(proxy)
        return self._by_proxy[proxy]

    def _direct_transport(self, fast: bool) -> httpx.AsyncBaseTransport:
        if not fast or self._context is None:
            return self._httpx_transport(None)
        return Http11Transport(
            self._context,
            most=self.slots.total,
            keep_alive_s=KEEP_ALIVE_S,
            in_use=lambda: self.slots.in_use,
        )

    def _httpx_transport(self, proxy: str | None) -> httpx.AsyncBaseTransport:
        """Return httpx's own transport, HTTP/1.1 only: its HTTP/2 has a fifth of the speed."""
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


def quiet() -> None:
    """Keep httpx and httpcore from logging: they print whole URLs, signatures and headers."""
    for name in ("httpx", "httpcore", "hpack"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
