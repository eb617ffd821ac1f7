"""HTTP/1.1 on a trio stream: h11 parses the requests; the answers are written without it.

h11 would refuse to write most of what a fault plan asks for (a body longer or shorter than its
Content-Length, an end in the middle), so it only reads. Bodies are sent in pieces of 256 KiB.
"""

import socket
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from http import HTTPStatus
from typing import Literal
from urllib.parse import parse_qsl

import h11
import trio

from phonofs.fakeservice.request_log import Counters
from phonofs.fakeservice.responses import Answer, Dropped, Request, refusal

MAX_BODY = 1024 * 1024
"""Bytes of a request's body; the largest is an object with its text, sent to ``/-/add``."""
RECEIVE = 64 * 1024
LINGER_RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"
"""struct linger: on, 0 s. With it, closing the socket sends RST."""

After = Literal["next", "close", "reset"]
Respond = Callable[[Request], Awaitable[Answer]]


async def serve_connection(
    stream: trio.SocketStream, origin: str, respond: Respond, counters: Counters
) -> None:
    """Answer the requests of one connection, one after another, until it ends."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    early = b""
    async with stream:
        try:
            while read := await _receive(stream, origin, early):
                request, early = read
                outcome = await _exchange(stream, request, respond, counters)
                if outcome == "reset":
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
                if outcome != "next":
                    return
        except h11.RemoteProtocolError as error:
            await _send_last(stream, refusal(400, str(error)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the client went away


async def _receive(
    stream: trio.SocketStream, origin: str, early: bytes
) -> tuple[Request, bytes] | None:
    """Return the next request and the bytes after it, or None at the end of the connection."""
    # Each request gets a new parser: h11 parses the next only after it has written an answer.
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=128 * 1024)
    if early:
        parser.receive_data(early)
    head = await _next(parser, stream)
    if not isinstance(head, h11.Request):
        return None
    body = bytearray()
    while isinstance(event := await _next(parser, stream), h11.Data):
        body += event.data
        if len(body) > MAX_BODY:
            raise h11.RemoteProtocolError("the body is too large")
    if not isinstance(event, h11.EndOfMessage):
        return None
    return _request(head, bytes(body), origin), bytes(parser.trailing_data[0])


async def _next(parser: h11.Connection, stream: trio.SocketStream) -> object:
    while (event := parser.next_event()) is h11.NEED_DATA:
        if parser.they_are_waiting_for_100_continue:
            await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        data = await stream.receive_some(RECEIVE)
        parser.receive_data(data)
    return event


def _request(head: h11.Request, body: bytes, origin: str) -> Request:
    target = head.target.decode("latin-1")
    path, _, query = target.partition("?")
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, errors="replace"):
        parameters.setdefault(name, value)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    return Request(
        head.method.decode("ascii"),
        path,
        parameters,
        headers,
        body,
        "store" if origin == "store" else "api",
    )


async def _exchange(
    stream: trio.SocketStream, request: Request, respond: Respond, counters: Counters
) -> After:
    """Answer one request; return what to do with the connection afterwards."""
    outcome: After = "close"
    counters.enter()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_gone, stream, nursery.cancel_scope)
            outcome = await _answer(stream, request, respond)
            nursery.cancel_scope.cancel()
    finally:
        counters.leave()
    return outcome


async def _answer(stream: trio.SocketStream, request: Request, respond: Respond) -> After:
    try:
        answer = await respond(request)
        await answer.begin()
        await _send_interim(stream, *answer.delivery.interim)
        goes_on = answer.whole and request.headers.get("connection", "").lower() != "close"
        if request.method == "HEAD":
            await stream.send_all(_head(answer, goes_on))
        else:
            await _send(stream, answer, goes_on)
    except Dropped as dropped:
        return "reset" if dropped.reset else "close"
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return "close"  # the client went away
    return "next" if goes_on else "close"


async def _until_gone(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """Cancel an answer (a stalled one, for example) if the client closes the connection."""
    await trio.lowlevel.wait_readable(stream.socket)
    try:
        gone = not await stream.socket.recv(1, socket.MSG_PEEK)
    except OSError:
        gone = True
    if gone:
        scope.cancel()


async def _send(stream: trio.SocketStream, answer: Answer, goes_on: bool) -> None:
    head = _head(answer, goes_on)
    chunk = answer.delivery.chunk_bytes
    async with aclosing(answer.pieces()) as pieces:
        async for plain in pieces:
            piece = _chunked(plain, chunk) if chunk else plain
            if head and len(piece) <= RECEIVE:  # head and body in one packet
                await stream.send_all(head + piece)
            else:
                if head:
                    await stream.send_all(head)
                await stream.send_all(piece)
            head = b""
    end = b"0\r\n\r\n" if chunk else b""
    if head or end:
        await stream.send_all(head + end)


def _chunked(piece: bytes | memoryview, most: int) -> bytes:
    """Encode the piece in chunks (RFC 9112, 7.1) of at most ``most`` bytes."""
    whole = bytes(piece)
    parts = (whole[at : at + most] for at in range(0, len(whole), most))
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


async def _send_interim(stream: trio.SocketStream, status: int, number: int) -> None:
    """Send ``number`` interim answers, 1000 at a time; if it is -1, until the client closes."""
    one = f"HTTP/1.1 {status} {_reason(status)}\r\n\r\n".encode()
    while number:
        count = 1000 if number < 0 else min(number, 1000)
        await stream.send_all(one * count)
        number -= count if number > 0 else 0


async def _send_last(stream: trio.SocketStream, answer: Answer) -> None:
    try:
        await _send(stream, answer, goes_on=False)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


def _head(answer: Answer, goes_on: bool) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} {_reason(answer.status)}"]
    headers = _framing(answer) | answer.headers
    if not goes_on:
        headers["Connection"] = "close"
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def _framing(answer: Answer) -> dict[str, str]:
    if answer.delivery.chunk_bytes:
        return {"Transfer-Encoding": "chunked"}
    return {} if answer.delivery.unframed else {"Content-Length": str(answer.length)}


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
