"""The fake service on two loopback ports: the API's origin and the store's. HTTP/1.1 on trio.

Most of what a fault plan asks for (a body longer or shorter than its Content-Length, an end in the
middle) is no HTTP, so the answers are written without a library.
Bodies are sent in pieces of 256 KiB.
"""

import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from http.client import responses as reasons
from typing import Literal, get_args
from urllib.parse import parse_qsl

import trio

from phonofs.errors import UsageError
from phonofs.fakeservice.responses import Answer, Dropped, Request, refusal
from phonofs.fakeservice.service import Service
from phonofs.http_server import CONTINUE, BadRequest, BodyTooLong, Received, RequestLimits, receive

HOST = "127.0.0.1"
BACKLOG = 512
LIMITS = RequestLimits(head_bytes=128 * 1024, body_bytes=64 << 20)
ONE_PACKET = 64 * 1024
LINGER_RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"
"""struct linger: on, 0 s. With it, closing the socket sends RST."""
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)
"""Raised if the client has closed the connection."""

Origin = Literal["api", "store"]


def listen(service: Service, port: int = 0, store_port: int = 0) -> list[socket.socket]:
    """Open the two ports (0: any free one), and set the ``url`` and ``store_url`` of the service.

    Raises UsageError if a port is taken. To be served with :func:`serve`.
    """
    sockets = [_bound(port), _bound(store_port)]
    api, store = (f"http://{HOST}:{each.getsockname()[1]}" for each in sockets)
    service.listen_at(api, store)
    return sockets


def _bound(port: int) -> socket.socket:
    if not 0 <= port < 65536:
        raise UsageError(f"{port} is not a port")
    try:
        return socket.create_server((HOST, port), backlog=BACKLOG)
    except OSError as error:
        raise UsageError(f"port {port} on {HOST} cannot be used: {error}") from error


@asynccontextmanager
async def serve(service: Service, sockets: Iterable[socket.socket] = ()) -> AsyncIterator[Service]:
    """Serve on these sockets until the block ends, by default on two new ones. Yields the service.

    An error in the block comes out as it is, not within a group.
    """
    error: Exception | None = None
    async with trio.open_nursery() as nursery:
        for origin, each in zip(get_args(Origin), sockets or listen(service), strict=True):
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(each))
            nursery.start_soon(
                trio.serve_listeners, partial(_serve_connection, service, origin), [listener]
            )
        try:
            yield service
        except Exception as raised:  # noqa: BLE001 (raised again below)
            error = raised
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error


async def _serve_connection(service: Service, origin: Origin, stream: trio.SocketStream) -> None:
    """Answer the requests of one connection, one after another, until it ends."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    early, goes_on = b"", True
    async with stream:
        with suppress(*GONE):
            try:
                while goes_on and (read := await _receive(stream, origin, early)):
                    request, early = read
                    goes_on = await _exchange(service, stream, request)
            except BadRequest as error:
                await _send(stream, refusal(400, str(error)), goes_on=False)
            except BodyTooLong as error:
                await _send(stream, refusal(413, str(error)), goes_on=False)


async def _receive(
    stream: trio.SocketStream, origin: Origin, early: bytes
) -> tuple[Request, bytes] | None:
    """Return the next request and the bytes after it, or None at the end of the connection."""
    received = await receive(stream, early, LIMITS, partial(stream.send_all, CONTINUE))
    return None if received is None else (_request(received, origin), received.early)


def _request(received: Received, origin: Origin) -> Request:
    path, _, query = received.target.decode("latin-1").partition("?")
    values = parse_qsl(query, keep_blank_values=True, errors="replace")
    first = dict(reversed(values))  # of each name
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in received.headers}
    return Request(received.method.decode("ascii"), path, first, headers, received.body, origin)


async def _exchange(service: Service, stream: trio.SocketStream, request: Request) -> bool:
    """Answer one request; return whether another may follow on the connection."""
    goes_on = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_gone, stream, nursery.cancel_scope)
        goes_on = await _answer(service, stream, request)
        nursery.cancel_scope.cancel()
    return goes_on


async def _answer(service: Service, stream: trio.SocketStream, request: Request) -> bool:
    try:
        answer = await service.answer(request)
        await answer.begin()
        goes_on = answer.whole and request.headers.get("connection", "").lower() != "close"
        await _send(stream, answer, goes_on, head_only=request.method == "HEAD")
    except Dropped as dropped:
        if dropped.reset:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        return False
    except GONE:
        return False
    return goes_on


async def _until_gone(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """Cancel an answer (a stalled one, for example) if the client closes the connection."""
    await trio.lowlevel.wait_readable(stream.socket)
    try:
        gone = not await stream.socket.recv(1, socket.MSG_PEEK)
    except OSError:
        gone = True
    if gone:
        scope.cancel()


async def _send(
    stream: trio.SocketStream, answer: Answer, goes_on: bool, *, head_only: bool = False
) -> None:
    head = _head(answer, goes_on)
    async with aclosing(answer.pieces()) as pieces:
        async for piece in pieces:
            if head_only:
                break
            if head and len(piece) <= ONE_PACKET:
                piece = head + piece  # in one packet
            elif head:
                await stream.send_all(head)
            await stream.send_all(piece)
            head = b""
    await stream.send_all(head)


def _head(answer: Answer, goes_on: bool) -> bytes:
    reason = reasons.get(answer.status, "Unknown")
    framing = {} if answer.unframed else {"Content-Length": str(answer.length)}
    closing = {} if goes_on else {"Connection": "close"}
    fields = (framing | answer.headers | closing).items()
    lines = (f"HTTP/1.1 {answer.status} {reason}", *(f"{name}: {value}" for name, value in fields))
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
