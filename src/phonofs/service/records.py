"""Parses records and pages of the service leniently; one bad record never costs its page.

Pure. The vendor's documents disagree about shapes (a page is an object or an array of objects,
``storedBytes`` is a number or a string); all of them are accepted. If a field that a file needs
(id, size, creation time) cannot be read, that one record is set aside; other fields are repaired.

The service nearly always sends plain records, and a listing of 10,000 spends most of its time here:
so a record is first read in one step that repairs nothing, and only if that fails by the code that
reads any. For plain records both give the same result.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from phonofs.errors import Malformed
from phonofs.model import Page, Record, State
from phonofs.service.record_limits import (
    EARLIEST_MS,
    LARGEST_OBJECT,
    LARGEST_RECORD,
    LATEST_MS,
    LONGEST_TEXT,
    MOST_RECORDS,
    MOST_TAGS,
)
from phonofs.service.tolerant_json import decode_leniently, decode_source, mend_text

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)

_ID = re.compile(r"[!-~]{1,200}")
_ID_FORBIDS = frozenset('/\\?#%"<>')
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,30}))?)?"
    r" ?(Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?(?:\[(?:UTC|GMT|Etc/UTC)\])?",
    re.ASCII,
)
_CHECKSUM = re.compile(r"[0-9a-f]{32}(-[1-9][0-9]{0,4})?")

_PLAIN_ID = re.compile(r"[0-9A-Za-z_-]{1,200}")
_MINUTE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}")
_SIXTY = {f"{number:02d}": number * 1000 for number in range(60)}
_STATES = frozenset(map(str, State))


class _PageShape(msgspec.Struct):
    """A page as the guides show it; records stay undecoded, so that each keeps its source text."""

    content: list[msgspec.Raw]
    lastPage: Any = None
    pageKey: Any = None
    total: Any = None


class _Tag(msgspec.Struct, gc=False):
    """One element of ``tags``."""

    key: str
    value: str = ""


class _PlainShape(msgspec.Struct, gc=False):
    """The fields of a record, with the types in the vendor's examples."""

    id: str
    type: str
    storedBytes: int
    createdTime: str
    updatedTime: str
    objectState: str
    mimeType: str = ""
    objectName: str = ""
    checksumType: str = ""
    checksum: str = ""
    customerId: str | None = ""
    tags: list[_Tag] = []


_DECODER = msgspec.json.Decoder(_PlainShape)


class _Odd(ValueError):
    """The reason why one record cannot be used."""


def parse_page(body: bytes, region: str) -> Page:
    """Return the page in the response to a search. Raises Malformed if it is not a page."""
    try:
        shape = msgspec.json.decode(body, type=_PageShape)
    except (msgspec.MsgspecError, RecursionError):
        return _lenient_page(body, region)
    _check_count(shape.content)
    return _page((bytes(raw) for raw in shape.content), region, shape)


def parse_record(body: bytes, region: str) -> Record:
    """Return the record in the response for one object, or in a list of one. Raises Malformed."""
    record = _plain_record(body, region)
    if record is not None:
        return record
    value, source = decode_source(body, "an object")
    if isinstance(value, list) and len(value) == 1:
        value, source = value[0], None
    try:
        return _record(value, source, region)
    except _Odd as odd:
        raise Malformed(f"the record of an object cannot be used: {odd}") from None


def time_ms(value: object) -> int | None:
    """Return epoch ms from an ISO 8601 time (UTC if it has no zone) or epoch ms; None if neither.

    Records hold ISO times without a zone, in UTC; filters and tags hold epoch milliseconds.
    """
    number = integer(value)
    if number is None and isinstance(value, str) and (match := _TIME.fullmatch(value.strip())):
        number = _iso_ms(*match.groups())
    return number if number is not None and EARLIEST_MS <= number <= LATEST_MS else None


def integer(value: object) -> int | None:
    """Return the integer that a number or a string represents, else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        return int(text) if re.fullmatch(r"[+-]?\d{1,20}", text, re.ASCII) else None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else None
    return value if isinstance(value, int) else None


def truth(value: object) -> bool | None:
    """Return the boolean that a boolean or a string represents, else None."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def valid_id(value: str) -> bool:
    """Return whether an id can be part of a URL path: printable ASCII without separators."""
    return bool(_ID.fullmatch(value)) and not _ID_FORBIDS & set(value) and value not in (".", "..")


def _plain_record(source: bytes, region: str) -> Record | None:
    """Return the record in ``source`` in one step; None if it is not plain."""
    if len(source) > LONGEST_TEXT:  # below it no text is too long, and tags are not too many
        return None
    try:
        shape = _DECODER.decode(source)
        created_ms = updated_ms = _plain_time_ms(shape.createdTime)
        if shape.updatedTime != shape.createdTime:
            updated_ms = _plain_time_ms(shape.updatedTime)
    except (msgspec.MsgspecError, ValueError, KeyError, RecursionError):
        return None
    if not (
        shape.type
        and 0 <= shape.storedBytes <= LARGEST_OBJECT
        and shape.objectState in _STATES
        and shape.checksumType in ("MD5", "")
        and _PLAIN_ID.fullmatch(shape.id)
        and (not shape.checksum or _CHECKSUM.fullmatch(shape.checksum))
    ):
        return None
    return Record(  # positional arguments take half of the time, a tenth of parsing a record
        shape.id,
        region,
        shape.type,
        shape.mimeType,
        shape.objectName,
        shape.storedBytes,
        created_ms,
        updated_ms,
        shape.objectState,
        shape.checksum,
        {tag.key: tag.value for tag in shape.tags if tag.key},
        source,
        shape.customerId or "",
    )


def _plain_time_ms(text: str) -> int:
    """Return epoch ms of a UTC time such as ``2022-11-01T21:22:22``.

    Raises ValueError or KeyError for any other form.
    """
    if len(text) != 19 or text[16] != ":":
        raise ValueError(text)
    found = _minute_ms(text[:16]) + _SIXTY[text[17:]]
    if not EARLIEST_MS <= found <= LATEST_MS:
        raise ValueError(text)
    return found


@lru_cache(maxsize=1024)  # records come sorted by time
def _minute_ms(text: str) -> int:
    if not _MINUTE.fullmatch(text):
        raise ValueError(text)
    return int(datetime.fromisoformat(f"{text}:00+00:00").timestamp()) * 1000


def _lenient_page(body: bytes, region: str) -> Page:
    value = decode_leniently(body, "a search")
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, dict) for part in parts):
        raise Malformed("the answer to a search is not a page of objects")
    if parts and all("content" not in part and "id" in part for part in parts):
        parts = [{"content": parts}]
    records: list[Any] = []
    for part in parts:
        content = part.get("content", [] if "lastPage" in part else None)
        if not isinstance(content, list):
            raise Malformed("the answer to a search is not a page of objects")
        records += content
    _check_count(records)
    end = parts[-1] if parts else {}
    shape = _PageShape([], end.get("lastPage"), end.get("pageKey"), end.get("total"))
    return _page(records, region, shape)


def _check_count(found: Sequence[Any]) -> None:
    if len(found) > MOST_RECORDS:
        raise Malformed(f"a page holds more than {MOST_RECORDS} records")


def _page(found: Iterable[Any], region: str, shape: _PageShape) -> Page:
    """``found``: the source text of each record, or its value if the text had to be repaired."""
    records, rejected = [], []
    for each in found:
        try:
            records.append(_one(each, region))
        except (_Odd, Malformed) as odd:
            rejected.append(str(odd))
    count = len(records) + len(rejected)
    last = truth(shape.lastPage)
    return Page(
        records=records,
        count=count,
        last=count == 0 if last is None else last,
        next_key=_counted(shape.pageKey),
        total=_counted(shape.total),
        rejected=rejected,
    )


def _one(each: Any, region: str) -> Record:
    """Return the record of a page from its source text, or from its value."""
    if not isinstance(each, bytes):
        return _record(each, None, region)
    if len(each) > LARGEST_RECORD:
        raise _Odd(f"a record was set aside: it is larger than {LARGEST_RECORD} bytes")
    record = _plain_record(each, region)
    if record is not None:
        return record
    return _record(*decode_source(each, "a record (set aside)"), region)


def _record(value: Any, source: bytes | None, region: str) -> Record:
    if not isinstance(value, dict):
        raise _Odd("a record that is not an object was set aside")
    identity = value.get("id")
    identity = str(identity) if isinstance(identity, int | str) else ""
    if not valid_id(identity):
        raise _Odd("a record without a usable id was set aside")
    size = integer(value.get("storedBytes"))
    if size is None or not 0 <= size <= LARGEST_OBJECT:
        raise _Odd(f"object {identity} was set aside: storedBytes is missing or out of bounds")
    created_ms = time_ms(value.get("createdTime"))
    if created_ms is None:
        raise _Odd(f"object {identity} was set aside: createdTime is missing or out of bounds")
    source = _encode(value) if source is None else source
    if len(source) > LARGEST_RECORD:
        raise _Odd(f"object {identity} was set aside: its record is larger than {LARGEST_RECORD}")
    updated_ms = time_ms(value.get("updatedTime"))
    return Record(
        id=identity,
        region=region,
        type=_text(value.get("type")) or "object",
        mime_type=_text(value.get("mimeType")),
        object_name=_text(value.get("objectName")),
        size=size,
        created_ms=created_ms,
        updated_ms=created_ms if updated_ms is None else updated_ms,
        state=_state(value.get("objectState")),
        checksum=_checksum(value),
        tags=_tags(value.get("tags")),
        source=source,
        customer=_text(value.get("customerId")),
    )


def _state(value: object) -> str:
    """Return the state; AVAILABLE if there is none, the state a search returns by default."""
    return State.AVAILABLE if value is None else _text(value).strip().upper()


def _checksum(value: dict[str, Any]) -> str:
    kind = _text(value.get("checksumType")).strip().upper()
    checksum = _text(value.get("checksum")).strip().strip('"').lower()
    return checksum if kind in ("", "MD5") and _CHECKSUM.fullmatch(checksum) else ""


def _tags(value: object) -> dict[str, str]:
    if isinstance(value, dict):
        pairs: list[tuple[object, object]] = list(value.items())
    elif isinstance(value, list):
        pairs = [(tag.get("key"), tag.get("value")) for tag in value if isinstance(tag, dict)]
    else:
        pairs = []
    return {key: _text(item) for key, item in pairs[:MOST_TAGS] if isinstance(key, str) and key}


def _text(value: object) -> str:
    if isinstance(value, str):
        return mend_text(value[:LONGEST_TEXT])
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else ""


def _iso_ms(
    day: str, minute: str, second: str | None, fraction: str | None, zone: str | None
) -> int | None:
    """Return epoch ms, or None if the time does not exist.

    A leap second (``23:59:60``) is the first second of the next minute, as in POSIX time;
    ``24:00`` is the end of the day (ISO 8601).
    """
    zone = "+00:00" if zone in (None, "Z", "z", "UTC", "GMT") else zone
    seconds = int(second or 0)
    days = 1 if minute == "24:00" and not seconds else 0
    if seconds > 60:
        return None
    try:
        moment = datetime.fromisoformat(f"{day}T{'00:00' if days else minute}{zone}")
        moment += timedelta(days=days, seconds=seconds)
        return (moment - _EPOCH) // _MS + int((fraction or "").ljust(3, "0")[:3])
    except (ValueError, OverflowError):
        return None


def _counted(value: object) -> int | None:
    number = integer(value)
    return number if number is not None and 0 <= number < 2**53 else None


def _encode(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError, OverflowError):
        raise _Odd("a record that cannot be written down was set aside") from None
