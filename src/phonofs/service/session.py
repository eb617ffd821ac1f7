"""Sends requests to the service and to object stores.

Used by the token provider and the client, on the event loop. Every request waits until its gate
is open (a 429 closes that of its origin and kind for a time), holds a permit until its body is
closed, and carries the token to the service's own origin only. Requests to that origin are sent
as often as ``max_rate`` allows, and less often after a 429; those for a token do not count.

``timeout_s`` is the deadline of the response's head and of each chunk. Redirects are
not followed, bodies not decoded and requests not retried here. Errors are those of
:mod:`phonofs.errors`; their messages quote no query, header or body.
"""

import logging
import ssl
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode
from urllib.request import getproxies

import httpx
import trio

from phonofs import __version__
from phonofs.errors import Malformed, ServiceError, UsageError
from phonofs.priority import Priority
from phonofs.service.errors_map import EXPECTED, asked_pause_s, explained
from phonofs.service.gates import Gates
from phonofs.service.http11 import Http11Transport
from phonofs.service.limiter import Permit, PriorityLimiter
from phonofs.service.streaming_response import CLOSING_S, Counts, LimitedStream, stream_of
from phonofs.service.tls import trusting
from phonofs.service.url_policy import (
    Origin,
    UrlPolicy,
    origin_of,
    proxy_for,
    through,
)
from phonofs.units import Rate, format_rate

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 20.0
"""An idle connection is closed after this time; object stores close theirs from then on."""

USER_AGENT = f"phonofs/{__version__}"

TOKEN = "token"  # noqa: S105 (a kind of request)
"""The kind of a request for a token. It goes before all requests that wait, which need the token.
A 429 to it pauses no other request to the same origin, nor the reverse."""


def new_request(
    kind: str,
    url: str,
    method: str = "GET",
    *,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
) -> httpx.Request:
    """Return a request with the headers that all have; ``kind`` is for the statistics.

    Raises Malformed if the URL has no host that can be asked.
    """
    all_headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(headers or {})}
    try:
        request = httpx.Request(
            method, url, headers=all_headers, content=content, extensions={"kind": kind}
        )
        _ = request.url.host  # only now is a name in another script decoded
    except (UnicodeError, httpx.InvalidURL) as error:
        raise Malformed("the URL of a request has no host whose name can be used") from error
    return request


class Transport:
    """Sends requests. An async context manager; leaving it closes all connections.

    Owns the connections, the permits, the gates and the counts.
    """

    def __init__(
        self,
        api_url: str,
        *,
        max_connections: int = 16,
        max_rate: Rate | None = None,
        timeout_s: float = 30.0,
        http: httpx.AsyncBaseTransport | None = None,
        context: ssl.SSLContext | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        """``http`` replaces the network (in tests), ``proxies`` those of the environment.

        Raises UsageError for an ``api_url`` that would show the token to others.
        """
        self.targets = UrlPolicy(api_url)
        self.api_url = api_url.rstrip("/")
        self.slots = PriorityLimiter(max_connections, max_rate)
        self.gates = Gates()
        self.timeout_s = timeout_s
        self.counts = Counts()
        self._context = context
        self._proxies: Mapping[str, str] = {}
        if http is None:
            self._context = context or trusting()
            self._proxies = getproxies() if proxies is None else proxies
            http = Http11Transport(
                self._context,
                most=self.slots.total,
                keep_alive_s=KEEP_ALIVE_S,
                in_use=lambda: self.slots.in_use,
            )
        self._by_proxy: dict[str | None, httpx.AsyncBaseTransport] = {None: http}
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
            for transport in self._by_proxy.values():
                await transport.aclose()

    def url(self, region: str, *path: str, query: Mapping[str, str | int] | None = None) -> str:
        """Return the URL of a path in a region's storage; each segment is quoted."""
        parts = "/".join(quote(part, safe="") for part in path)
        question = f"?{urlencode(query, quote_via=quote)}" if query else ""
        return f"{self.api_url}/storage/{quote(region, safe='')}/v3/{parts}{question}"

    async def request(
        self,
        request: httpx.Request,
        *,
        limit_bytes: int,
        urgent: bool | Priority = True,
        auth: httpx.Auth | None = None,
    ) -> tuple[httpx.Response, bytes]:
        """Return the response and its body, not decoded. Raises TooLarge beyond ``limit_bytes``."""
        response = await self.open(request, urgent=urgent, auth=auth)
        try:
            return response, await stream_of(response).read(limit_bytes)
        finally:
            await response.aclose()

    async def open(
        self,
        request: httpx.Request,
        *,
        urgent: bool | Priority = True,
        auth: httpx.Auth | None = None,
    ) -> httpx.Response:
        """Send a request and return its response, whose body is still to come.

        The caller closes it; until then it holds a permit. Its ``stream`` is a
        :class:`LimitedStream`; ``sent_at`` among its extensions is when the request was sent
        (trio's clock), after it waited for a permit and the end of a pause.

        Raises Unavailable if there is no response, also if the connection broke or the response
        is not HTTP; Untrusted for the server's certificate; Malformed for a host that may not be
        asked and for a response that is too costly to read; and the errors of ``auth``.
        """
        if auth is None:
            return await self._open(request, urgent)
        if origin_of(request.url) != self.targets.api:
            raise RuntimeError("the token stays with the service")
        flow = auth.async_auth_flow(request)
        try:
            response = await self._open(await anext(flow), urgent)
            with suppress(StopAsyncIteration):
                while True:
                    response = await self._open(await flow.asend(response), urgent)
            return response
        finally:
            await flow.aclose()

    async def _open(self, request: httpx.Request, urgent: bool | Priority) -> httpx.Response:
        origin, kind = origin_of(request.url), request.extensions["kind"]
        throttled = origin, kind == TOKEN
        permit = await self._acquire(urgent, throttled)
        sent_at = trio.current_time()
        permit.use(sent_at)
        try:
            response = await self._send(request, origin)
            stream = LimitedStream(
                response,
                host=origin.host,
                permit=permit,
                timeout_s=self.timeout_s,
                counts=self.counts,
            )
        except BaseException as error:
            permit.release()
            if isinstance(error, ServiceError):
                self.counts.failed(error)
            raise
        if response.status_code == 429:
            self.gates.close(throttled, asked_pause_s(response) or 0.0)
            per_s = permit.metered and self.slots.note_429(sent_at, self.gates.opens_at(throttled))
            if per_s:
                log.info(
                    "the service is asked too often: from now on at most %s", format_rate(per_s)
                )
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=stream,
            extensions={"sent_at": sent_at},
            request=request,
        )

    def statistics(self) -> dict[str, Any]:
        """Return requests by kind, errors by class, bytes received, permits, the longest pause, and
        the rate.

        ``slots`` and ``rate`` as :meth:`PriorityLimiter.statistics` and ``rate_statistics`` have
        them.
        """
        return {
            "requests": dict(self.counts.requests),
            "errors": dict(self.counts.errors),
            "received_bytes": self.counts.received_bytes,
            "slots": self.slots.statistics(),
            "paused_s": round(self.gates.longest_s, 3),
            "rate": self.slots.rate_statistics(),
        }

    async def _acquire(self, urgent: bool | Priority, throttled: tuple[Origin, bool]) -> Permit:
        """Acquire a permit at a moment without a pause; no request holds one during a pause.

        Those that count towards the rate wait for the end of a pause in the limiter, in order.
        """
        origin, is_token = throttled
        metered = origin == self.targets.api and not is_token
        if not metered:
            await self.gates.passed(throttled)
        while True:
            permit = await self.slots.acquire(urgent, first=is_token, metered=metered)
            if not self.gates.closed_s(throttled):
                return permit
            permit.release()
            await self.gates.passed(throttled)

    async def _send(self, request: httpx.Request, origin: Origin) -> httpx.Response:
        self.counts.requests[request.extensions["kind"]] += 1
        # httpcore leaves a socket open when it is cancelled while it connects, but not when its
        # own timeout ends it: so that comes a little earlier than ours.
        request.extensions["timeout"] = {"connect": self.timeout_s * 0.95}
        if origin != self.targets.api:
            request.extensions["check_address"] = self.targets.check_address
        proxy = proxy_for(origin, self._proxies)
        try:
            with trio.fail_after(self.timeout_s):
                return await self._transport(proxy).handle_async_request(request)
        except EXPECTED as error:
            raise explained(error, through(origin.host, proxy), self.timeout_s) from error

    def _transport(self, proxy: str | None) -> httpx.AsyncBaseTransport:
        """Return the transport for a proxy: httpx's own, HTTP/1.1 only.

        A proxy connects to servers by itself, so their addresses are not checked here.
        """
        if proxy not in self._by_proxy:
            limits = httpx.Limits(
                max_connections=self.slots.total,
                max_keepalive_connections=self.slots.total,
                keepalive_expiry=KEEP_ALIVE_S,
            )
            try:
                self._by_proxy[proxy] = httpx.AsyncHTTPTransport(
                    verify=self._context or True, http2=False, limits=limits, proxy=proxy
                )
            except (ImportError, ValueError) as error:
                raise UsageError("the proxy in the environment cannot be used") from error
        return self._by_proxy[proxy]


def quiet() -> None:
    """Keep httpx and httpcore from logging: they print whole URLs, signatures and headers."""
    for name in ("httpx", "httpcore", "hpack"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
