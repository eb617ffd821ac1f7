"""Divides the views of a region into directories, and gives each its inode number. Pure.

::

    by-day/DAY/             all calls of a day
    by-agent/SPAN/NAME/     the calls of an agent in a year, a month or a day
    by-queue/SPAN/NAME/     those of a queue
    text/YEAR/MONTH/DAY/    texts only, in the same directories as in the date tree
    latest/                 the newest recordings
    today, yesterday        links to the days of the date tree

Time comes first and the name second, because a span of time can be listed whole. A place knows what
may be in it, not whether it is there.

An inode number says which view it belongs to and which span of time it is about, so that a place
can be found by its number alone: a server of NFS keeps numbers over a remount. Of the name of an
agent or a queue the number has a hash of 21 bits, to be compared with the names of the span.
"""

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum, auto

from phonofs.tree.layout import Directory, descend, directory_of, named

VIEW_BIT = 1 << 55
"""Set in the inode numbers of the views' directories and links, and in no other."""

BY_AGENT, BY_DAY, BY_QUEUE, LATEST, TEXT = "by-agent", "by-day", "by-queue", "latest", "text"
TODAY, YESTERDAY = "today", "yesterday"

_TOP = (BY_AGENT, BY_DAY, BY_QUEUE, LATEST, TEXT)

_NUMBERED = ("", BY_AGENT, BY_DAY, BY_QUEUE, LATEST, TEXT, TODAY, YESTERDAY)
"""The views by number, which stands in inode numbers for ever; the first is the top of all."""

_SPAN_SHIFT = 21
_VIEW_SHIFT = _SPAN_SHIFT + 31
"""From which bit on an inode number has that of a directory of the date tree, and the view."""

_HASHES = (1 << _SPAN_SHIFT) - 1
"""The most numbers of names; 0 stands for no name."""


class Lists(Enum):
    """What a place lists."""

    VIEWS = auto()
    DAYS = auto()
    MONTHS = auto()
    DATES = auto()
    NAMES = auto()
    CALLS = auto()
    TEXTS = auto()
    NEWEST = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True)
class Place:
    """A directory or a link of the views.

    region  index of the region
    path    the names of the directories that lead to it, from that of the views on
    lists   what is in it; NOTHING if it is a link
    span    the time it is about; the region if it is about all time
    """

    region: int
    path: tuple[str, ...]
    lists: Lists
    span: Directory

    @property
    def ino(self) -> int:
        """Its inode number, the same in every mount, but for names that have the same hash."""
        number = name_number(self.name) if self.is_named else 0
        of_view = _NUMBERED.index(self.view) << _VIEW_SHIFT
        return VIEW_BIT | of_view | self.span.ino << _SPAN_SHIFT | number

    @property
    def is_named(self) -> bool:
        """Whether it is an agent's or a queue's."""
        return len(self.path) == 3 and self.view in (BY_AGENT, BY_QUEUE)

    @property
    def view(self) -> str:
        """The name of the view it belongs to; '' for the directory of the views."""
        return self.path[0] if self.path else ""

    @property
    def name(self) -> str:
        """The name of the last directory; '' for the directory of the views."""
        return self.path[-1] if self.path else ""


def name_number(name: str) -> int:
    """Return the number that an agent's or a queue's name has in an inode number: from 1 on."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest) % _HASHES + 1


def next_ino(ino: int) -> int:
    """Return the inode number for another name of the same span that has the same hash."""
    number = ino & _HASHES
    return ino - number + number % _HASHES + 1


def decoded(ino: int) -> tuple[Place, int] | None:
    """Return what an inode number says: a place, and the number of a name in it, or 0 for none.

    None if no place can have it.
    """
    rest, number = ino - VIEW_BIT, ino & _HASHES
    if not 0 <= rest < VIEW_BIT:
        return None
    span = directory_of(rest >> _SPAN_SHIFT & (1 << _VIEW_SHIFT - _SPAN_SHIFT) - 1)
    if span is None:
        return None
    view = _NUMBERED[rest >> _VIEW_SHIFT]
    place = _of_span(views_of(span.region), view, span) if view else views_of(span.region)
    if place is None or place.ino + number != ino or (number and place.lists is not Lists.NAMES):
        return None
    return place, number


def _of_span(views: Place, view: str, span: Directory) -> Place | None:
    """Return the directory of a view that is about a span; None if there can be none."""
    found = child(views, view)
    if view == TEXT:
        names = [name for name in (span.name[:4], span.name[:7], span.name) if name]
        below = sorted(set(names))
    else:
        below = [span.name] if span.year else []
    for name in below:
        found = child(found, name) if found is not None else None
    return found


def views_of(region: int) -> Place:
    """Return the directory of a region's views."""
    return Place(region, (), Lists.VIEWS, Directory(region))


def top_places(views: Place) -> list[Place]:
    """Return what the directory of the views lists, by name."""
    return [found for name in (*_TOP, TODAY, YESTERDAY) if (found := child(views, name))]


def above(place: Place) -> Place:
    """Return the directory that holds a place; that of the views holds itself."""
    found = views_of(place.region)
    for name in place.path[:-1]:
        found = child(found, name) or found
    return found


def child(place: Place, name: str) -> Place | None:
    """Return the directory or link ``name`` in a place; None if there can be none."""
    path = (*place.path, name)
    match place.lists:
        case Lists.VIEWS:
            return _top(place, name)
        case Lists.DAYS:
            span = span_of(place.region, name)
            return Place(place.region, path, Lists.CALLS, span) if span and span.day else None
        case Lists.MONTHS:
            span = span_of(place.region, name)
            return Place(place.region, path, Lists.NAMES, span) if span else None
        case Lists.NAMES:
            return Place(place.region, path, Lists.CALLS, place.span)
        case Lists.DATES:
            span = named(place.span, name)
            lists = Lists.TEXTS if span and span.day else Lists.DATES
            return Place(place.region, path, lists, span) if span else None
    return None


def _top(views: Place, name: str) -> Place | None:
    lists = {
        BY_AGENT: Lists.MONTHS,
        BY_DAY: Lists.DAYS,
        BY_QUEUE: Lists.MONTHS,
        LATEST: Lists.NEWEST,
        TEXT: Lists.DATES,
        TODAY: Lists.NOTHING,
        YESTERDAY: Lists.NOTHING,
    }.get(name)
    return Place(views.region, (name,), lists, views.span) if lists else None


def span_of(region: int, name: str) -> Directory | None:
    """Return the year, month or day with this name, such as ``2026-11``; None if it is none."""
    above = (name[:length] for length in (4, 7, 10) if length <= len(name))
    found = descend(Directory(region), above)
    return found if found is not None and found.name == name else None


def link_target(place: Place, today: date) -> str:
    """Return where ``today`` or ``yesterday`` leads, from the directory of the views."""
    day = today if place.name == TODAY else today - timedelta(days=1)
    return f"../{day.year:04d}/{day:%Y-%m}/{day.isoformat()}"
