"""Plain heads are read as h11 reads them; what is not plain is left to it."""

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phonofs.service.response_head import Head, plain_head, request_head

OK = b"HTTP/1.1 200 OK\r\n"


def by_h11(data: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers (names in lower case) and body, as h11 has them."""
    machine = h11.Connection(h11.CLIENT)
    machine.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    machine.send(h11.EndOfMessage())
    machine.receive_data(data)
    head, body = machine.next_event(), b""
    assert isinstance(head, h11.Response)
    while isinstance(event := machine.next_event(), h11.Data):
        body += bytes(event.data)
    return head.status_code, list(head.headers), body


def agrees(found: Head, data: bytes) -> None:
    status, headers, body = by_h11(data)
    assert found.status == status
    assert [(name.lower(), value) for name, value in found.headers] == headers
    assert data[found.size : found.size + found.length] == body


def test_a_plain_head_is_read() -> None:
    """Status, headers as they were written, where the body begins and how long it is."""
    head = (
        OK + b'Content-Type:  audio/mpeg \r\nETag: "a:b"\r\nX-Empty:\r\nContent-Length: 3\r\n\r\n'
    )
    found = plain_head(head + b"abc and more")
    assert found is not None
    assert found == Head(
        200,
        [
            (b"Content-Type", b"audio/mpeg"),
            (b"ETag", b'"a:b"'),
            (b"X-Empty", b""),
            (b"Content-Length", b"3"),
        ],
        len(head),
        3,
        True,
    )
    agrees(found, head + b"abc and more")


def test_whether_the_connection_stays() -> None:
    """Not where the answer says that it is closed, in any spelling."""
    for line, stays in ((b"Connection: keep-alive", True), (b"CONNECTION: x, Close", False)):
        found = plain_head(OK + line + b"\r\nContent-Length: 0\r\n\r\n")
        assert found is not None
        assert found.stays is stays


@pytest.mark.parametrize(
    "data",
    [
        b"",
        OK + b"Content-Length: 3\r\n",
        OK + b"\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
        OK + b"Content-Length: 3, 3\r\n\r\n",
        OK + b"Content-Length: +3\r\n\r\n",
        OK + b"Content-Length: -3\r\n\r\n",
        OK + b"Content-Length : 3\r\n\r\n",
        OK + b"X: a\r\n b\r\nContent-Length: 3\r\n\r\n",
        OK + b"X: a\nContent-Length: 3\r\n\r\n",
        OK + b"X: a\0b\r\nContent-Length: 3\r\n\r\n",
        OK + b"no colon\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 3\n\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ],
)
def test_what_is_not_plain_is_left_to_h11(data: bytes) -> None:
    """Whatever puts the length in doubt, or is only half there."""
    assert plain_head(data) is None


WORDS = st.sampled_from(
    [b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"X", b"close",
     b"chunked", b"3", b"0", b"12", b":", b": ", b" ", b"\t", b"\r\n", b"\r", b"\n", b"\0", b"\x7f",
     b"\xe9", b",", b"HTTP/1.1", b"200", b"206 Partial Content", b"abc"]
)  # fmt: skip


@given(st.lists(WORDS, max_size=30), st.booleans())
@example([b"X", b":", b"\x7f", b"\r\n", b"Content-Length", b":", b"0", b"\r\n", b"\r\n"], True)
def test_both_read_the_same(words: list[bytes], ok: bool) -> None:
    """Where a head is read here, h11 reads it too, and sees nothing else in it."""
    data = (OK if ok else b"") + b"".join(words)
    found = plain_head(data)
    if found is not None and len(data) >= found.size + found.length:
        agrees(found, data)


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
