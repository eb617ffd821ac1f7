"""Requests in the usual form are read without h11, and exactly as h11 would read them."""

from unittest.mock import patch

import h11
import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from phonofs.http_server import Received, RequestLimits, receive

LIMITS = RequestLimits(head_bytes=64 << 10, body_bytes=64 << 10)

PLAIN = (
    b"GET /default/2024/a%20b?x-id=GetObject HTTP/1.1\r\nHost: localhost:9000\r\n"
    b"X-Amz-Date: 20261127T000000Z\r\nauthorization:AWS4-HMAC-SHA256 a, b  \r\n\r\n"
)


class Nothing:
    """A client that sends nothing more."""

    async def receive_some(self, most: int, /) -> bytes:
        return b""


async def never() -> None:
    raise AssertionError("nobody waits for that")


def read(head: bytes) -> Received | str | None:
    """Return the request that begins with these bytes; why it is none, as a text."""

    async def main() -> Received | None:
        return await receive(Nothing(), head, LIMITS, never)

    try:
        return trio.run(main)
    except (h11.RemoteProtocolError, AssertionError) as error:
        return repr(error)


def read_by_h11(head: bytes) -> Received | str | None:
    with patch("phonofs.http_server._plain", return_value=None):
        return read(head)


TOKENS = st.sampled_from(
    (
        *(b"Host", b"host", b"X-Amz-Date", b"Range", b"Content-Length", b"Transfer-Encoding"),
        *(b"Expect", b"Connection", b"Upgrade", b"a~|`^_.-+*'&%$#!0", b"a b", b"", b"a\x00"),
        *(b"(x)", b"\xe9"),
    )
)
VALUES = st.sampled_from(
    (
        *(b"localhost", b"0", b"5", b"chunked", b"close", b"keep-alive", b"100-continue", b"a b"),
        *(b"", b"a\tb", b" a", b"a ", b"a\x00", b"\xe9", b"a\rb", b"a\r\n b", b":", b"websocket"),
    )
)
COLONS = st.sampled_from([*5 * [b": "], b":", b":  ", b" : ", b":\t", b""])
ENDS = st.sampled_from([*7 * [b"\r\n"], b"\n", b"\r", b"\r\n\r\n"])
FIELDS = st.builds(lambda *parts: b"".join(parts), TOKENS, COLONS, VALUES, ENDS)
FIRST = st.builds(
    lambda method, target, version, end: method + b" " + target + b" " + version + end,
    st.sampled_from(
        [b"GET", b"GET", b"GET", b"HEAD", b"POST", b"get", b"OPTIONS", b"CONNECT", b"G T"]
    ),
    st.sampled_from(
        [b"/", b"/a", b"/a?b", b"*", b"http://x/", b"/a b", b"/\xe9", b"/a\x7f", b"", b"//"]
    ),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2", b"http/1.1", b""]),
    ENDS,
)
HEADS = st.builds(
    lambda before, first, host, fields, end, after: (
        before + first + host + b"".join(fields) + end + after
    ),
    st.sampled_from([*5 * [b""], b"\r\n", b" "]),
    FIRST,
    st.sampled_from([b"Host: x\r\n", b"Host: x\r\n", b""]),
    st.lists(FIELDS, max_size=4),
    ENDS,
    st.sampled_from([b"", b"12345", PLAIN, b"\r\n", b"\x00"]),
)


@settings(max_examples=500, deadline=None)
@given(HEADS)
@example(PLAIN)
@example(PLAIN + PLAIN)
@example(PLAIN.replace(b"Host", b"Hosts"))
@example(PLAIN.replace(b"X-Amz-Date", b"X-Amz-Date "))
@example(PLAIN.replace(b"\r\n\r\n", b"\r\nhost: other\r\n\r\n"))
@example(PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
@example(PLAIN.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\nab"))
@example(PLAIN.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))
def test_whatever_comes_is_read_as_h11_reads_it(head):
    assert read(head) == read_by_h11(head)


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_the_usual_form_is_read_without_h11(method):
    """So are those of boto3, obstore and curl: their requests have no field of the connection."""
    head = PLAIN.replace(b"GET", method)
    with patch("h11.Connection", side_effect=AssertionError):
        received = read(head + b"GET /more")
    assert received == Received(
        method,
        b"/default/2024/a%20b?x-id=GetObject",
        (
            (b"host", b"localhost:9000"),
            (b"x-amz-date", b"20261127T000000Z"),
            (b"authorization", b"AWS4-HMAC-SHA256 a, b"),
        ),
        b"",
        b"GET /more",
        keep_alive=True,
    )


def test_a_head_of_64_kib_takes_no_longer_than_its_length():
    """Of any length, a head that is nearly in the usual form is looked at once."""
    for head in (PLAIN[:-4] + b" " * 60_000, PLAIN[:-2] + b"a" * 60_000, b"GET /" + b"a" * 60_000):
        assert not isinstance(read(head), Received)
