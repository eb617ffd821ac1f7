"""What a search asks for, and whether an object matches. Pure."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from typing import Annotated

import msgspec

from phonofs.search.facets import LONGEST, Facets
from phonofs.tree.sanitize import clean, visible

FEWEST_DIGITS = 6
"""A phone number with at least this many digits also matches the end of a longer one."""


LONGEST_ASKED = 1000
"""Characters of a text that is asked for; a mount takes no longer one from any user."""

MOST_ASKED = 100
"""Types, and tags, of one search: its line in the journal has a hash of each."""

_Text = Annotated[str, msgspec.Meta(max_length=LONGEST_ASKED)]
_Digits = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{0,50}\Z")]
_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class Condition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What objects must be like; all of it must hold, and an empty field holds for all.

    agent, queue   names, as file names show them; case does not count, ``*`` stands for any text
    call           ``callId``
    number         digits of a phone number of either side
    types          object types, of which one must be it; case does not count
    direction      ``in`` or ``out``
    longer_ms, shorter_ms  the duration must be more, or less; an unknown one is neither
    tags           tags and their values; case does not count, ``*`` stands for any text
    since, until   the first and the last day folder
    region         the region

    A mount gets it from other users too: the types say what is not understood.
    """

    agent: _Text = ""
    queue: _Text = ""
    call: _Text = ""
    number: _Digits = ""
    types: Annotated[tuple[_Text, ...], msgspec.Meta(max_length=MOST_ASKED)] = ()
    direction: _Text = ""
    longer_ms: _Milliseconds | None = None
    shorter_ms: _Milliseconds | None = None
    tags: Annotated[dict[str, _Text], msgspec.Meta(max_length=MOST_ASKED)] = msgspec.field(
        default_factory=dict
    )
    since: date | None = None
    until: date | None = None
    region: _Text = ""

    def words(self) -> list[str]:
        """Return what is asked for, as ``agent=jo*``, a text for each value."""
        asked = msgspec.to_builtins(self)
        found = [f"tag.{key}={value.casefold()}" for key, value in asked.pop("tags", {}).items()]
        for name, value in asked.items():
            values = value if isinstance(value, list | tuple) else [value]
            found += [f"{name}={str(each).casefold()}" for each in values]
        return found

    def accepts(self, facets: Facets) -> bool:
        """Return whether an object with these facets matches, its day, region and tags apart."""
        return (
            (not self.agent or matches(self.agent, facets.agent))
            and (not self.queue or matches(self.queue, facets.queue))
            and (not self.call or self.call == facets.call)
            and (not self.number or any(_is_end(self.number, full) for full in facets.numbers))
            and (not self.types or self.is_type(facets.type))
            and (not self.direction or self.direction == facets.direction)
            and self._lasts(facets.duration_ms)
        )

    def is_type(self, type: str) -> bool:
        """Return whether an object type is one of those asked for."""
        return type.casefold() in map(str.casefold, self.types)

    def _lasts(self, duration_ms: int | None) -> bool:
        if self.longer_ms is None and self.shorter_ms is None:
            return True
        return (
            duration_ms is not None
            and (self.longer_ms is None or duration_ms > self.longer_ms)
            and (self.shorter_ms is None or duration_ms < self.shorter_ms)
        )

    def accepts_tags(self, tags: Mapping[str, str]) -> bool:
        """Return whether the tags of a record match."""
        return all(
            key in tags and matches(pattern, tags[key][:LONGEST])
            for key, pattern in self.tags.items()
        )


def matches(pattern: str, text: str) -> bool:
    """Return whether a text matches a pattern: without case, compared as file names show both.

    ``*`` stands for any text. ``Alex Wilber`` and ``alex-wilber`` are the same. No regular
    expression is used: with some stars it would take hours for a long name.
    """
    first, *others = _parts(pattern)
    folded = _folded(text)
    if not others:
        return first == folded
    *between, last = others
    at, stop = len(first), len(folded) - len(last)
    if at > stop or not (folded.startswith(first) and folded.endswith(last)):
        return False
    for part in between:
        at = folded.find(part, at, stop) + len(part)
        if at < len(part):
            return False
    return True


def _is_end(number: str, full: str) -> bool:
    return full == number or (len(number) >= FEWEST_DIGITS and full.endswith(number))


@lru_cache(maxsize=4096)  # names of agents and queues repeat
def _folded(text: str) -> str:
    return _fold(clean(text))


@lru_cache(maxsize=64)
def _parts(pattern: str) -> tuple[str, ...]:
    """Return what stands between the stars of a pattern."""
    if "*" not in pattern:
        return (_folded(pattern),)
    # The edges of a part between two stars count: "Jo *" is not "Jo*".
    return tuple(re.sub("-{2,}", "-", _fold(visible(part))) for part in pattern.split("*"))


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold())
