"""Chunks are decoded as h11 decodes them, wherever what is received is cut."""

import itertools

import h11
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phonofs.service import chunked
from phonofs.service.chunked import ChunkedDecoder

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def decoded(*parts: bytes) -> tuple[bytes, bool, bytes]:
    """The body, whether it ended, and what came behind it; views of one buffer are fed."""
    decoder, body = ChunkedDecoder(), b""
    for number, part in enumerate(parts, 1):
        buffer = bytearray(part)
        decoder.feed(memoryview(buffer))
        while piece := decoder.decode():
            body += bytes(piece)
        buffer[:] = bytes(len(buffer))  # the next receive writes over it
        if decoder.ended:
            return body, True, decoder.leftover + b"".join(parts[number:])
    return body, False, b""


def by_h11(coded: bytes) -> tuple[bytes, bool, bytes]:
    machine = h11.Connection(h11.CLIENT)
    machine.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    machine.send(h11.EndOfMessage())
    machine.receive_data(HEAD + coded)
    assert isinstance(machine.next_event(), h11.Response)
    body = b""
    while isinstance(event := machine.next_event(), h11.Data):
        body += bytes(event.data)
    ended = isinstance(event, h11.EndOfMessage)
    return body, ended, machine.trailing_data[0] if ended else b""


LINES = st.sampled_from([b"", b";a", b";a=b", b';a="b c"', b"  "])
TRAILERS = st.sampled_from([b"", b"A: b\r\n", b"A: b\r\nC:d\r\n", b"A:\n", b"A: b\r\n\tc\r\n"])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    chunks = draw(st.lists(st.binary(min_size=1, max_size=300), max_size=8))
    spell = draw(st.sampled_from(["%x", "%X", "%05x"]))
    coded = b"".join(
        (spell % len(chunk)).encode() + draw(LINES) + b"\r\n" + chunk + b"\r\n" for chunk in chunks
    )
    return coded + b"0" + draw(LINES) + b"\r\n" + draw(TRAILERS) + b"\r\n"


@given(bodies(), st.binary(max_size=4), st.lists(st.integers(0, 2000), max_size=6))
def test_it_is_what_h11_has(coded: bytes, behind: bytes, cuts: list[int]) -> None:
    """Body, end, and what comes behind it."""
    places = [0, *sorted(min(cut, len(coded)) for cut in cuts), len(coded)]
    parts = [coded[a:b] for a, b in itertools.pairwise(places)]
    parts[-1] += behind
    assert decoded(*parts) == by_h11(coded + behind)


@given(bodies(), st.data())
def test_what_is_cut_has_no_end(coded: bytes, data: st.DataObject) -> None:
    """And nothing is given that was not there."""
    cut = data.draw(st.integers(0, len(coded) - 1))
    whole, _, _ = decoded(coded)
    body, ended, _ = decoded(coded[:cut])
    assert not ended
    assert whole.startswith(body)


@given(st.binary(max_size=60) | st.from_regex(rb"[0-9a-f]{0,3};?[\r\nx0]{0,20}", fullmatch=True))
def test_any_bytes_are_chunks_or_an_error(data: bytes) -> None:
    """Where h11 sees an error, nothing that h11 had not given before is taken for a body."""
    try:
        body, ended, _ = decoded(data)
    except httpx.RemoteProtocolError:
        return
    try:
        right, there, _ = by_h11(data)
    except h11.RemoteProtocolError:
        assert not ended
        return
    assert (body, ended) == (right, there)


@pytest.mark.parametrize(
    "coded",
    [
        b"zz\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x1\r\n",
        b"1\r\nxy\r\n",
        b"1\nx\n",
        b"1\r\nx\rY0\r\n\r\n",
        b"f" * 17 + b"\r\n",
        b"1;" + b"a" * (chunked.LONGEST_LINE + 1),
        b"0\r\n" + b"a:\r\n" * (chunked.LARGEST_TRAILER // 4 + 1),
        b"0\r\n\x00\n\n",
        b"0\r\na b: c\r\n\r\n",
        b"0\r\n a: b\r\n\r\n",
        b"0\r\na: b\r\r\n\r\n",
    ],
)
def test_what_is_no_chunk_is_an_error(coded: bytes) -> None:
    """Whole or fed in two pieces."""
    with pytest.raises(httpx.RemoteProtocolError):
        decoded(coded)
    with pytest.raises(httpx.RemoteProtocolError):
        decoded(coded[:1], coded[1:])


def test_large_chunks_are_not_copied() -> None:
    """They are views of what was fed."""
    decoder = ChunkedDecoder()
    decoder.feed(memoryview(b"186a0\r\n" + bytes(100_000) + b"\r\n"))
    assert isinstance(decoder.decode(), memoryview)


def test_crumbs_are_put_together_and_counted() -> None:
    """A body of nothing but crumbs is wasteful in the end, one of words is not."""
    decoder = ChunkedDecoder()
    decoder.feed(b"1\r\nx\r\n" * (chunked.MOST_SMALL_CHUNKS * 2))
    assert len(decoder.decode()) == chunked.CHUNKS_AT_ONCE
    while not decoder.wasteful and decoder.decode():
        pass
    assert decoder.wasteful
    decoder = ChunkedDecoder()
    decoder.feed(b"10\r\n" + b"x" * 16 + b"\r\n")
    assert len(decoder.decode()) == 16
    assert not decoder.wasteful
