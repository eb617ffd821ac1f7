"""Records and pages: every shape the documents know, and whatever else may come."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phonofs.errors import Malformed
from phonofs.service.record_limits import LARGEST_OBJECT, LARGEST_RECORD
from phonofs.service.records import (
    integer,
    parse_page,
    parse_record,
    time_ms,
    truth,
    valid_id,
)
from phonofs.service.tolerant_json import decode, mend_text
from tests.support.service_world import record_json


def page(*records: Any, **fields: Any) -> bytes:
    return json.dumps({"lastPage": False, "pageKey": 7, "content": list(records)} | fields).encode()


def test_a_page_is_read_as_the_guides_show_it() -> None:
    """Records, their number, the end, the next offset and the total."""
    read = parse_page(page(record_json("a"), record_json("b"), pageSize=2, total=9), "uk")
    assert [record.id for record in read.records] == ["a", "b"]
    assert (read.count, read.last, read.next_key, read.total) == (2, False, 7, 9)
    assert read.rejected == []


def test_a_record_has_all_its_fields() -> None:
    """What the record says is what the tree gets; its own text is kept as it came."""
    body = page(record_json("a", tags=[{"key": "callId", "value": "1"}]))
    record = parse_page(body, "uk").records[0]
    assert record.region == "uk"
    assert record.type == "callrecording"
    assert record.mime_type == "audio/mpeg"
    assert record.object_name == "a.mp3"
    assert record.size == 28224
    assert record.created_ms == 1667337742000
    assert record.updated_ms == 1667337752000
    assert record.state == "AVAILABLE"
    assert record.checksum == "c03f27f4b1ca0aefea989f1c1b432d9e"
    assert record.tags == {"callId": "1"}
    assert record.source in body


@pytest.mark.parametrize(
    "shape",
    [
        lambda one: {"content": [one], "lastPage": "true", "pageKey": "1"},
        lambda one: [{"content": [one], "lastPage": True, "pageKey": 1}],
        lambda one: [
            {"content": [], "lastPage": False},
            {"content": [one], "lastPage": True, "pageKey": 1},
        ],
        lambda one: {"content": [one], "lastPage": True, "pageKey": 1, "total": "1"},
    ],
)
def test_every_shape_of_a_page_is_taken(shape: Any) -> None:
    """An object, a list of pages, texts for numbers and booleans."""
    read = parse_page(json.dumps(shape(record_json("a"))).encode(), "uk")
    assert [record.id for record in read.records] == ["a"]
    assert (read.last, read.next_key, read.count) == (True, 1, 1)


def test_a_bare_list_of_records_is_taken_for_a_page() -> None:
    """Without a word on the end, only an empty page is the last."""
    read = parse_page(json.dumps([record_json("a"), record_json("b")]).encode(), "uk")
    assert (read.count, read.last) == (2, False)
    assert parse_page(b'{"content": []}', "uk").last


def test_an_empty_last_page_may_leave_its_content_out() -> None:
    """``{"lastPage": true}`` is a page without records."""
    assert parse_page(b'{"lastPage": true, "pageKey": 3}', "uk").last


@pytest.mark.parametrize(
    "odd",
    [
        {"id": ""},
        {"id": None},
        {"id": "../x"},
        {"id": "a b"},
        {"id": ".."},
        {"id": "x" * 201},
        {"id": "caf\u00e9"},
        {"id": ["a"]},
        {"storedBytes": -1},
        {"storedBytes": "many"},
        {"storedBytes": True},
        {"storedBytes": 1.5},
        {"storedBytes": LARGEST_OBJECT + 1},
        {"storedBytes": 10**25},
        {"storedBytes": None},
        {"createdTime": None},
        {"createdTime": "yesterday"},
        {"createdTime": "9999-12-31T23:59:59"},
        {"createdTime": "1969-01-01T00:00:00"},
        {"createdTime": "2022-02-30T00:00:00"},
        {"createdTime": {}},
        {"note": "x" * LARGEST_RECORD},
    ],
)
def test_one_odd_record_is_set_aside_and_not_its_page(odd: dict[str, Any]) -> None:
    """The others are there, the page's count includes it, and a sentence says what it was."""
    body = page(record_json("a"), record_json("odd", **odd), record_json("b"))
    read = parse_page(body, "uk")
    assert [record.id for record in read.records] == ["a", "b"]
    assert read.count == 3
    assert len(read.rejected) == 1


@pytest.mark.parametrize("odd", [None, 1, "x", [], [1]])
def test_what_is_no_record_is_set_aside(odd: object) -> None:
    """A null or a number among the records costs nothing else."""
    read = parse_page(page(record_json("a"), odd), "uk")
    assert (len(read.records), read.count, len(read.rejected)) == (1, 2, 1)


@pytest.mark.parametrize("depth", [100, 600, 900])
@pytest.mark.parametrize("total", [b"1", b"NaN"])
def test_a_record_that_is_nested_deep_and_odd_costs_nothing_else(depth: int, total: bytes) -> None:
    """Whether its text alone has to be mended, or that of the page."""
    nested = b'"x": ' + b"[" * depth + b"]" * depth + b', "y": "\\udcff"'
    odd = json.dumps(record_json("odd")).encode()[:-1] + b", " + nested + b"}"
    plain = json.dumps(record_json("a")).encode()
    read = parse_page(b'{"total": %b, "content": [%b, %b]}' % (total, odd, plain), "uk")
    assert [record.id for record in read.records][-1] == "a"
    assert (read.count, len(read.records) + len(read.rejected)) == (2, 2)


def test_an_unpaired_surrogate_costs_nothing() -> None:
    """The one text is mended; the record and its page are there, and can be written as JSON."""
    body = page(record_json("a"), record_json("b", objectName="x\udcff", tags=[
        {"key": "callerName", "value": "\ud800y"}]))  # fmt: skip
    assert b"\\udcff" in body
    read = parse_page(body, "uk")
    assert [record.id for record in read.records] == ["a", "b"]
    assert read.records[1].object_name == "x\ufffd"
    assert read.records[1].tags == {"callerName": "\ufffdy"}
    msgspec.json.decode(read.records[1].source)


def test_invalid_utf8_and_nan_cost_nothing() -> None:
    """Bytes that are no UTF-8 and numbers that JSON does not have are mended."""
    body = page(record_json("a"), record_json("b", note=float("nan"))).replace(
        b"a.mp3", b"\xff.mp3"
    )
    read = parse_page(body, "uk")
    assert [record.object_name for record in read.records] == ["\ufffd.mp3"] * 2
    for record in read.records:
        msgspec.json.decode(record.source)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>no</html>",
        b"null",
        b"3",
        b'"x"',
        b'{"error": "no"}',
        b'{"content": 3}',
        b"[1]",
        b"[" * 100_000,
        b'{"content":' * 5000,
    ],
)
def test_what_is_no_page_is_malformed(body: bytes) -> None:
    """HTML, an error object, another type, endless nesting: one sentence, no other error."""
    with pytest.raises(Malformed):
        parse_page(body, "uk")


def test_a_record_is_read_alone_and_in_a_list() -> None:
    """GET of one object: the object, or a list that holds it."""
    one = json.dumps(record_json("a")).encode()
    assert parse_record(one, "uk").source == one
    assert parse_record(b"[" + one + b"]", "uk").id == "a"
    assert parse_record(one.replace(b"a.mp3", b"\\udcff"), "uk").object_name == "\ufffd"


@pytest.mark.parametrize("body", [b"[]", b"{}", b"null", b"x", b'{"id": "a"}'])
def test_what_is_no_record_is_malformed(body: bytes) -> None:
    """The one record that was asked for cannot be set aside."""
    with pytest.raises(Malformed):
        parse_record(body, "uk")


def test_what_is_missing_is_mended() -> None:
    """Only id, size and creation time are needed; the rest has a sensible nothing."""
    record = parse_record(
        b'{"id": 17, "storedBytes": "5", "createdTime": "2022-11-01T21:22:22"}', "uk"
    )
    assert record.id == "17"
    assert record.updated_ms == record.created_ms
    assert (record.type, record.state, record.checksum, record.tags) == (
        "object",
        "AVAILABLE",
        "",
        {},
    )


@pytest.mark.parametrize(
    ("kind", "checksum", "read"),
    [
        ("MD5", "C03F27F4B1CA0AEFEA989F1C1B432D9E", "c03f27f4b1ca0aefea989f1c1b432d9e"),
        ("md5", '"27b75edcb0305a6a6a87d60a1e01f1a4-1"', "27b75edcb0305a6a6a87d60a1e01f1a4-1"),
        (None, "27b75edcb0305a6a6a87d60a1e01f1a4-12", "27b75edcb0305a6a6a87d60a1e01f1a4-12"),
        ("SHA256", "27b75edcb0305a6a6a87d60a1e01f1a4", ""),
        ("MD5", "27b75edcb0305a6a6a87d60a1e01f1a4-0", ""),
        ("MD5", "nonsense", ""),
        ("MD5", None, ""),
    ],
)
def test_checksums(kind: str | None, checksum: str | None, read: str) -> None:
    """An MD5, or an S3 multipart ETag; anything else is none."""
    body = json.dumps(record_json("a", checksumType=kind, checksum=checksum)).encode()
    assert parse_record(body, "uk").checksum == read


def test_tags_take_every_shape() -> None:
    """A list of pairs or an object; values that are no texts become some; the last one counts."""
    tags: list[Any] = [{"key": "a", "value": 1}, {"key": "b"}, {"key": "a", "value": " x "}, 3, {}]
    assert parse_record(json.dumps(record_json(tags=tags)).encode(), "uk").tags == {
        "a": " x ",
        "b": "",
    }
    assert parse_record(json.dumps(record_json(tags={"a": True})).encode(), "uk").tags == {
        "a": "true"
    }


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2022-11-01T21:22:22", 1667337742000),
        ("2022-11-01T21:22:22Z", 1667337742000),
        ("2022-11-01 21:22:22.5", 1667337742500),
        ("2022-11-01T21:22:22.123456789Z", 1667337742123),
        ("2022-11-01T22:22:22+01:00", 1667337742000),
        ("2022-11-01T22:22:22+0100", 1667337742000),
        ("2022-11-01T20:22:22.25-01", 1667337742250),
        (" 2022-11-01T21:22 ", 1667337720000),
        (1667337742543, 1667337742543),
        ("1667337742543", 1667337742543),
        (1667337742543.0, 1667337742543),
        ("2016-12-31T23:59:60", 1483228800000),
        ("2016-12-31T23:59:60.5Z", 1483228800500),
        ("2016-12-31T24:00:00", 1483228800000),
        ("2016-12-31T24:00", 1483228800000),
        ("2017-01-01T01:59:60+02:00", 1483228800000),
        ("2022-11-01t21:22:22z", 1667337742000),
        ("2022-11-01T21:22:22,5", 1667337742500),
        ("2022-11-01T21:22:22.1234567890123456Z", 1667337742123),
        ("2022-11-01T21:22:22 UTC", 1667337742000),
        ("2022-11-01T21:22:22Z[UTC]", 1667337742000),
        ("2022-11-01T21:22:22-00:00", 1667337742000),
        ("2022-11-01T24:00:01", None),
        ("2022-11-01T21:22:61", None),
        ("2022-11-01T21:60:00", None),
        ("2022-02-30T23:59:60", None),
        ("2022-11-01", None),
        ("2022-11-01T25:00:00", None),
        ("2022-11-01T21:22:22+99:99", None),
        (True, None),
        (float("inf"), None),
        ("1667337742", None),
    ],
)
def test_times(text: object, ms: int | None) -> None:
    """ISO 8601 with and without zone and fraction (UTC without), or epoch milliseconds."""
    assert time_ms(text) == ms


@given(st.one_of(st.text(), st.floats(), st.integers(), st.booleans(), st.none(), st.binary()))
def test_small_parsers_never_raise(value: object) -> None:
    """Whatever a field holds, it is a value or None."""
    assert time_ms(value) is None or isinstance(time_ms(value), int)
    assert integer(value) is None or isinstance(integer(value), int)
    assert truth(value) in (True, False, None)


@given(st.text(alphabet=st.characters()) | st.text(alphabet="ab/.%#\\? -_"))
def test_a_valid_id_stays_in_its_place_in_a_path(text: str) -> None:
    """No separator, no escape, no dots alone."""
    if valid_id(text):
        assert not set(text) & set("/\\?#% ")
        assert text not in (".", "..")
        assert text.isascii()


@given(st.text(alphabet=st.characters(codec=None, categories=["Cs", "Lu"])))
def test_mended_text_can_be_encoded(text: str) -> None:
    """And a text that could be encoded is left alone."""
    mend_text(text).encode()
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert mend_text(text) == text


any_text = st.text(alphabet=st.characters(codec=None))
names = ["id", "content", "storedBytes", "createdTime", "tags", "key", "value", "lastPage"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(names), inner, max_size=6)
    ),
    max_leaves=20,
)


@settings(max_examples=60)
@given(json_values)
def test_any_json_is_a_page_or_malformed(value: object) -> None:
    """No other error, and what comes out is within its bounds."""
    try:
        read = parse_page(json.dumps(value).encode(), "uk")
    except Malformed:
        return
    for record in read.records:
        assert 0 <= record.size <= LARGEST_OBJECT
        assert valid_id(record.id)
        msgspec.json.decode(record.source)
    assert read.count == len(read.records) + len(read.rejected)


@settings(max_examples=60)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(record_json(), json_values)))
def test_any_field_may_hold_anything(changes: dict[str, Any]) -> None:
    """A record with any of its fields replaced is read, or set aside with one sentence."""
    read = parse_page(page(record_json("a", **changes)), "uk")
    assert len(read.records) + len(read.rejected) == 1
    for record in read.records:
        record.object_name.encode()
        "".join(record.tags.values()).encode()


plain_values = {
    "id": st.sampled_from(["a", "a-b", "é", "a/b", ".."]),
    "type": st.sampled_from(["", "voicemail", "\0", "x" * 5000]),
    "storedBytes": st.sampled_from([0, 1.0, 1.5, -1, "7", LARGEST_OBJECT, LARGEST_OBJECT + 1]),
    "createdTime": st.sampled_from(
        [
            "1989-12-31T23:59:59",
            "2200-01-01T00:00:00",
            "2200-01-01T00:00:01",
            "2024-02-30T00:00:00",
            "2024-01-01T24:00:00",
            "2024-01-01T10:60:00",
            "2024-01-01T10:00:60",
            "2024-01-01 10:00:00",
            "2024-01-01T10:00:00Z",
            "2024-01-01T10:00:00.25",
            "+024-01-01T10:00:00",
            "٢024-01-01T10:00:00",
        ]
    ),
    "updatedTime": st.sampled_from(["", None, 1667337742000, "2022-11-01T21:22:3٢"]),
    "objectState": st.sampled_from(["available", " ARCHIVED", "", None, "NEW"]),
    "mimeType": st.sampled_from(["", None, "\ud800"]),
    "objectName": st.sampled_from(["a" * 4090, "😀"]),
    "checksumType": st.sampled_from(["md5", "", None, "SHA1"]),
    "checksum": st.sampled_from(["", "x", "c03f27f4b1ca0aefea989f1c1b432d9e-12", None]),
    "tags": st.sampled_from(
        [
            [],
            None,
            {"a": "b"},
            [{"key": ""}],
            [{"key": "a"}],
            [{"value": "a"}],
            ["a"],
            [{"key": "a", "value": 1}],
            [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}],
        ]
    ),
}


@given(st.fixed_dictionaries({}, optional=plain_values), st.sets(st.sampled_from([*plain_values])))
def test_the_short_way_reads_as_the_long_one(changes: dict[str, Any], left_out: set[str]) -> None:
    """A page in the usual shape and one that goes the long way give the same records."""
    record = record_json("a", **changes)
    if not changes.keys() & left_out:
        record = {key: value for key, value in record.items() if key not in left_out}
    short = parse_page(page(record), "uk")
    long = parse_page(b"[" + page(record) + b"]", "uk")
    assert short.rejected == long.rejected
    for one, other in zip(short.records, long.records, strict=True):
        assert msgspec.structs.replace(one, source=b"") == msgspec.structs.replace(
            other, source=b""
        )


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_malformed(body: bytes) -> None:
    """As a page, as a record, as JSON; what is read as JSON can be written again."""
    for parse in (parse_page, parse_record):
        with contextlib.suppress(Malformed):
            parse(body, "uk")
    with contextlib.suppress(Malformed):
        msgspec.json.encode(decode(body, "a test"))


def test_what_is_no_json_is_not_quoted() -> None:
    """The answer may be personal or secret; one sentence says what kind of thing it is."""
    with pytest.raises(Malformed, match=r"^the answer for a test is not JSON: it is a web page$"):
        decode(b"<!DOCTYPE html><p>secret</p>", "a test")
    with pytest.raises(Malformed, match=r"of something else$"):
        decode(b"secret", "a test")
