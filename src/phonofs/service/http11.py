"""A fast HTTP/1.1 transport for httpx, which reads bodies straight from the socket.

Used by :mod:`phonofs.service.session`, which adds permits, deadlines and checks. A body of known
length is received as views of one reused buffer. A simple head is parsed in one step
(:mod:`.response_head`), every other by h11. The cost of a head is bounded, and so is that of a
chunk (:mod:`phonofs.service.chunked`). Requests through a proxy use httpx's own transport.

A connection is reused only after its response was read to the end. In every other case, also
after a cancellation, it is closed at once and synchronously.
"""

import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import h11
import httpx
import trio

from phonofs.errors import Malformed
from phonofs.service.chunked import ChunkedDecoder, ChunkedError
from phonofs.service.connection import BUFFER_BYTES, Connection, connect
from phonofs.service.response_head import NO_BODY, Head, plain_head, request_head
from phonofs.service.url_policy import Origin

log = logging.getLogger(__name__)

PLAIN_BYTES = 1 << 13
"""Longer heads, and heads that arrive in pieces, are parsed by h11."""

HEAD_BYTES = 1 << 14
"""Bytes received at a time for h11, which copies the part of the body in them."""

STEP_BYTES = 1 << 11
"""Bytes that h11 parses between two checkpoints: 100 interim responses in them take 10 ms."""

LARGEST_HEAD = 1 << 16
MOST_LINES = 1000
"""Limits of a response's head together with all interim responses (1xx) before it."""

UNSUPPORTED = frozenset({"HEAD", "CONNECT"})
"""The end of a response to these methods is determined differently (RFC 9112, 6.3)."""

RESOLVERS = 16
"""Threads that resolve names at a time. If a name server does not answer, the system's resolver
may take a minute."""

Piece = bytes | memoryview


class Http11Transport(httpx.AsyncBaseTransport):
    """HTTP/1.1 over connections that are kept alive for each origin.

    Owns the idle connections. With those in use they are at most ``most``; none is idle for
    longer than ``keep_alive_s``; the one used last is used first. A connection in use belongs to
    its response. ``in_use`` counts these, including the one for the current request.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        most: int,
        keep_alive_s: float,
        in_use: Callable[[], int] = lambda: 0,
    ) -> None:
        self._context = context
        self._most = most
        self._keep_alive_s = keep_alive_s
        self._in_use = in_use
        self._idle: dict[Origin, list[Connection]] = {}
        self._resolvers = trio.CapacityLimiter(RESOLVERS)
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its response, whose body is still to come.

        The server may just have closed an idle connection. So a GET that got no byte of a
        response on one is sent once more, on a new one. Other requests, which must not be sent
        twice, always use a new connection.
        """
        if request.method in UNSUPPORTED:
            raise httpx.UnsupportedProtocol(f"{request.method} is not supported")
        url = request.url
        port = url.port or (443 if url.scheme == "https" else 80)
        origin = Origin(url.scheme, url.raw_host.decode("ascii"), port)
        kept = self._take(origin) if request.method == "GET" else None
        if kept is not None:
            try:
                return await self._exchange(kept, origin, request)
            except _Silent:
                log.debug("a kept connection to %s had been closed", origin.host)
        try:
            return await self._exchange(await self._connect(origin, request), origin, request)
        except _Silent as error:
            raise httpx.RemoteProtocolError(str(error)) from error

    async def aclose(self) -> None:
        """Close the idle connections; those in use are closed with their responses."""
        self._closed = True
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    def idle(self) -> int:
        """Return the number of idle connections."""
        return sum(len(connections) for connections in self._idle.values())

    def give_back(self, origin: Origin, connection: Connection) -> None:
        """Keep a connection whose last response was read to the end."""
        connection.mark_idle(_now_s())
        self._expire()
        if self._closed or self.idle() >= self._most:
            connection.close()
        else:
            self._idle.setdefault(origin, []).append(connection)

    def _take(self, origin: Origin) -> Connection | None:
        self._expire()
        while connections := self._idle.get(origin, []):
            connection = connections.pop()
            if not connections:
                del self._idle[origin]
            if not connection.is_stale():
                return connection
            connection.close()
        return None

    def _expire(self) -> None:
        oldest = _now_s() - self._keep_alive_s
        for origin, connections in list(self._idle.items()):
            while connections and connections[0].idle_since <= oldest:
                connections.pop(0).close()
            if not connections:
                del self._idle[origin]

    def _close_idle_connection(self) -> None:
        """If a new connection would be too many, close the one that was idle longest."""
        while self._idle and self.idle() + self._in_use() > self._most:
            origin = min(self._idle, key=lambda origin: self._idle[origin][0].idle_since)
            self._idle[origin].pop(0).close()
            if not self._idle[origin]:
                del self._idle[origin]

    async def _connect(self, origin: Origin, request: httpx.Request) -> Connection:
        self._close_idle_connection()
        context = self._context if origin.scheme == "https" else None
        check = request.extensions.get("check_address")
        try:
            return await connect(origin.host, origin.port, context, check, self._resolvers)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError("no connection") from error

    async def _exchange(
        self, connection: Connection, origin: Origin, request: httpx.Request
    ) -> httpx.Response:
        """Send the request and read the response's head. Closes the connection if that fails."""
        try:
            begun = await _ask(connection, request, origin.host)
            body = ResponseBody(self, origin, connection, begun)
            return httpx.Response(begun.status, headers=begun.headers, stream=body)
        except BaseException:
            connection.close()
            raise


class ResponseBody(httpx.AsyncByteStream):
    """The body of a response: an async iterator over views that are valid until the next one.

    Owns the connection until the body ends or is closed. ``_left`` counts the bytes still to be
    received. If it is None, ``_chunked`` finds the end; if that is None too, the body ends with
    the connection.
    """

    def __init__(
        self, transport: Http11Transport, origin: Origin, connection: Connection, begun: "_Begun"
    ) -> None:
        self._transport = transport
        self._origin = origin
        self._connection: Connection | None = connection
        self._chunked = begun.chunked
        self._stays = begun.stays
        self._first = begun.first
        self._most = BUFFER_BYTES
        self._left: int | None = None
        self._ended = False
        if begun.length is not None:
            self._left = begun.length - sum(map(len, begun.first))
            self._ended = self._left == 0

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Piece:
        """Return the next piece. Raises httpx.ReadError or RemoteProtocolError if it is cut off."""
        if self._first:
            return self._first.pop(0)
        if self._ended or self._connection is None:
            self.close()
            raise StopAsyncIteration
        with _Dropping(self):
            return await self._receive(self._connection)

    def allow(self, most_bytes: int) -> None:
        """Take at most this many bytes for the next piece; what else came stays in the socket.

        The part of the body that came with the head, and a body of unknown length, are not limited.
        """
        self._most = most_bytes

    def now(self) -> Piece | None:
        """Return the next piece of a body of known length if it has arrived, else None.

        This spares most pieces a timeout. Raises the same errors as waiting for it.
        """
        if self._first:
            return self._first.pop(0)
        if not self._left or self._connection is None:
            return None
        with _Dropping(self):
            view = self._connection.receive_now(min(self._left, self._most))
            return None if view is None else self._took(view)

    @property
    def over(self) -> bool:
        """Whether every piece was returned."""
        return self._ended and not self._first

    async def aclose(self) -> None:
        """Close it, as :meth:`close` does."""
        self.close()

    def close(self) -> None:
        """Keep the connection if the response is complete, else close it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self.over and self._stays:
            self._transport.give_back(self._origin, connection)
        else:
            connection.close()

    async def _receive(self, connection: Connection) -> Piece:
        if self._left is not None:
            return self._took(await connection.receive(min(self._left, self._most)))
        if self._chunked is not None:
            return await self._receive_chunks(connection, self._chunked)
        piece = await connection.receive(BUFFER_BYTES)
        self._ended = not piece
        return piece

    def _took(self, view: memoryview) -> memoryview:
        if not view:
            raise httpx.RemoteProtocolError("the body ended early")
        assert self._left is not None
        self._left -= len(view)
        self._ended = self._left == 0
        return view

    async def _receive_chunks(self, connection: Connection, chunked: ChunkedDecoder) -> Piece:
        """Return the data of the next chunks; an empty piece at the end."""
        await trio.lowlevel.checkpoint()  # many chunks may be here already
        while True:
            piece = chunked.decode()
            if chunked.wasteful:
                raise Malformed(f"{self._origin.host} sends its answer in too many small pieces")
            if chunked.ended:
                self._ended = True
                self._stays = self._stays and not chunked.leftover
            if piece or self._ended:
                return piece
            data = await connection.receive(BUFFER_BYTES)
            if not data:
                raise httpx.RemoteProtocolError("the body ended early")
            chunked.feed(data)

    def drop(self) -> None:
        """Close the connection, because the rest of the body cannot be used."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Dropping:
    """Wraps receiving: closes the connection on any error, and raises httpx's exceptions."""

    __slots__ = ("_body",)

    def __init__(self, body: ResponseBody) -> None:
        self._body = body

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            return
        self._body.drop()
        if isinstance(error, OSError):
            raise httpx.ReadError(type(error).__name__) from error
        if isinstance(error, ChunkedError):
            raise httpx.RemoteProtocolError("not HTTP") from error


class _Silent(Exception):
    """The connection broke before a byte of a response arrived."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A response whose head has arrived.

    first    the part of the body that came with the head; a view is valid until more is received
    length   that of the body; None if ``chunked`` or the end of the connection determines it
    chunked  decodes the body; it has the part that came with the head
    stays    whether the connection can be reused if nothing follows the body
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    first: list[Piece]
    length: int | None
    chunked: ChunkedDecoder | None = None
    stays: bool = False


async def _ask(connection: Connection, request: httpx.Request, host: str) -> _Begun:
    """Send a request and receive the response's head."""
    message = request_head(request.method, request.url.raw_path, request.headers.raw)
    if message is None:
        raise httpx.LocalProtocolError("the request cannot be sent")
    heard = False
    try:
        await connection.send(message + request.content)
        view = await connection.receive(BUFFER_BYTES)
        if not view:
            raise _Silent("the server closed the connection")
        heard = True
        head = plain_head(bytes(view[:PLAIN_BYTES]))
        if head is not None:
            return _plain(head, view)
        return await _read_head(connection, request, bytes(view), host)
    except OSError as error:
        if not heard:
            raise _Silent(type(error).__name__) from error
        raise httpx.ReadError(type(error).__name__) from error
    except h11.ProtocolError as error:
        raise httpx.RemoteProtocolError("not HTTP") from error


def _plain(head: Head, view: memoryview) -> _Begun:
    rest = view[head.size : head.size + head.length]
    more = len(view) > head.size + head.length
    first: list[Piece] = [rest] if rest else []
    return _Begun(head.status, head.headers, first, head.length, stays=head.stays and not more)


async def _read_head(
    connection: Connection, request: httpx.Request, data: bytes, host: str
) -> _Begun:
    """Parse the head with h11, beginning with ``data``; in small steps and within limits."""
    machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST_HEAD)
    machine.send(h11.Request(
        method=request.method, target=request.url.raw_path, headers=request.headers.raw
    ))  # fmt: skip
    if request.content:
        machine.send(h11.Data(data=request.content))
    machine.send(h11.EndOfMessage())
    size = lines = 0
    while True:
        for at in range(0, len(data) or 1, STEP_BYTES):
            step = data[at : at + STEP_BYTES]
            machine.receive_data(step)
            event = _final_head(machine)
            if event is not None:
                return _begun(event, machine.trailing_data[0] + data[at + STEP_BYTES :])
            size += len(step)
            lines += step.count(b"\n")
            if size > LARGEST_HEAD or lines > MOST_LINES:
                raise Malformed(f"{host} sends too much before the body of its answer")
            await trio.lowlevel.checkpoint()
        data = bytes(await connection.receive(HEAD_BYTES))


def _final_head(machine: h11.Connection) -> h11.Response | None:
    """Return the head of the final response; None if it is not complete yet."""
    while True:
        event = machine.next_event()
        if isinstance(event, h11.Response):
            return event
        if event is h11.NEED_DATA:
            return None
        if not isinstance(event, h11.InformationalResponse):
            raise httpx.RemoteProtocolError("no answer")


def _begun(head: h11.Response, rest: bytes) -> _Begun:
    """Return the response that begins with ``head``; ``rest`` is what came after the head.

    With ``Transfer-Encoding``, a length is ignored and the connection not reused. Otherwise two
    readers that understand it differently could be used for smuggling (RFC 9112, 6.3).
    """
    names = dict(head.headers)
    chunked, sized = b"transfer-encoding" in names, b"content-length" in names
    closes = any(
        name == b"connection" and b"close" in value.lower() for name, value in head.headers
    )
    stays = head.http_version == b"1.1" and not closes and not (chunked and sized)
    status, headers = head.status_code, list(head.headers.raw_items())
    if chunked and status not in NO_BODY:
        decoder = ChunkedDecoder()
        decoder.feed(rest)
        return _Begun(status, headers, [], None, decoder, stays)
    length = int(names[b"content-length"]) if sized else None
    if status in NO_BODY:
        length = 0
    first = rest if length is None else rest[:length]
    stays = stays and length is not None and len(rest) == len(first)
    return _Begun(status, headers, [first] if first else [], length, stays=stays)


def _now_s() -> float:
    """Return the time of a clock that runs on while this machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
