"""A request, an answer, and how the answer's body is sent. No sockets, no HTTP syntax.

The body is an asynchronous stream of pieces, so that a client in the same process and a client of
the HTTP server see the same faults at the same byte.
"""

import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import trio

from phonofs.fakeservice.content import Content, plain

End = Literal["", "close", "reset", "stall"]


class Dropped(Exception):
    """The connection must be closed now; with RST instead of FIN if ``reset`` is true."""

    def __init__(self, reset: bool) -> None:
        super().__init__("the fake service dropped the connection, as its fault plan says")
        self.reset = reset


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``headers`` has lower-case names; ``query`` the first value of each name."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    origin: Literal["api", "store"] = "api"


@dataclass(slots=True)
class Delivery:
    """How a body is sent, if not completely and at full speed.

    before        what happens in place of the whole answer
    after         bytes of the body before ``end`` happens
    end           what happens then
    bytes_per_s   speed; 0: unlimited
    overrun       bytes sent beyond the Content-Length
    unframed      no Content-Length: the end of the connection ends the body
    chunk_bytes   no Content-Length: chunks of this many bytes; 0: not chunked
    interim       status and number (-1: without end) of interim answers sent first
    flip          offset of a byte in the object, and the mask it is xor-ed with
    """

    before: End = ""
    after: int = 0
    end: End = ""
    bytes_per_s: float = 0
    overrun: int = 0
    unframed: bool = False
    chunk_bytes: int = 0
    interim: tuple[int, int] = (100, 0)
    flip: tuple[int, int] | None = None


@dataclass(slots=True)
class Answer:
    """One answer: the bytes ``[start, stop)`` of ``content``, after ``status`` and ``headers``.

    ``sent`` is called with (start, stop) for each piece of an object's content that was sent.
    """

    status: int
    headers: dict[str, str]
    content: Content
    start: int
    stop: int
    delivery: Delivery = field(default_factory=Delivery)
    sent: Callable[[int, int], None] | None = None

    @property
    def length(self) -> int:
        """The Content-Length."""
        return self.stop - self.start

    @property
    def whole(self) -> bool:
        """Whether the body will have the stated length, so that the connection can be reused."""
        delivery = self.delivery
        return not (delivery.end or delivery.overrun or delivery.unframed)

    async def begin(self) -> None:
        """Apply the fault before the status line, if there is one. Raises Dropped."""
        await _end(self.delivery.before)

    async def pieces(self) -> AsyncGenerator[bytes | memoryview, None]:
        """Yield the body. Raises Dropped if the connection is to break."""
        delivery = self.delivery
        stop = min(self.stop, self.start + delivery.after) if delivery.end else self.stop
        at = self.start
        for piece in self._cut(at, stop):
            yield self._flipped(at, piece)
            if self.sent is not None:
                self.sent(at, at + len(piece))
            at += len(piece)
            if delivery.bytes_per_s:
                await trio.sleep(len(piece) / delivery.bytes_per_s)
        if delivery.overrun:
            yield b"\xa5" * delivery.overrun
        await _end(delivery.end)

    def _cut(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """Yield the pieces, small enough that a slow body sends about ten a second."""
        rate = self.delivery.bytes_per_s
        if not rate:
            yield from self.content.pieces(start, stop)
            return
        step = max(1, int(rate / 10))
        while start < stop:
            for piece in self.content.pieces(start, min(stop, start + step)):
                yield piece
                start += len(piece)

    def _flipped(self, at: int, piece: bytes | memoryview) -> bytes | memoryview:
        if self.delivery.flip is None:
            return piece
        place, mask = self.delivery.flip
        if not at <= place < at + len(piece):
            return piece
        changed = bytearray(piece)
        changed[place - at] ^= mask
        return bytes(changed)


async def _end(how: End) -> None:
    if how == "stall":
        await trio.sleep_forever()
    if how:
        raise Dropped(how == "reset")


def of_bytes(status: int, body: bytes, content_type: str, **headers: str) -> Answer:
    """Make an answer with this body. In ``headers``, ``retry_after`` becomes ``Retry-After``."""
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    content = plain(body)
    return Answer(status, {"Content-Type": content_type, **named}, content, 0, content.size)


def of_json(status: int, value: Any, **headers: str) -> Answer:
    """Make an answer in JSON. Unpaired surrogates are sent as escapes, as by a careless service."""
    return of_bytes(status, json.dumps(value).encode(), "application/json", **headers)


def refusal(status: int, message: str, **headers: str) -> Answer:
    """Make an error in JSON. The service does not document its error bodies; this form is ours."""
    return of_json(status, {"errorCode": status, "message": message}, **headers)
