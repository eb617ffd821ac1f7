"""Receives HTTP/1.1 requests from a connection; h11 parses them.

Used by the S3 door and by the fake service. Each writes its answers itself: h11 would copy the
bodies, and refuse to write what a fault plan asks for.
"""

from dataclasses import dataclass

import h11
from trio.abc import Stream

RECEIVE = 64 * 1024
"""Bytes received at a time; nearly every request is shorter."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

BadRequest = h11.RemoteProtocolError
"""What is received is no request of HTTP/1.1; ``error_status_hint`` is the status to answer."""

Headers = tuple[tuple[str, str], ...]


class BodyTooLong(Exception):
    """A request whose body is longer than it may be, and was not received.

    received  the request without its body
    """

    def __init__(self, received: "Received") -> None:
        super().__init__("the body of the request is too long")
        self.received = received


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it was received.

    method   as sent, such as ``GET``
    target   path and query as sent, percent-encoded
    headers  names in lower case, in order; values are latin-1
    body     all of it
    early    bytes that came after it: the next request, or its beginning
    keep_alive  whether another request may follow on the connection
    """

    method: str
    target: str
    headers: Headers
    body: bytes
    early: bytes
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How long a request may be, in bytes."""

    head_bytes: int
    body_bytes: int


async def receive(stream: Stream, early: bytes, limits: RequestLimits) -> Received | None:
    """Return the next request of a connection, or None at its end.

    ``early`` are the bytes that came after the request before. Raises BadRequest, BodyTooLong, and
    trio's errors of a broken connection. The caller sets a deadline.
    """
    # Each request gets a new parser: h11 parses the next only after it has written an answer.
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
    if early:
        parser.receive_data(early)
    head = await _event(parser, stream)
    if not isinstance(head, h11.Request):
        return None
    if _length(head) > limits.body_bytes:
        raise BodyTooLong(_received(head, b"", parser))
    body = bytearray()
    while isinstance(event := await _event(parser, stream), h11.Data):
        body += event.data
        if len(body) > limits.body_bytes:
            raise BodyTooLong(_received(head, b"", parser))
    if not isinstance(event, h11.EndOfMessage):
        return None
    return _received(head, bytes(body), parser)


async def _event(parser: h11.Connection, stream: Stream) -> object:
    while (event := parser.next_event()) is h11.NEED_DATA:
        if parser.they_are_waiting_for_100_continue:
            await stream.send_all(CONTINUE)
            parser.send(h11.InformationalResponse(status_code=100, headers=[]))
        parser.receive_data(bytes(await stream.receive_some(RECEIVE)))
    return event


def _length(head: h11.Request) -> int:
    """Return the length of the body as the request states it; 0 if it does not."""
    return next((int(value) for name, value in head.headers if name == b"content-length"), 0)


def _received(head: h11.Request, body: bytes, parser: h11.Connection) -> Received:
    headers = tuple(
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers
    )
    closes = head.http_version < b"1.1" or any(
        name == "connection" and "close" in value.lower() for name, value in headers
    )
    return Received(
        head.method.decode("ascii"),
        head.target.decode("latin-1"),
        headers,
        body,
        bytes(parser.trailing_data[0]),
        not closes,
    )
