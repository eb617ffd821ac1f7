"""What a search looks at in a record: who, with which number, when, for how long. Pure."""

import re
from collections.abc import Mapping

import msgspec

from phonofs.model import Record
from phonofs.tree.naming import first_tag, start_ms
from phonofs.tree.sanitize import clean

NUMBER_TAGS = ("address", "callerId", "calleeId")
"""The tags that may hold a phone number; ``address`` may hold a name instead."""

LONGEST = 512
"""Characters of a tag that are looked at, as in file names."""

_NUMBER = re.compile(r"[+(]?[0-9][0-9 ()./-]*")
_DURATION = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_DIRECTIONS = {"INBOUND": "in", "OUTBOUND": "out"}

_SLOWEST, _FASTEST = 4_000, 512_000
"""Bits per second of plausible audio: from the slowest speech codec to more than CD-quality MP3."""

_SECONDS_TYPES = frozenset({"transcription"})
"""Types whose ``duration`` is in seconds in the vendor's examples; that of the others is in ms."""


class Facets(msgspec.Struct, frozen=True, gc=False):
    """What a search decides on.

    type         the object's type
    agent        name of the agent or user, as a file name shows it; '' if there is none
    queue        name of the queue, likewise
    call         ``callId``, '' if there is none
    numbers      the digits of the phone numbers of both sides
    direction    ``in``, ``out`` or ''
    start_ms     when the call began (epoch ms)
    duration_ms  its length; None if it is not known
    """

    type: str
    agent: str
    queue: str
    call: str
    numbers: tuple[str, ...]
    direction: str
    start_ms: int
    duration_ms: int | None


def facets_of(record: Record) -> Facets:
    """Return the facets of any record."""
    tags = record.tags
    return Facets(
        record.type,
        clean(first_tag(tags, "agentName", "userName")[:LONGEST]),
        clean(first_tag(tags, "queueName")[:LONGEST]),
        first_tag(tags, "callId")[:LONGEST],
        numbers_of(tags),
        _DIRECTIONS.get(tags.get("direction", "").strip().upper(), ""),
        start_ms(record),
        duration_ms(record),
    )


def numbers_of(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return the digits of each phone number in the tags, each once."""
    texts = {tags[key].strip() for key in NUMBER_TAGS if key in tags}
    numbers = (text for text in texts if len(text) <= LONGEST and _NUMBER.fullmatch(text))
    return tuple(sorted({digits_of(text) for text in numbers}))


def digits_of(text: str) -> str:
    """Return the digits of a phone number."""
    return text.lstrip("+") if text.lstrip("+").isdecimal() else re.sub(r"[^0-9]", "", text)


def duration_ms(record: Record) -> int | None:
    """Return the length of a recording or call in ms, or None.

    The unit of the tag ``duration`` is in doubt: milliseconds in most of the vendor's examples,
    seconds in a transcript's and on one page for the contact centre. So it is compared with the
    time from ``startTime`` to ``endTime``, or else with the size: audio has between 4 and 512 kbit
    a second.
    """
    tags = record.tags
    between = _between_ms(tags)
    text = tags.get("duration", "").strip()
    if not _DURATION.fullmatch(text):
        return between
    number = float(text)
    if not number:
        return between or 0
    as_ms, as_s = number, number * 1000
    if between is not None:
        return round(as_ms if abs(as_ms - between) <= abs(as_s - between) else as_s)
    if record.mime_type.startswith("audio/") and record.size:
        plausible = [ms for ms in (as_ms, as_s) if _plausible(record.size, ms)]
        if len(plausible) == 1:
            return round(plausible[0])
    return round(as_s if record.type in _SECONDS_TYPES else as_ms)


def _plausible(size: int, duration: float) -> bool:
    return _SLOWEST <= size * 8000 / duration <= _FASTEST


def _between_ms(tags: Mapping[str, str]) -> int | None:
    """Return the time from ``startTime`` to ``endTime``, or None."""
    began, ended = epoch_ms(tags.get("startTime")), epoch_ms(tags.get("endTime"))
    return ended - began if began is not None and ended is not None and ended > began else None


def epoch_ms(text: str | None) -> int | None:
    """Return the time that a tag has, in ms; None if it has none."""
    text = text.strip() if text else ""
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 16 else None
