"""The fake service behind a server that sends one kind of answer as a hostile service would.

It answers all requests correctly, except one kind, whose answer is made by an *attack*: bytes
without end, very many small pieces, or very many bytes that mean little.
"""

import gzip
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Literal
from urllib.parse import parse_qsl

import trio

from phonofs.fakeservice.account import Account
from phonofs.fakeservice.options import Options
from phonofs.fakeservice.responses import Request
from phonofs.fakeservice.routes import routed
from tests.support.counted_service import Service
from tests.support.mounts import START_S

Endpoint = Literal["token", "regions", "search", "record", "presign", "content", "restore"]
Attack = Callable[[bytes, bytes], Iterator[bytes]]
"""Yields what to send, given the head (without a length) and the body of the correct answer."""

PACKET = 64 * 1024
"""Small pieces are sent together, so that they cost the client work and not the sender."""
DRIP_S = 0.05
LARGE = 60_000_000
"""Bytes; about a hundred times the largest page that a client asks for."""


def chunks_of_a_byte(head: bytes, body: bytes) -> Iterator[bytes]:
    """Send the correct answer in chunks of one byte."""
    yield head + b"Transfer-Encoding: chunked\r\n\r\n"
    yield from (b"1\r\n%c\r\n" % byte for byte in body)
    yield b"0\r\n\r\n"


def empty_chunk_extensions(head: bytes, body: bytes) -> Iterator[bytes]:
    """Send one chunk whose head does not end."""
    yield head + b"Transfer-Encoding: chunked\r\n\r\n1"
    yield from itertools.repeat(b";a")


def trailers(head: bytes, body: bytes) -> Iterator[bytes]:
    """Send the whole body, then header fields without end."""
    yield head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(body), body)
    yield from itertools.repeat(b"x: y\r\n")


def interim_100(head: bytes, body: bytes) -> Iterator[bytes]:
    """Send ``100 Continue`` without end."""
    return itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n")


def interim_103(head: bytes, body: bytes) -> Iterator[bytes]:
    """Send ``103 Early Hints`` without end, each with a header field."""
    return itertools.repeat(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")


def header_lines(head: bytes, body: bytes) -> Iterator[bytes]:
    """Send header fields without end."""
    yield head
    yield from itertools.repeat(b"x: y\r\n")


def header_line(head: bytes, body: bytes) -> Iterator[bytes]:
    """Send one header field that does not end."""
    yield head + b"x: "
    yield from itertools.repeat(b"y")


def status_line(head: bytes, body: bytes) -> Iterator[bytes]:
    """Send a status line that does not end."""
    yield b"HTTP/1.1 200 "
    yield from itertools.repeat(b"O")


def empty_lines(head: bytes, body: bytes) -> Iterator[bytes]:
    """Send empty lines without end in place of an answer."""
    return itertools.repeat(b"\r\n")


def longer_than_stated(head: bytes, body: bytes) -> Iterator[bytes]:
    """Send the correct answer, then more bytes without end."""
    yield head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    yield from itertools.repeat(b"0,")


def large(head: bytes, body: bytes) -> Iterator[bytes]:
    """Send a very large body with its length."""
    yield head + b"Content-Length: %d\r\n\r\n" % LARGE
    yield from itertools.repeat(b" " * PACKET, LARGE // PACKET)


def endless(head: bytes, body: bytes) -> Iterator[bytes]:
    """Send a body without end and without a length."""
    yield head + b"Connection: close\r\n\r\n["
    yield from itertools.repeat(b"0,")


def endless_chunks(head: bytes, body: bytes) -> Iterator[bytes]:
    """Send a body without end, in chunks of ordinary size."""
    yield head + b"Transfer-Encoding: chunked\r\n\r\n"
    yield from itertools.repeat(b"1000\r\n" + b"[]" * 0x800 + b"\r\n")


def compressed(head: bytes, body: bytes) -> Iterator[bytes]:
    """Send 60 kB that decompress to 60 MB."""
    packed = gzip.compress(b"[" + b"0," * (LARGE // 2) + b"0]")
    yield head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed


def drip(head: bytes, body: bytes) -> Iterator[bytes]:
    """Send a byte now and then: each arrives within the timeout, the whole answer never does."""
    yield head + b"Content-Length: %d\r\n\r\n" % len(body)
    for byte in itertools.cycle(body):
        yield b"%c" % byte


ON_THE_WIRE: Mapping[str, Attack] = {
    made.__name__: made
    for made in (
        chunks_of_a_byte, empty_chunk_extensions, trailers, interim_100, interim_103,
        header_lines, header_line, status_line, empty_lines, longer_than_stated, large, endless,
        endless_chunks, compressed, drip,
    )
}  # fmt: skip

IN_JSON: Mapping[str, tuple[str, int]] = {
    "zeros": ("0", LARGE // 2),
    "few zeros": ("0", 500_000),
    "objects": ("{}", LARGE // 3),
    "few objects": ("{}", 300_000),
    "arrays": ("[]", LARGE // 3),
    "few arrays": ("[]", 300_000),
    "tags": ('{"key":"t","value":""}', 1_000_000),
    "nested": ("", 100_000),
}
"""JSON that is cheap to send and expensive to parse: so many of these values, or nested lists.

``few`` stay within the limits for a page of ordinary records.
"""


def bomb(body: bytes, name: str) -> bytes:
    """Return the JSON with a bomb: in place of its records, as tags of the first, or in it.

    It is inserted as text: encoding it would take as long as the client's decoding.
    """
    unit, items = IN_JSON[name]
    whole = json.loads(body)
    page = whole[0] if isinstance(whole, list) and whole else whole
    records = page.get("content") if isinstance(page, dict) else None
    if not isinstance(page, dict):
        whole = "@bomb@"
    elif name in ("tags", "nested"):
        (records[0] if records else page)["tags" if name == "tags" else "bomb"] = "@bomb@"
    else:
        page["bomb" if records is None else "content"] = "@bomb@"
    huge = "[" * items + "]" * items
    if unit:
        last = "NaN" if unit == "[]" else unit  # NaN is not valid JSON
        huge = f"[{f'{unit},' * (items - 1)}{last}]"
    return json.dumps(whole).replace('"@bomb@"', huge).encode()


class HostileService:
    """The server in a thread. ``fired`` counts the answers made by an attack."""

    def __init__(self, account: Account, options: Options) -> None:
        self.service = Service(account, options)
        self.fired = 0
        self._endpoint: Endpoint | None = None
        self._attack = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._serve,), daemon=True)

    @property
    def url(self) -> str:
        return self.service.url

    def attack(self, endpoint: Endpoint, name: str) -> None:
        """Answer this endpoint with an attack from now on."""
        self.fired = 0
        self._endpoint, self._attack = endpoint, name

    def behave(self) -> None:
        """Answer correctly again."""
        self._endpoint = None

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(START_S)

    def stop(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(START_S)

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.service.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        with trio.CancelScope() as self._scope:
            self._ready.set()
            await trio.serve_listeners(self._connection, [listener])

    async def _connection(self, stream: trio.SocketStream) -> None:
        """Answer one request, then close the connection."""
        async with stream, trio.open_nursery() as nursery:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                request = await _request(stream)
                if request is not None:
                    nursery.start_soon(_until_gone, stream, nursery.cancel_scope)
                    await self._answer(stream, request)
            nursery.cancel_scope.cancel()

    async def _answer(self, stream: trio.SocketStream, request: Request) -> None:
        asked = routed(request)
        answer = await self.service.answer(request)
        body = answer.body()
        fields = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        head = f"HTTP/1.1 {answer.status} x\r\n{fields}".encode()
        if asked.kind == self._endpoint:
            self.fired += 1
            if self._attack in ON_THE_WIRE:
                if b"json" in head:
                    body = body.ljust(1_000_000)  # white space changes nothing
                pieces = ON_THE_WIRE[self._attack](head, body)
                await _send(stream, pieces, slowly=self._attack == "drip")
                return
            if answer.status == 200:
                body = bomb(body, self._attack)
        await stream.send_all(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))


async def _request(stream: trio.SocketStream) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := await stream.receive_some()):
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {n.strip().lower(): v.strip() for n, _, v in (ln.partition(":") for ln in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += await stream.receive_some()
    method, target, _ = first.split(" ")
    path, _, query = target.partition("?")
    return Request(method, path, dict(parse_qsl(query)), headers, body)


async def _send(stream: trio.SocketStream, pieces: Iterator[bytes], *, slowly: bool) -> None:
    if slowly:
        for piece in pieces:
            await stream.send_all(piece)
            await trio.sleep(DRIP_S)
    for batch in _batches(pieces):
        await stream.send_all(batch)


def _batches(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces, joined into larger ones."""
    while batch := b"".join(_upto(pieces)):
        yield batch


def _upto(pieces: Iterator[bytes]) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        yield piece
        size += len(piece)
        if size >= PACKET:
            return


async def _until_gone(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """Cancel an answer if the client closes the connection."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while await stream.receive_some():
            pass
    scope.cancel()


@contextmanager
def hostile(account: Account, options: Options) -> Iterator[HostileService]:
    """Run a service that can turn hostile, until the block ends."""
    made = HostileService(account, options)
    made.start()
    try:
        yield made
    finally:
        made.stop()
