"""The small pure parts: filters, tokens, pauses, answers, presigned URLs, proxies, pace."""

import base64
import json
import re
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phonofs.config import Secret
from phonofs.errors import (
    Archived,
    Changed,
    CredentialsRefused,
    Gone,
    Malformed,
    Refused,
    Unavailable,
    Untrusted,
)
from phonofs.http_dates import http_date_s
from phonofs.model import Query
from phonofs.service import backoff as retry
from phonofs.service import oauth, presigned
from phonofs.service.client import parse_regions
from phonofs.service.content_headers import (
    ContentHeaders,
    RangeRequest,
    content_length,
    content_range,
    unsatisfied_total,
    validated_headers,
)
from phonofs.service.errors_map import failure
from phonofs.service.fiql import EVERYTHING, fiql
from phonofs.service.streaming_response import MinimumSpeed
from phonofs.service.url_policy import Origin, proxy_for


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (Query(), EVERYTHING),
        (Query(created_from_ms=1, created_until_ms=2), "createdTime=ge=1;createdTime=lt=2"),
        (Query(updated_from_ms=5), "updatedTime=ge=5"),
        (Query(types=("a",)), "type==a"),
        (
            Query(created_from_ms=0, types=("a", "b"), states=("AVAILABLE", "ARCHIVED")),
            "createdTime=ge=0;(type==a,type==b);(objectState==AVAILABLE,objectState==ARCHIVED)",
        ),
    ],
)
def test_filters(query: Query, text: str) -> None:
    """Bounds are half open, alternatives stand in parentheses."""
    assert fiql(query) == text


@pytest.mark.parametrize("word", ["a;b", "a,b", "a)", "", "a b", "a==b", "a'"])
def test_a_word_cannot_become_a_filter(word: str) -> None:
    """What would change the meaning of the rest is refused."""
    with pytest.raises(ValueError, match="cannot stand in a filter"):
        fiql(Query(types=(word,)))


def grant(**fields: Any) -> bytes:
    return json.dumps({"access_token": "t0ken", "expires_in": "1799"} | fields).encode()


def test_a_token_is_read_from_texts() -> None:
    """All numbers of the answer are texts."""
    read = oauth.parse_grant(grant(api_product_list_json=["storage"], status="approved"))
    assert (read.token, read.life_s) == ("t0ken", 1799)
    assert "t0ken" not in repr(read)


def test_a_repeated_key_is_taken() -> None:
    """One published example repeats ``expires_in``."""
    body = b'{"access_token": "x", "expires_in": "3599", "expires_in": "3599"}'
    assert oauth.parse_grant(body).life_s == 3599


@pytest.mark.parametrize(
    ("value", "life_s"),
    [
        ("3", 3),
        (3599, 3599),
        (0, 600),
        ("-5", 600),
        (1, 1),
        ("1.5", 1.5),
        ("x", 600),
        (None, 600),
        (1e300, 600),
        (10**9, 86400),
    ],
)
def test_the_life_of_a_token_is_bounded(value: object, life_s: float) -> None:
    """A day at most; ten minutes where it cannot be read, or leaves no time to ask anything."""
    assert oauth.parse_grant(grant(expires_in=value)).life_s == life_s


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        grant(access_token=""),
        grant(access_token="a\nb"),
        grant(access_token=3),
    ],
)
def test_an_answer_without_a_token_is_malformed(body: bytes) -> None:
    """Nor does one pass that could not stand in a header."""
    with pytest.raises(Malformed):
        oauth.parse_grant(body)


@pytest.mark.parametrize(
    "products", [{"api_product_list": "[chat]"}, {"api_product_list_json": ["x"]}]
)
def test_a_key_without_storage_gets_its_own_sentence(products: dict[str, object]) -> None:
    """It is the commonest mistake in setting one up."""
    with pytest.raises(CredentialsRefused, match="Call Recordings & Storage"):
        oauth.parse_grant(grant(**products))


def test_key_and_secret_go_as_basic() -> None:
    """RFC 7617."""
    value = oauth.headers("key", Secret("sec:ret"))["Authorization"]
    assert base64.b64decode(value.removeprefix("Basic ")) == b"key:sec:ret"


@given(st.integers(0, 10_000), st.floats(0, 1), st.none() | st.floats(0, 600))
def test_pauses_are_bounded(attempt: int, chance: float, asked_s: float | None) -> None:
    """Half a first pause at least, the longest or what was asked for at most."""
    pause_s = retry.pause_s(attempt, chance, asked_s)
    assert pause_s >= max(retry.FIRST_PAUSE_S / 2, asked_s or 0)
    assert pause_s <= max(retry.LONGEST_PAUSE_S, asked_s or 0)


def test_pauses_double() -> None:
    """Without chance: 0.25, 0.5, 1, 2, 4, 8, 8 s."""
    assert [retry.pause_s(n, 0) for n in range(7)] == [0.25, 0.5, 1, 2, 4, 8, 8]


@pytest.mark.parametrize(
    ("value", "date", "wait_s"),
    [
        ("5", None, 5),
        (" 1.5 ", None, 1.5),
        ("99999", None, retry.LONGEST_ASKED_S),
        ("Wed, 21 Oct 2015 07:28:30 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", 30),
        ("Wed, 21 Oct 2015 07:28:30 GMT", None, 20),
        ("Wed, 21 Oct 2015 07:00:00 GMT", None, 0),
        ("soon", None, None),
        ("-1", None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_retry_after(value: str | None, date: str | None, wait_s: float | None) -> None:
    """Seconds or a date; a date is compared with the answer's own clock."""
    now_s = http_date_s("Wed, 21 Oct 2015 07:28:10 GMT")
    assert now_s is not None
    assert retry.retry_after_s(value, date, now_s) == wait_s


@given(st.text(max_size=60), st.text(max_size=60))
def test_retry_after_never_raises(value: str, date: str) -> None:
    """And is never negative."""
    wait_s = retry.retry_after_s(value, date, 0.0)
    assert wait_s is None or 0 <= wait_s <= retry.LONGEST_ASKED_S


def test_what_is_worth_another_try() -> None:
    """Unavailable is; a certificate, a refusal, an end are not."""
    assert retry.retryable(Unavailable("x"))
    for error in (Untrusted("x"), Refused("x"), Gone("x"), Malformed("x"), ValueError()):
        assert not retry.retryable(error)


@pytest.mark.parametrize(
    ("status", "body", "of_object", "kind"),
    [
        (401, b"", True, Refused),
        (403, b"", True, Refused),
        (403, b"<Code>InvalidObjectState</Code>", True, Archived),
        (409, b'{"message": "object is ARCHIVED"}', True, Archived),
        (403, b"archived", False, Refused),
        (404, b"", True, Gone),
        (410, b"", True, Gone),
        (404, b"", False, Malformed),
        (400, b"", True, Malformed),
        (302, b"", False, Malformed),
        (429, b"", True, Unavailable),
        (500, b"", True, Unavailable),
        (503, b"archived", True, Unavailable),
        (599, b"", True, Unavailable),
    ],
)
def test_statuses(status: int, body: bytes, of_object: bool, kind: type[Exception]) -> None:
    """Only of an object does 404 mean that it is gone; an outage never does."""
    error = failure(httpx.Response(status), "object one", body=body, of_object=of_object)
    assert type(error) is kind
    assert re.fullmatch(r"[^\n]+", str(error))


@pytest.mark.parametrize(
    ("value", "span"),
    [
        ("bytes 0-99/200", (0, 100, 200)),
        ("bytes 0-99/*", (0, 100, None)),
        ("bytes 5-4/200", None),
        ("bytes 0-200/200", None),
        ("bytes */200", None),
        ("chars 0-99/200", None),
        ("", None),
        (None, None),
    ],
)
def test_content_range(value: str | None, span: tuple[int, int, int | None] | None) -> None:
    """What does not hold together is nothing."""
    read = content_range(value)
    assert (None if read is None else (read.start, read.stop, read.total)) == span


def test_lengths() -> None:
    """A Content-Length beside a Transfer-Encoding does not count."""
    assert content_length({"content-length": "5"}) == 5
    assert content_length({"content-length": "5", "transfer-encoding": "chunked"}) is None
    assert content_length({"content-length": "-5"}) is None
    assert unsatisfied_total("bytes */7") == 7
    assert unsatisfied_total("bytes 0-1/7") is None


WANTED = RangeRequest("object one", 10, 20, None, "audio/mpeg")


@pytest.mark.parametrize(
    ("status", "headers", "promise"),
    [
        (
            206,
            {"content-range": "bytes 10-19/100", "etag": '"a"'},
            ContentHeaders(10, 20, 100, '"a"', is_partial=True),
        ),
        (
            206,
            {"content-range": "bytes 10-14/15", "content-length": "5"},
            ContentHeaders(10, 15, 15, "", is_partial=True),
        ),
        (
            206,
            {"content-range": "bytes 10-19/*"},
            ContentHeaders(10, 20, None, "", is_partial=True),
        ),
        (200, {"content-length": "100"}, ContentHeaders(0, 100, 100, "")),
        (200, {}, ContentHeaders(0, None, None, "", framed=False)),
        (200, {"transfer-encoding": "chunked"}, ContentHeaders(0, None, None, "")),
        (416, {"content-range": "bytes */5"}, ContentHeaders(10, 10, 5, "")),
    ],
)
def test_promises(status: int, headers: dict[str, str], promise: ContentHeaders) -> None:
    """What an answer says about the bytes that will come."""
    assert validated_headers(status, headers, WANTED) == promise


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (206, {}),
        (206, {"content-range": "bytes 11-19/100"}),
        (206, {"content-range": "bytes 0-9/100"}),
        (206, {"content-range": "bytes 10-20/100"}),
        (206, {"content-range": "bytes 10-19/100", "content-length": "9"}),
        (206, {"content-type": "multipart/byteranges; boundary=x"}),
        (206, {"content-range": "bytes 10-19/100", "content-encoding": "gzip"}),
        (200, {"content-encoding": "br"}),
        (200, {"content-type": "text/html; charset=utf-8"}),
        (200, {"content-length": str(2**41)}),
        (416, {}),
        (416, {"content-range": "bytes */50"}),
    ],
)
def test_broken_promises(status: int, headers: dict[str, str]) -> None:
    """Another part, more, encoded bytes, a web page in place of a recording."""
    with pytest.raises(Malformed):
        validated_headers(status, headers, WANTED)


def test_an_empty_object_may_be_asked_for_its_bytes() -> None:
    """S3's 416 does not always say how long the object is."""
    assert validated_headers(416, {}, RangeRequest("x", 0, None)) == ContentHeaders(0, 0, 0, "")


def test_another_etag_is_another_content() -> None:
    """Whatever the status; a weak one is compared like a strong one, but not sent."""
    wanted = RangeRequest("x", 10, 20, '"a"')
    assert wanted.headers() == {"Range": "bytes=10-19", "If-Range": '"a"'}
    with pytest.raises(Changed):
        validated_headers(206, {"content-range": "bytes 10-19/100", "etag": '"b"'}, wanted)
    with pytest.raises(Changed):
        validated_headers(200, {"etag": '"b"'}, wanted)
    assert validated_headers(200, {"etag": 'W/"a"'}, wanted).start == 0
    assert "If-Range" not in RangeRequest("x", 1, None, 'W/"a"').headers()
    assert "If-Range" not in RangeRequest("x", 1, None, '"caf\xe9"').headers()


@pytest.mark.parametrize(
    ("body", "url"),
    [
        (b'{"url": "https://s/x?a=b"}', "https://s/x?a=b"),
        (b'{"presignedUrl": "https://s/x"}', "https://s/x"),
        (b'[{"url": "https://s/x"}]', "https://s/x"),
        (b'"https://s/x"', "https://s/x"),
        (b" https://s/x\n", "https://s/x"),
        (b"<html>", None),
        (b"https://s/x https://s/y", None),
        (b'{"url": 3}', None),
        (b"{}", None),
        (b"\xff\xd8binary", None),
        (b"https://s/" + b"x" * 70_000, None),
    ],
)
def test_presigned_answers(body: bytes, url: str | None) -> None:
    """A field, a JSON text or bare text; content that came instead is none."""
    assert presigned.parse_presigned(body) == url


def test_life_of_a_presigned_url() -> None:
    """By the clock of the answer that brought it, less a tenth, at most a minute."""
    url = "https://s/x?X-Amz-Date=20240917T093000Z&X-Amz-Expires=1800"
    date = "Tue, 17 Sep 2024 09:30:00 GMT"
    assert presigned.life_s(url, date, 0.0) == 1740
    assert presigned.life_s(url, "Tue, 17 Sep 2024 09:59:50 GMT", 0.0) == 9
    assert presigned.life_s(url, "Tue, 17 Sep 2024 11:00:00 GMT", 0.0) == 0
    assert presigned.life_s("https://s/x?X-Amz-Expires=10", None, 5.0) == 9
    assert presigned.life_s("https://s/x?Expires=1000", None, 900.0) == 90
    assert presigned.life_s("https://s/x", None, 0.0) is None
    assert presigned.life_s("https://s/x?Expires=soon", None, 0.0) is None


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'["us-east", "uk", "uk"]', ["us-east", "uk"]),
        (b'{"regions": ["ca"]}', ["ca"]),
        (b"[]", []),
    ],
)
def test_regions(body: bytes, names: list[str]) -> None:
    """A list, bare or in a field, each once."""
    assert parse_regions(body) == names


@pytest.mark.parametrize("body", [b"{}", b"null", b'["../x"]', b"[1]", b'[""]', b"<html>"])
def test_odd_regions_are_malformed(body: bytes) -> None:
    """A region becomes part of a path and a folder's name."""
    with pytest.raises(Malformed):
        parse_regions(body)


@pytest.mark.parametrize(
    ("host", "proxies", "proxy"),
    [
        ("api.example.com", {}, None),
        ("api.example.com", {"https": "http://p:3128"}, "http://p:3128"),
        ("api.example.com", {"all": "p:3128"}, "http://p:3128"),
        ("api.example.com", {"http": "http://p"}, None),
        ("api.example.com", {"https": "http://p", "no": "other.com, .example.com"}, None),
        ("api.example.com", {"https": "http://p", "no": "api.example.com:443"}, None),
        ("api.example.com", {"https": "http://p", "no": "api.example.com:444"}, "http://p"),
        ("api.example.com", {"https": "http://p", "no": "*"}, None),
        ("notexample.com", {"https": "http://p", "no": "example.com"}, "http://p"),
        ("127.0.0.1", {"https": "http://p"}, None),
        ("localhost", {"https": "http://p"}, None),
    ],
)
def test_proxies(host: str, proxies: dict[str, str], proxy: str | None) -> None:
    """As curl reads the environment; this machine is always reached directly."""
    assert proxy_for(Origin("https", host, 443), proxies) == proxy


def test_a_drip_is_too_slow_and_a_stream_is_not() -> None:
    """A byte every 5 s ends with the window; 1 MB a second does not; pauses do not count."""
    drip = MinimumSpeed(30)
    assert [drip.too_slow(5, 1) for _ in range(6)] == [False] * 5 + [True]
    stream = MinimumSpeed(30)
    assert not any(stream.too_slow(1, 1_000_000) for _ in range(100))
    assert not any(MinimumSpeed(30).too_slow(0, 1) for _ in range(10_000))


@pytest.mark.parametrize("kind", ["application/json", "text/xml", "application/problem+json; x"])
def test_a_message_is_no_recording(kind):
    """JSON and XML cannot be sound or pictures, whatever the status; of other kinds they may."""
    headers = {"content-type": kind, "content-length": "15"}
    with pytest.raises(Malformed):
        validated_headers(200, headers, RangeRequest("x", 0, None, None, "audio/mpeg"))
    assert (
        validated_headers(200, headers, RangeRequest("x", 0, None, None, "application/json")).total
        == 15
    )
    assert validated_headers(200, headers, RangeRequest("x", 0, None)).total == 15


def test_a_416_says_nothing_of_a_file_that_has_bytes():
    """Only of an empty object is a 416 without a length its whole content."""
    with pytest.raises(Malformed):
        validated_headers(416, {}, RangeRequest("x", 0, None, size=5))
