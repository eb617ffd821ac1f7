"""A fast HTTP/1.1 transport for httpx, which reads bodies straight from the socket.

Used by :mod:`phonofs.service.session`, which adds permits, deadlines and checks. A body of known
length is received as views of one reused buffer. The cost of a head (:mod:`.response_head`) is
bounded, and so is that of a chunk (:mod:`.chunked`). Requests through a proxy use httpx's own
transport.

A connection is reused only after its response was read to the end. In every other case, also
after a cancellation, it is closed at once and synchronously.
"""

import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import httpx
import trio

from phonofs.errors import Malformed
from phonofs.service.chunked import ChunkedDecoder
from phonofs.service.connection import BUFFER_BYTES, Connection, ReceiveBuffer, connect
from phonofs.service.response_head import Head, head_size, parse_head, request_head
from phonofs.service.url_policy import Origin, origin_of

log = logging.getLogger(__name__)

HEAD_BYTES = 1 << 14
"""Bytes received at a time for the rest of a head; they are copied."""

FIRST_BYTES = (1 << 18) + HEAD_BYTES
"""Bytes received with the head, and copied: 256 KiB of a body come in one piece."""

LARGEST_HEAD = 1 << 16
MOST_LINES = 1000
"""Limits of a response's head together with all interim responses (1xx) before it."""

UNSUPPORTED = frozenset({"HEAD", "CONNECT"})
"""The end of a response to these methods is determined differently (RFC 9112, 6.3)."""

RESOLVERS = 16
"""Threads that resolve names at a time. If a name server does not answer, the system's resolver
may take a minute."""

Piece = bytes | memoryview


class _Idle(NamedTuple):
    """An idle connection, and since when (seconds of :func:`_now_s`)."""

    origin: Origin
    connection: Connection
    since_s: float


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
        self._idle: list[_Idle] = []  # the one used last is the last
        self._buffer = ReceiveBuffer()
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
        origin = origin_of(request.url)
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
        self._close_longest_idle(0)

    def idle(self) -> int:
        """Return the number of idle connections."""
        return len(self._idle)

    def give_back(self, origin: Origin, connection: Connection) -> None:
        """Keep a connection whose last response was read to the end."""
        self._expire()
        if self._closed or len(self._idle) >= self._most:
            connection.close()
        else:
            self._idle.append(_Idle(origin, connection, _now_s()))

    def _take(self, origin: Origin) -> Connection | None:
        self._expire()
        for idle in reversed(self._idle):
            if idle.origin == origin:
                self._idle.remove(idle)
                if not idle.connection.is_stale():
                    return idle.connection
                idle.connection.close()
        return None

    def _expire(self) -> None:
        oldest = _now_s() - self._keep_alive_s
        self._close_longest_idle(sum(idle.since_s > oldest for idle in self._idle))

    def _close_longest_idle(self, most: int) -> None:
        """Close those that were idle longest, so that ``most`` stay."""
        while len(self._idle) > max(most, 0):
            self._idle.pop(0).connection.close()

    async def _connect(self, origin: Origin, request: httpx.Request) -> Connection:
        self._close_longest_idle(self._most - self._in_use())
        context = self._context if origin.scheme == "https" else None
        check = request.extensions.get("check_address")
        try:
            return await connect(
                origin.host, origin.port, context, check, self._resolvers, self._buffer
            )
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError("no connection") from error

    async def _exchange(
        self, connection: Connection, origin: Origin, request: httpx.Request
    ) -> httpx.Response:
        """Send the request and read the response's head. Closes the connection if that fails."""
        try:
            head, data = await _ask(connection, request, origin.host)
            body = ResponseBody(self, origin, connection, head, data)
            return httpx.Response(head.status, headers=head.headers, stream=body)
        except BaseException:
            connection.close()
            raise


class ResponseBody(httpx.AsyncByteStream):
    """The body of a response: an async iterator over views.

    A view is valid until the caller waits for anything.

    Owns the connection until the body ends or is closed. ``_left`` counts the bytes still to be
    received. If it is None, ``_chunked`` finds the end; if that is None too, the body ends with
    the connection.
    """

    def __init__(
        self,
        transport: Http11Transport,
        origin: Origin,
        connection: Connection,
        head: Head,
        data: bytes,
    ) -> None:
        """``data`` is what came after the head."""
        self._transport = transport
        self._origin = origin
        self._connection: Connection | None = connection
        self._chunked = ChunkedDecoder() if head.chunked else None
        self._left = head.length
        self._first = b"" if head.chunked else data[: head.length]
        self._stays = head.stays
        self._most = BUFFER_BYTES
        if self._chunked is not None:
            self._chunked.feed(data)
        elif self._left is not None:
            self._stays = head.stays and len(data) <= self._left
            self._left -= len(self._first)
        self._ended = self._left == 0

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Piece:
        """Return the next piece. Raises httpx.ReadError or RemoteProtocolError if it is cut off."""
        if self._first:
            return self._take_first()
        if self._ended or self._connection is None:
            self.close()
            raise StopAsyncIteration
        try:
            return await self._receive(self._connection)
        except OSError as error:
            raise httpx.ReadError(type(error).__name__) from error

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
            return self._take_first()
        if not self._left or self._connection is None:
            return None
        try:
            view = self._connection.receive_now(min(self._left, self._most))
        except OSError as error:
            raise httpx.ReadError(type(error).__name__) from error
        return None if view is None else self._took(view)

    def _take_first(self) -> Piece:
        first, self._first = self._first, b""
        return first

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
            chunked.feed(bytes(data))


class _Silent(Exception):
    """The connection broke before a byte of a response arrived."""


async def _ask(connection: Connection, request: httpx.Request, host: str) -> tuple[Head, bytes]:
    """Send a request; return the head of its response, and the data received after it."""
    message = request_head(request.method, request.url.raw_path, request.headers.raw)
    if message is None:
        raise httpx.LocalProtocolError("the request cannot be sent")
    try:
        await connection.send(message + request.content)
        data = bytes(await connection.receive(FIRST_BYTES))
    except OSError as error:
        raise _Silent(type(error).__name__) from error
    if not data:
        raise _Silent("the server closed the connection")
    try:
        return await _read_head(connection, data, host)
    except OSError as error:
        raise httpx.ReadError(type(error).__name__) from error


async def _read_head(connection: Connection, data: bytes, host: str) -> tuple[Head, bytes]:
    """Read the head that begins with ``data``, after any interim responses (1xx)."""
    left_bytes, left_lines = LARGEST_HEAD, MOST_LINES
    while True:
        size = head_size(data)
        text = data[: size or LARGEST_HEAD + 1]
        if len(text) > LARGEST_HEAD:
            raise httpx.RemoteProtocolError("the head is too long")
        if len(text) > left_bytes or text.count(b"\n") > left_lines:
            raise Malformed(f"{host} sends too much before the body of its answer")
        if size:
            head, data = parse_head(text), data[size:]
            if head.status >= 200:
                return head, data
            left_bytes -= size
            left_lines -= text.count(b"\n")
        else:
            more = await connection.receive(HEAD_BYTES)
            if not more:
                raise httpx.RemoteProtocolError("the head ended early")
            data = text + more


def _now_s() -> float:
    """Return the time of a clock that runs on while this machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
