"""A request is read without doubt or refused: no two readings of one path or query."""

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phonofs.s3door.errors import S3Error
from phonofs.s3door.request import KEY_MAX, PARAMETERS_MAX, Request

WORDS = st.text(st.characters(codec="utf-8"), max_size=40)


def get(target: bytes, *headers: tuple[bytes, bytes]) -> Request:
    return Request.of(b"GET", target, headers)


def code(call: object) -> str:
    with pytest.raises(S3Error) as caught:
        call()  # type: ignore[operator]
    return caught.value.code


@settings(deadline=None)
@given(bucket=WORDS.filter(lambda text: "/" not in text), key=WORDS)
def test_bucket_and_key_are_what_the_client_encoded(bucket: str, key: str) -> None:
    request = get(f"/{quote(bucket, safe='')}/{quote(key)}?x".encode())
    assert (request.bucket, request.key) == (bucket, key)


@settings(deadline=None)
@given(st.dictionaries(WORDS, WORDS, max_size=8))
def test_parameters_are_what_the_client_encoded(parameters: dict[str, str]) -> None:
    assert get(f"/?{urlencode(parameters)}".encode()).parameters == parameters


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "a//b", "./a", "/a", "a/", "a/../b", "2024\\x"]
)
def test_a_key_is_no_path_of_a_shell(key: str) -> None:
    """Nothing is resolved: a key that no object has is not there."""
    assert get(f"/work/{quote(key)}".encode()).key == key
    assert get(f"/work/{key}".encode()).key == key


def test_the_bucket_alone_has_no_key() -> None:
    for target in (b"/work", b"/work/", b"/work?list-type=2"):
        assert (get(target).bucket, get(target).key) == ("work", "")
    assert get(b"/").bucket == ""


def test_a_parameter_without_a_value_is_there() -> None:
    request = get(b"/work?location&a=b=c&&d=")
    assert request.parameters == {"location": "", "a": "b=c", "d": ""}


@pytest.mark.parametrize("query", [b"a=1&a=1", b"a=1&%61=2", b"a&a"])
def test_a_parameter_given_twice_is_refused(query: bytes) -> None:
    assert code(lambda: get(b"/?" + query).parameters) == "InvalidArgument"


@pytest.mark.parametrize("text", [b"%", b"%4", b"%zz", b"%ff", b"%c3%28", b"%ed%a0%80", b"%-1"])
def test_what_is_no_utf8_in_percent_encoding_is_refused(text: bytes) -> None:
    assert code(lambda: get(b"/work/" + text).key) == "InvalidURI"
    assert code(lambda: get(b"/work?prefix=" + text).parameters) == "InvalidURI"


@pytest.mark.parametrize("target", [b"*", b"http://host/work", b"work", b"", b"/\xe9"])
def test_a_target_that_is_no_path_is_refused(target: bytes) -> None:
    assert code(lambda: get(target)) == "InvalidURI"


def test_a_key_and_a_query_have_their_bounds() -> None:
    assert len(get(b"/work/" + b"k" * KEY_MAX).key) == KEY_MAX
    assert code(lambda: get(b"/work/" + b"k" * (KEY_MAX + 1)).key) == "KeyTooLongError"
    assert code(lambda: get(b"/work/" + b"%C3%A9" * 513).key) == "KeyTooLongError"
    many = "&".join(f"a{n}=" for n in range(PARAMETERS_MAX))
    assert len(get(f"/?{many}".encode()).parameters) == PARAMETERS_MAX
    assert code(lambda: get(f"/?{many}&b=".encode()).parameters) == "InvalidArgument"


def test_headers_are_found_in_any_case_and_joined() -> None:
    request = get(b"/", (b"X-Amz-Date", b"1"), (b"x-amz-date", b"2"), (b"Host", b"\xe9"))
    assert request.header("x-amz-date") == "1,2"
    assert request.header("host") == "é"
    assert request.header("range") is None
