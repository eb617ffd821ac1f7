"""Conditions are decided as RFC 9110 says, and ranges as Amazon does."""

from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phonofs.s3door.conditions import is_wanted, range_of, response_headers
from phonofs.s3door.errors import S3Error
from phonofs.s3door.request import Request

ETAG = '"5d41402abc4b2a76b9719d911017c592-3"'
MODIFIED_S = 1_700_000_000.75
SAME, BEFORE, AFTER = (formatdate(1_700_000_000 + by_s, usegmt=True) for by_s in (0, -1, 1))


def request(query: str = "", **headers: str) -> Request:
    fields = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Request("GET", "/work/a", query, fields)


def outcome(**headers: str) -> int:
    try:
        return 200 if is_wanted(request(**headers), ETAG, MODIFIED_S) else 304
    except S3Error as error:
        return error.status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"if_match": ETAG}, 200),
        ({"if_match": ETAG.strip('"')}, 200),
        ({"if_match": "*"}, 200),
        ({"if_match": f'"a", {ETAG}'}, 200),
        ({"if_match": f'"a,b" ,{ETAG} , "c"'}, 200),
        ({"if_match": '"a"'}, 412),
        ({"if_match": f"W/{ETAG}"}, 412),
        ({"if_match": ETAG.upper()}, 412),
        ({"if_match": ""}, 412),
        ({"if_match": f"{ETAG[:-1]}"}, 412),
        ({"if_match": f'{ETAG} "a'}, 412),
        ({"if_none_match": ETAG}, 304),
        ({"if_none_match": f"W/{ETAG}"}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": f'"a", "b", {ETAG}'}, 304),
        ({"if_none_match": '"a"'}, 200),
        ({"if_unmodified_since": SAME}, 200),
        ({"if_unmodified_since": AFTER}, 200),
        ({"if_unmodified_since": BEFORE}, 412),
        ({"if_modified_since": SAME}, 304),
        ({"if_modified_since": AFTER}, 304),
        ({"if_modified_since": BEFORE}, 200),
        ({"if_modified_since": "yesterday"}, 200),
        ({"if_unmodified_since": "yesterday"}, 200),
        # Two at once: the ETag decides, the date is not looked at (RFC 9110, 13.2.2).
        ({"if_match": ETAG, "if_unmodified_since": BEFORE}, 200),
        ({"if_match": '"a"', "if_unmodified_since": AFTER}, 412),
        ({"if_none_match": '"a"', "if_modified_since": AFTER}, 200),
        ({"if_none_match": ETAG, "if_modified_since": BEFORE}, 304),
        # What makes it fail comes before what makes it needless.
        ({"if_match": '"a"', "if_none_match": ETAG}, 412),
        ({"if_match": ETAG, "if_none_match": ETAG}, 304),
        ({"if_unmodified_since": BEFORE, "if_none_match": ETAG}, 412),
    ],
)
def test_conditions_hold_or_not(headers: dict[str, str], status: int) -> None:
    assert outcome(**headers) == status


def ranged(header: str, size: int = 100, **headers: str) -> tuple[int, int] | None:
    return range_of(request(range=header, **headers), size, ETAG, MODIFIED_S)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=10-", (10, 100)),
        ("bytes=90-1000", (90, 100)),
        ("bytes=-1", (99, 100)),
        ("bytes=-1000", (0, 100)),
        ("Bytes=5-6", (5, 7)),
        ("bytes= 5-6 ", (5, 7)),
        ("bytes=0-" + "9" * 10_000, (0, 100)),
        ("bytes=-" + "9" * 10_000, (0, 100)),
        ("bytes=" + "0" * 10_000 + "-1", (0, 2)),
        ("bytes=6-5", None),
        ("bytes=-", None),
        ("bytes= - ", None),
        ("bytes=", None),
        ("", None),
        ("bytes=0-1,3-4", None),
        ("bytes=0-1,", None),
        ("bytes=a-b", None),
        ("bytes=٣-٤", None),
        ("bytes=0x0-1", None),
        ("bytes=+1-2", None),
        ("items=0-1", None),
        ("bytes=0-1-2", None),
        ("bytes=1_0-20", None),
    ],
)
def test_a_range_is_one_or_none(header: str, expected: tuple[int, int] | None) -> None:
    assert ranged(header) == expected


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("bytes=100-", 100),
        ("bytes=100-200", 100),
        ("bytes=-0", 100),
        ("bytes=0-", 0),
        ("bytes=-5", 0),
        ("bytes=" + "9" * 10_000 + "-", 100),
    ],
)
def test_a_range_without_a_byte_is_an_error_that_names_the_size(header: str, size: int) -> None:
    with pytest.raises(S3Error) as caught:
        ranged(header, size)
    assert (caught.value.code, caught.value.status) == ("InvalidRange", 416)
    assert caught.value.headers == (("Content-Range", f"bytes */{size}"),)


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 100))
def test_a_range_gives_what_a_slice_does(first: int, last: int, size: int) -> None:
    whole = bytes(range(size))
    if first >= size and last >= first:
        with pytest.raises(S3Error):
            ranged(f"bytes={first}-{last}", size)
    elif last >= first:
        start, stop = ranged(f"bytes={first}-{last}", size) or (0, 0)
        assert whole[start:stop] == whole[first : last + 1]
    if last:
        start, stop = ranged(f"bytes=-{last}", size) or (0, 0)
        assert whole[start:stop] == whole[-last:]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (ETAG, (5, 7)),
        (SAME, (5, 7)),
        (f"W/{ETAG}", None),
        ('"a"', None),
        (BEFORE, None),
        (AFTER, None),
        ("", None),
        ("*", None),
    ],
)
def test_a_range_is_of_the_version_that_the_client_has(
    header: str, expected: tuple[int, int] | None
) -> None:
    """A range of one version put behind a range of another makes a file that never was."""
    assert ranged("bytes=5-6", if_range=header) == expected


def test_two_ranges_in_two_headers_are_none() -> None:
    twice = Request("GET", "/", "", (("range", "bytes=0-1"), ("range", "bytes=2-3")))
    assert range_of(twice, 100, ETAG, MODIFIED_S) is None


def test_a_client_chooses_headers_of_its_answer() -> None:
    query = (
        "response-content-type=audio%2Fmpeg&response-content-disposition="
        "attachment%3B%20filename%3D%22%C3%A9.mp3%22&response-x=1&prefix=a&response-expires="
    )
    assert response_headers(request(query)) == {
        "Content-Type": "audio/mpeg",
        "Content-Disposition": 'attachment; filename="é.mp3"',
        "Expires": "",
    }
    assert response_headers(request()) == {}


@pytest.mark.parametrize(
    "value", ["%0d%0aSet-Cookie:a", "a%0ab", "a%00", "%E2%82%AC", "%C2%85", "a%09b"]
)
def test_a_chosen_header_cannot_begin_another(value: str) -> None:
    with pytest.raises(S3Error) as caught:
        response_headers(request(f"response-content-type={value}"))
    assert caught.value.code == "InvalidArgument"


HEADERS = st.dictionaries(
    st.sampled_from(
        ["if_match", "if_none_match", "if_modified_since", "if_unmodified_since", "if_range",
         "range"]
    ),
    st.text(st.characters(max_codepoint=255), max_size=40)
    | st.text(st.sampled_from('W/"*, -=bytes0123456789'), max_size=40)
    | st.sampled_from([ETAG, SAME, BEFORE, "bytes=1-2"]),
)  # fmt: skip


@settings(deadline=None, max_examples=500)
@given(HEADERS, st.integers(0, 3))
def test_whatever_is_sent_is_answered(headers: dict[str, str], size: int) -> None:
    assert outcome(**headers) in (200, 304, 412)
    try:
        found = range_of(request(**headers), size, ETAG, MODIFIED_S)
    except S3Error as error:
        found = None if error.code == "InvalidRange" else (-1, -1)
    assert found is None or 0 <= found[0] < found[1] <= size


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "header",
    ['"a",' * 16_000, '"' * 65_000, "," * 65_000, " " * 65_000, "W/" * 32_000, "a" * 65_000],
)
def test_a_long_header_is_read_in_a_moment(header: str) -> None:
    assert outcome(if_match=header) == 412
    assert outcome(if_none_match=header) == 200
    assert outcome(if_modified_since=header) == 200
    assert ranged(header) is None
