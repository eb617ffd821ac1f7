"""Makes the file name of an object. Pure.

A name depends only on the object, the template and the time zone, never on other objects or on
the order of arrival, so it is the same in every mount. If two names in a directory are equal,
the catalogue asks for the next ``variant`` of one of them.
"""

import hashlib
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from difflib import get_close_matches
from functools import lru_cache

from phonofs.errors import UsageError
from phonofs.model import Record
from phonofs.tree.extensions import LONGEST, extension
from phonofs.tree.sanitize import clean, cut, is_device, visible

MAX_BYTES = 255
"""The longest name that Linux accepts (NAME_MAX), in bytes of UTF-8; one longer name fails the
whole listing."""

_ID_BYTES = 64
"""The longest id that is used unchanged, if it matches ``_PLAIN_ID``; UUIDs have 36 bytes."""

_LONGEST_VALUE = 512
"""Characters of a tag that are used; more would not fit into a name anyway."""

_LONGEST_CHARACTER = 4
"""Bytes of the longest character in UTF-8."""

_MARK_BYTES = 17
"""Bytes that the last variant adds: ``_`` and 16 hex digits."""

_PLAIN_ID = re.compile(rf"[0-9A-Za-z][0-9A-Za-z-]{{0,{_ID_BYTES - 1}}}")
_NUMBER = re.compile(r"[+(]?[0-9][0-9 ()./-]*")
_FIRST_MS, _LAST_MS = 86_400_000, 253_370_764_800_000  # 1970-01-02, 9999-01-01: fit in any zone


def first_tag(tags: dict[str, str], *keys: str) -> str:
    """Return the value of the first of these tags that is not blank, or ''."""
    for key in keys:
        if key in tags and (value := tags[key].strip()):
            return value
    return ""


def start_ms(record: Record) -> int:
    """Return the call's start: the tag ``startTime`` (epoch ms) if plausible, else the creation."""
    text = record.tags.get("startTime", "").strip()
    if text.isdecimal() and len(text) < 16 and _FIRST_MS <= (start := int(text)) < _LAST_MS:
        return start
    return min(max(record.created_ms, _FIRST_MS), _LAST_MS)


_TWO = tuple(f"{number:02d}" for number in range(60))
_HOURS_MINUTES = tuple(f"{minute // 60:02d}{minute % 60:02d}" for minute in range(1440))
_HOUR_S = 3600


def _time(record: Record, zone: tzinfo) -> str:
    second = start_ms(record) // 1000
    offset = _offset_s(zone, second // _HOUR_S)
    if offset is None:
        return datetime.fromtimestamp(second, zone).isoformat()[11:19].replace(":", "")
    second = (second + offset) % 86_400
    return _HOURS_MINUTES[second // 60] + _TWO[second % 60]


@lru_cache(maxsize=256)  # records arrive sorted by time
def _offset_s(zone: tzinfo, hour: int) -> int | None:
    """Return the UTC offset in that hour since 1970; None if it changes within the hour."""
    ends = hour * _HOUR_S, hour * _HOUR_S + _HOUR_S - 1
    first, last = (datetime.fromtimestamp(end, zone).utcoffset() for end in ends)
    return int(first.total_seconds()) if first is not None and first == last else None


_SIDES = {"INBOUND": ("callerId", "callerName"), "OUTBOUND": ("calleeId", "calleeName")}


def party(record: Record, _: tzinfo | None = None) -> str:
    """Return the other party's number, else its name; ``address`` can be either."""
    tags = record.tags
    address = tags.get("address", "").strip()
    direction = tags.get("direction", "")
    number, name = _SIDES.get(direction) or _SIDES.get(direction.strip().upper(), ("", ""))
    if _NUMBER.fullmatch(address):
        return first_tag(tags, number) or address
    return first_tag(tags, number, name) or address


def _hash(record: Record, digits: int) -> str:
    text = f"{record.region}\0{record.id}".encode(errors="surrogatepass")
    return hashlib.sha256(text).hexdigest()[:digits]


def _whole_id(record: Record, _: tzinfo) -> str:
    """Return the id, or a hash if the id does not fit into a name, so that names stay distinct."""
    return record.id if _PLAIN_ID.fullmatch(record.id) else _hash(record, 32)


def _id8(record: Record, zone: tzinfo) -> str:
    return _whole_id(record, zone)[:8]


def _tag(*keys: str) -> Callable[[Record, tzinfo], str]:
    return lambda record, _: first_tag(record.tags, *keys)


_Source = Callable[[Record, tzinfo], str]
_FIELDS: dict[str, _Source] = {
    "time": _time,
    "type": lambda record, _: record.type,
    "direction": lambda record, _: record.tags.get("direction", "").lower(),
    "name": _tag("agentName", "userName"),
    "party": party,
    "id8": _id8,
    "id": _whole_id,
}
FIELDS = tuple(_FIELDS)
"""The fields that a template may contain: those of the option ``name_template``."""

_IDS = frozenset({"id", "id8"})


def _checked(name: str, spec: str | None, conversion: str | None) -> str:
    if name in _FIELDS and not spec and not conversion:
        return name
    near = get_close_matches(name, FIELDS, n=1)
    hint = f"did you mean {{{near[0]}}}?" if near else f"there are: {', '.join(FIELDS)}."
    raise UsageError(f"name_template: there is no field {{{name}}}; {hint}")


@dataclass(frozen=True, slots=True)
class Template:
    """A checked ``name_template``.

    parts          (separator before, field) in order
    tail           the text after the last field
    frame          the template as a ``%`` format, for the usual case that no field is empty
    sources        for each part, the function that returns its value
    whole_sources  like ``sources``, with the whole id in place of ``id8``
    """

    parts: tuple[tuple[str, str], ...]
    tail: str
    frame: str
    sources: tuple[_Source, ...]
    whole_sources: tuple[_Source, ...]

    @classmethod
    def of(cls, parts: Sequence[tuple[str, str]], tail: str) -> "Template":
        """Return a template with the attributes that follow from its parts and tail."""
        names = [name for _, name in parts]
        frame = "".join(before.replace("%", "%%") + "%s" for before, _ in parts)
        return cls(
            tuple(parts),
            tail,
            frame + tail.replace("%", "%%"),
            tuple(_FIELDS[name] for name in names),
            tuple(_FIELDS["id" if name == "id8" else name] for name in names),
        )

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Parse and check a template. Raises :class:`UsageError` with the remedy if it is bad."""
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            raise UsageError(f"name_template {text!r} is not understood: {error}.") from error
        parts, text_before = [], ""
        for literal, name, spec, conversion in pieces:
            text_before += visible(literal)
            if name is not None:
                parts.append((text_before, _checked(name, spec, conversion)))
                text_before = ""
        made = cls.of(parts, text_before)
        made._demand(text)
        return made

    def _demand(self, text: str) -> None:
        ids = sum(name in _IDS for _, name in self.parts)
        if not ids:
            raise UsageError(f"name_template {text!r} must contain {{id8}} or {{id}}.")
        if "/" in text:
            raise UsageError(f"name_template {text!r} must not contain '/': it names files only.")
        fixed = len(self.tail.encode()) + sum(len(before.encode()) for before, _ in self.parts)
        if fixed + ids * _ID_BYTES + _MARK_BYTES + LONGEST + 2 > MAX_BYTES:
            raise UsageError(f"name_template {text!r} is too long to keep the id within a name.")


@lru_cache(maxsize=8)
def _template(text: str) -> Template:
    return Template.parse(text)


def _values(record: Record, template: Template, zone: tzinfo, variant: int) -> list[str]:
    """Return the cleaned value of each part; from variant 1 on, ``id8`` is the whole id."""
    values = []
    for source in template.whole_sources if variant else template.sources:
        text = source(record, zone)
        if not text.isalnum() or not text.isascii() or len(text) > _LONGEST_VALUE:
            text = clean(text[:_LONGEST_VALUE])
        values.append(text)
    return values


def _join(template: Template, values: list[str]) -> str:
    """Join the values; an empty one drops the separator before it, a leading one that after it."""
    if "" not in values:
        text = template.frame % tuple(values)
        return text if text.isascii() else visible(text)
    text, begun = template.parts[0][0], False
    for (before, _), value in zip(template.parts, values, strict=True):
        if value:
            text += before + value if begun else value
            begun = True
    text += template.tail
    return text if text.isascii() else visible(text)


def _shorten(template: Template, values: list[str], room: int) -> str:
    """Join the values and cut the longest field, never an id, until ``room`` bytes are enough.

    One cut removes at most half of a field, so that two long fields share the loss.
    """
    stem = _join(template, values)
    if len(stem) * _LONGEST_CHARACTER <= room:
        return stem
    while (over := len(stem.encode()) - room) > 0:
        sizes = [
            0 if name in _IDS else len(value.encode())
            for (_, name), value in zip(template.parts, values, strict=True)
        ]
        size, longest = max((size, index) for index, size in enumerate(sizes))
        assert size, "the template leaves room for its ids"
        values[longest] = cut(values[longest], max(size - over, size // 2))
        stem = _join(template, values)
    return stem


def file_name(record: Record, template: str, zone: tzinfo, variant: int = 0) -> str:
    """Return the file name of any record: deterministic, at most 255 bytes, NFC.

    ``variant`` 0 is the name as the template says; 1 has the whole id instead of its first 8
    characters; 2 and above also have a hash. Two objects never have the same variant 2.
    Raises :class:`UsageError` for a template that :meth:`Template.parse` rejects.
    """
    parsed = _template(template)
    ending = "." + extension(record.mime_type, record.object_name)
    if variant > 1:
        ending = f"_{_hash(record, 16)}{'' if variant == 2 else f'-{variant}'}{ending}"
    values = _values(record, parsed, zone, variant)
    stem = _shorten(parsed, values, MAX_BYTES - len(ending) - 1).lstrip("-. ")
    name = (stem + ending).lstrip("-. ")
    return "_" + name if is_device(name) else name
