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
"""

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum, auto

from phonofs.tree.layout import Directory, descend, named

VIEW_BIT = 1 << 55
"""Set in the inode numbers of the views' directories and links, and in no other."""

BY_AGENT, BY_DAY, BY_QUEUE, LATEST, TEXT = "by-agent", "by-day", "by-queue", "latest", "text"
TODAY, YESTERDAY = "today", "yesterday"

_TOP = (BY_AGENT, BY_DAY, BY_QUEUE, LATEST, TEXT)


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
        """Its inode number: a hash of where it is, so that it is the same in every mount."""
        text = "/".join((str(self.region), *self.path)).encode()
        return VIEW_BIT | int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 10

    @property
    def view(self) -> str:
        """The name of the view it belongs to; '' for the directory of the views."""
        return self.path[0] if self.path else ""

    @property
    def name(self) -> str:
        """The name of the last directory; '' for the directory of the views."""
        return self.path[-1] if self.path else ""


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
