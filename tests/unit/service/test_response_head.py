"""Heads are read as h11 reads them."""

from contextlib import suppress

import h11
import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phonofs.service.response_head import Head, RawHeaders, head_size, parse_head, request_head

OK = b"HTTP/1.1 200 OK\r\n"


def by_h11(data: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes] | None:
    """Status, headers (names in lower case) and body, as h11 has them; None if it refuses them."""
    machine = h11.Connection(h11.CLIENT)
    machine.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    machine.send(h11.EndOfMessage())
    machine.receive_data(data)
    machine.receive_data(b"")
    try:
        head = machine.next_event()
    except h11.ProtocolError:
        return None
    if not isinstance(head, h11.Response | h11.InformationalResponse):
        return None
    body = b""
    with suppress(h11.ProtocolError):
        while isinstance(event := machine.next_event(), h11.Data):
            body += bytes(event.data)
    return head.status_code, list(head.headers), body


def by_us(data: bytes) -> Head | None:
    """Return the head that ``data`` begins with; None if it is refused or incomplete."""
    try:
        size = head_size(data)
        return parse_head(data[:size]) if size else None
    except httpx.RemoteProtocolError:
        return None


def lowered(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value.lower()) for name, value in headers]


def agrees(found: Head, data: bytes) -> None:
    seen = by_h11(data)
    assert seen is not None
    status, headers, body = seen
    assert found.status == status
    assert [(n.lower(), v.lower()) for n, v in found.headers] == [
        (n, v.lower()) for n, v in headers
    ]
    rest = data[head_size(data) :]
    if status >= 200 and not found.chunked:
        assert rest[: found.length] == body


def test_a_usual_head_is_read() -> None:
    """Status, headers as they were written, where the body begins and how long it is."""
    head = (
        OK + b'Content-Type:  audio/mpeg \r\nETag: "a:b"\r\nX-Empty:\r\nContent-Length: 3\r\n\r\n'
    )
    data = head + b"abc and more"
    assert head_size(data) == len(head)
    found = parse_head(head)
    assert found == Head(
        200,
        [
            (b"Content-Type", b"audio/mpeg"),
            (b"ETag", b'"a:b"'),
            (b"X-Empty", b""),
            (b"Content-Length", b"3"),
        ],
        3,
        False,
        True,
    )
    agrees(found, data)


@pytest.mark.parametrize(
    ("head", "stays"),
    [
        (OK + b"Connection: keep-alive\r\nContent-Length: 0\r\n\r\n", True),
        (OK + b"CONNECTION: x, Close\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", True),
        (OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", False),
        (OK + b"\r\n", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
    ],
)
def test_whether_the_connection_stays(head: bytes, stays: bool) -> None:
    """Not where the answer says that it is closed, in any spelling, or its end is in doubt."""
    assert parse_head(head).stays is stays


@pytest.mark.parametrize(
    ("data", "length", "chunked"),
    [
        (OK + b"\r\n", None, False),
        (OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 3, False),
        (OK + b"Content-Length: 3, 3\r\n\r\nabc", 3, False),
        (OK + b"Content-Length:\r\n 3\r\n\r\nabc", 3, False),
        (OK + b"X: a\r\n b\r\n\tc\r\nContent-Length: 3\r\n\r\nabc", 3, False),
        (OK + b"Content-Length: 3\r\nTransfer-Encoding: Chunked\r\n\r\n", None, True),
        (b"HTTP/1.0 200\r\nContent-Length: 0\r\n\r\n", 0, False),
        (b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc", 3, False),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n", 0, False),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 0, False),
        (b"HTTP/1.1 100 Continue\r\n\r\n", None, False),
    ],
)
def test_what_is_unusual_is_read_too(data: bytes, length: int | None, chunked: bool) -> None:
    """Folded lines, repeated lengths, HTTP/1.0, bare line feeds, bodies without a length."""
    found = parse_head(data[: head_size(data)])
    assert (found.length, found.chunked) == (length, chunked)
    agrees(found, data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        OK + b"Content-Length: 3\r\n",
        OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        OK + b"Content-Length: +3\r\n\r\nabc",
        OK + b"Content-Length: -3\r\n\r\nabc",
        OK + b"Content-Length: \r\n\r\nabc",
        OK + b"Content-Length: 3,\r\n\r\nabc",
        OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nabc",
        OK + b"Content-Length : 3\r\n\r\nabc",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b" folded: 1\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"X: a\rContent-Length: 3\r\n\r\nabc",
        OK + b"X: a\0b\r\nContent-Length: 3\r\n\r\nabc",
        OK + b"no colon\r\nContent-Length: 3\r\n\r\nabc",
        OK + b": no name\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ],
)
def test_what_is_refused(data: bytes) -> None:
    """Whatever puts the length in doubt, is no HTTP, or is only half there; h11 does the same."""
    assert by_us(data) is None
    assert by_h11(data) is None


def test_what_is_no_http_is_refused_at_once() -> None:
    """Without waiting for its end."""
    for data in (b"SSH-2.0", b"\x15\x03\x01", b"HTTP/2", b"\n"):
        with pytest.raises(httpx.RemoteProtocolError):
            head_size(data)
    for data in (b"", b"H", b"HTTP/1.", OK):
        assert head_size(data) == 0


WORDS = st.sampled_from(
    [b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"X", b"close",
     b"chunked", b"3", b"0", b"12", b":", b": ", b" ", b"\t", b"\r\n", b"\r", b"\n", b"\0", b"\x7f",
     b"\xe9", b",", b"HTTP/1.1", b"200", b"206 Partial Content", b"abc"]
)  # fmt: skip


@given(st.lists(WORDS, max_size=30), st.booleans())
@example([b"X", b":", b"\x7f", b"\r\n", b"Content-Length", b":", b"0", b"\r\n", b"\r\n"], True)
@example([b"X", b":", b"\r\n", b" ", b"\r\n", b"\r\n"], True)
def test_both_read_the_same(words: list[bytes], ok: bool) -> None:
    """Where a head is read here, h11 reads it too, and sees nothing else in it."""
    data = (OK if ok else b"") + b"".join(words) + b"\r\n\r\n" + b"x" * 12
    found = by_us(data)
    if found is not None and not found.chunked:
        agrees(found, data)


@given(st.lists(WORDS, max_size=30))
def test_nothing_that_h11_reads_is_refused(words: list[bytes]) -> None:
    """An odd server that other clients can read is read here too."""
    data = OK + b"".join(words) + b"\r\n\r\n" + b"x" * 12
    if by_h11(data) is not None:
        assert by_us(data) is not None


def test_a_request_is_written() -> None:
    """One line, the headers, an empty line."""
    head = request_head("GET", b"/a?b=c", [(b"Host", b"x:1"), (b"Range", b"bytes=0-5")])
    assert head == b"GET /a?b=c HTTP/1.1\r\nHost: x:1\r\nRange: bytes=0-5\r\n\r\n"


@pytest.mark.parametrize("odd", [b"a\r\nX: y", b"a\nb", b"a\rb", b"a\0b"])
def test_nothing_can_be_smuggled_into_a_request(odd: bytes) -> None:
    """Neither by a target nor by a header."""
    assert request_head("GET", odd, []) is None
    assert request_head("GET", b"/", [(b"X", odd)]) is None
    assert request_head("GET", b"/a b", []) is None
