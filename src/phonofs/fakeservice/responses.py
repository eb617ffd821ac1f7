"""A request, the answer to it, and how the answer's body is sent. No sockets, no HTTP syntax.

The body is an asynchronous stream of pieces, so that a client in the same process and a client of
the HTTP server see the same faults at the same byte.
"""

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import trio

from phonofs.fakeservice.content import CHUNK, Content, plain

End = Literal["", "close", "reset", "stall"]


class Dropped(Exception):
    """The connection must be closed now; with RST instead of FIN if ``reset`` is true."""

    def __init__(self, reset: bool) -> None:
        super().__init__("the fake service dropped the connection, as its fault plan says")
        self.reset = reset


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``headers`` has lower-case names; ``query`` the first value of each name.

    The rest is set by :func:`.routes.routed`:

    kind         for counters and fault plans, see :data:`.faults.KINDS`
    handler      which part of the service answers; none if the path is unknown
    region, id   from the path
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    origin: Literal["api", "store"] = "api"
    kind: str = "other"
    handler: str = ""
    region: str = ""
    id: str = ""


@dataclass(slots=True)
class Answer:
    """One answer: the bytes ``[start, stop)`` of ``content``, after ``status`` and ``headers``.

    ``sent`` is called with (start, stop) for each piece of an object's content that was sent.
    The rest says how the body is sent, if not completely and at full speed:

    end           what happens after ``after`` bytes of the body; -1: before the headers
    bytes_per_s   speed; 0: unlimited
    overrun       bytes sent beyond the Content-Length
    unframed      no Content-Length: the end of the connection ends the body
    flip          offset of a byte in the object, and the mask it is xor-ed with
    """

    status: int
    headers: dict[str, str]
    content: Content
    start: int
    stop: int
    sent: Callable[[int, int], None] | None = None
    end: End = ""
    after: int = 0
    bytes_per_s: float = 0
    overrun: int = 0
    unframed: bool = False
    flip: tuple[int, int] | None = None

    @property
    def length(self) -> int:
        """The Content-Length."""
        return self.stop - self.start

    @property
    def whole(self) -> bool:
        """Whether the body will have the stated length, so that the connection can be reused."""
        return not (self.end or self.overrun or self.unframed)

    def body(self) -> bytes:
        """Return the body as it is without faults of its delivery."""
        return self.content.read(self.start, self.stop)

    async def begin(self) -> None:
        """Apply the fault before the status line, if there is one. Raises Dropped."""
        if self.after < 0:
            await self._end()

    async def pieces(self) -> AsyncGenerator[bytes | memoryview, None]:
        """Yield the body. Raises Dropped if the connection is to break."""
        at = self.start
        stop = min(self.stop, at + self.after) if self.end else self.stop
        # A slow body comes in about ten pieces a second.
        most = max(1, int(self.bytes_per_s / 10)) if self.bytes_per_s else CHUNK
        for piece in self.content.pieces(at, stop, most):
            yield self._flipped(at, piece)
            if self.sent is not None:
                self.sent(at, at + len(piece))
            at += len(piece)
            if self.bytes_per_s:
                await trio.sleep(len(piece) / self.bytes_per_s)
        if self.overrun:
            yield b"\xa5" * self.overrun
        await self._end()

    def _flipped(self, at: int, piece: bytes | memoryview) -> bytes | memoryview:
        place, mask = self.flip or (-1, 0)
        if not at <= place < at + len(piece):
            return piece
        changed = bytearray(piece)
        changed[place - at] ^= mask
        return bytes(changed)

    async def _end(self) -> None:
        if self.end == "stall":
            await trio.sleep_forever()
        if self.end:
            raise Dropped(self.end == "reset")


def of_bytes(status: int, body: bytes, content_type: str) -> Answer:
    """Make an answer with this body."""
    return Answer(status, {"Content-Type": content_type}, plain(body), 0, len(body))


def of_json(status: int, value: Any) -> Answer:
    """Make an answer in JSON. Unpaired surrogates are sent as escapes, as by a careless service."""
    return of_bytes(status, json.dumps(value).encode(), "application/json")


def refusal(status: int, message: str) -> Answer:
    """Make an error in JSON. The service does not document its error bodies; this form is ours."""
    return of_json(status, {"errorCode": status, "message": message})


class Refused(Exception):
    """The request is refused with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.answer = refusal(status, message)
