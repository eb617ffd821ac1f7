"""Divides time into directories and gives each its permanent inode number. Pure.

A day is the time between two midnights of a time zone: 24 hours, 23 or 25 if the clocks change,
none if the zone skipped that day. Days do not overlap and leave no gaps. If the clocks go back
across midnight, the day begins at the first of the two midnights.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

ROOT = 1
"""FUSE's inode number of the root of a mount."""

FIRST_OBJECT_INO = 1 << 31
"""The first inode number of an object; directories have lower ones, so the two never collide."""

MAX_REGIONS = 255
"""The most regions that the inode numbers have room for; the service has about six."""

FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(9998, 12, 31)
"""The first and the last day with a directory; objects outside go into the nearest one."""

_WEEK_S = 7 * 86_400
"""Less than the time between two offset changes of any zone.

The closest are those around Ramadan in Morocco, a month apart.
"""

_RULES_FROM_S = int(datetime(1995, 1, 1, tzinfo=UTC).timestamp())
_RULES_UNTIL_S = int(datetime(2040, 1, 1, tzinfo=UTC).timestamp())

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CACHED_DAYS = 20_000
"""The most midnights that a calendar caches: 50 years, 1 MB."""


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory of the tree: a region (no year), a year, a month or a day.

    region  index of the region in the order of first sight, from 0
    year, month, day  0 if the directory is above that level
    """

    region: int
    year: int = 0
    month: int = 0
    day: int = 0

    @property
    def ino(self) -> int:
        """The inode number: region, year, month and day in one integer below 2**31."""
        return (self.region + 1) << 23 | self.year << 9 | self.month << 5 | self.day

    @property
    def parent(self) -> "Directory | None":
        """The parent directory; None for a region."""
        if self.day:
            return Directory(self.region, self.year, self.month)
        if self.month:
            return Directory(self.region, self.year)
        return Directory(self.region) if self.year else None

    @property
    def name(self) -> str:
        """The full date, such as ``2024``, ``2024-09`` or ``2024-09-17``; '' for a region."""
        if self.day:
            return f"{self.year:04d}-{self.month:02d}-{self.day:02d}"
        if self.month:
            return f"{self.year:04d}-{self.month:02d}"
        return f"{self.year:04d}" if self.year else ""

    @property
    def first_day(self) -> date:
        """The first day in this directory."""
        return date(self.year or FIRST_DAY.year, self.month or 1, self.day or 1)

    @property
    def stop_day(self) -> date:
        """The first day after this directory."""
        if self.day:
            return self.first_day + timedelta(days=1)
        if self.month == 12 or not self.month:
            return date(self.year + 1 if self.year else LAST_DAY.year + 1, 1, 1)
        return date(self.year, self.month + 1, 1)

    def at(self, day: date) -> "Directory":
        """Return the child directory that contains ``day``; a day directory returns itself."""
        if not self.year:
            return Directory(self.region, day.year)
        if not self.month:
            return Directory(self.region, day.year, day.month)
        return Directory(self.region, day.year, day.month, day.day)


def is_directory(ino: int) -> bool:
    """Return whether ``ino`` belongs to a directory (or the root) and not to an object."""
    return ino < FIRST_OBJECT_INO


def directory_of(ino: int) -> Directory | None:
    """Return the directory with an inode number; None for the root, an object or a wrong one."""
    region, year = (ino >> 23) - 1, ino >> 9 & 0x3FFF
    month, day = ino >> 5 & 0xF, ino & 0x1F
    if not (0 <= region < MAX_REGIONS and ino < FIRST_OBJECT_INO):
        return None
    made = Directory(region, year, month, day)
    return made if _exists(made) else None


def _exists(made: Directory) -> bool:
    if (made.day and not made.month) or (made.month and not made.year):
        return False
    try:
        return made.first_day <= LAST_DAY
    except ValueError:
        return False


def named(parent: Directory, name: str) -> Directory | None:
    """Return the directory called ``name`` in ``parent``; None if there can be none."""
    if parent.day or len(name) != (4, 7, 10)[bool(parent.year) + bool(parent.month)]:
        return None
    numbers = name.split("-")
    if len(numbers) > 3 or not all(part.isascii() and part.isdecimal() for part in numbers):
        return None
    found = Directory(parent.region, *map(int, numbers))
    return found if found.name == name and found.parent == parent and _exists(found) else None


def descend(top: Directory, names: Iterable[str]) -> Directory | None:
    """Return the directory to which these names lead from ``top``; None if there can be none."""
    found: Directory | None = top
    for name in names:
        found = named(found, name) if found is not None else None
    return found


def day_directory(region: int, day: date) -> Directory:
    """Return the directory of a day."""
    return Directory(region, day.year, day.month, day.day)


def rules_of(zone: tzinfo) -> str:
    """Return a hash of a zone's offset changes: a zone can change its rules but keep its name.

    Covers 1995 to 2040: the years in which recordings can have been made, and the next few, whose
    rules are announced long before. Takes 5 ms.
    """
    digest = hashlib.blake2b(digest_size=8)
    last_s = _RULES_FROM_S
    offset = _offset_s(zone, last_s)
    digest.update(f"{offset}".encode())
    for now_s in range(last_s + _WEEK_S, _RULES_UNTIL_S, _WEEK_S):
        if (after := _offset_s(zone, now_s)) != offset:
            first, second = last_s, now_s
            while first + 1 < second:
                middle = (first + second) // 2
                changed = _offset_s(zone, middle) != offset
                first, second = (first, middle) if changed else (middle, second)
            digest.update(f" {second}:{after}".encode())
            offset = after
        last_s = now_s
    return digest.hexdigest()


def _offset_s(zone: tzinfo, instant_s: int) -> int:
    return int((datetime.fromtimestamp(instant_s, zone).utcoffset() or timedelta()).total_seconds())


class Calendar:
    """Converts between the days of one time zone and instants.

    Owns a bounded cache of midnights (date to UTC epoch ms), and the last day found: records
    arrive sorted, so the next one is usually of the same day.
    """

    def __init__(self, zone: tzinfo) -> None:
        self.zone = zone
        self._starts: dict[date, int] = {}
        self._last = (0, 0, FIRST_DAY)

    def start_ms(self, day: date) -> int:
        """Return the start of ``day`` in UTC epoch ms; it ends when the next day starts."""
        found = self._starts.get(day)
        if found is None:
            if len(self._starts) >= _CACHED_DAYS:
                self._starts.clear()
            found = self._starts[day] = self._midnight(day)
        return found

    def _midnight(self, day: date) -> int:
        """Return the first midnight of ``day``, or the first instant after it if it was skipped."""
        naive = datetime(day.year, day.month, day.day, tzinfo=self.zone)
        first, second = sorted(self._instant_s(naive.replace(fold=fold)) for fold in (0, 1))
        if self._date_of(first) >= day:
            return first * 1000
        while first + 1 < second:  # midnight was skipped: the clock went forward across it
            middle = (first + second) // 2
            first, second = (first, middle) if self._date_of(middle) >= day else (middle, second)
        return second * 1000

    def _instant_s(self, local: datetime) -> int:
        offset = local.utcoffset() or timedelta()
        return int((local.replace(tzinfo=UTC) - offset - _EPOCH).total_seconds())

    def _date_of(self, instant_s: int) -> date:
        return (_EPOCH + timedelta(seconds=instant_s)).astimezone(self.zone).date()

    def day_of(self, created_ms: int) -> date:
        """Return the day of an instant (UTC epoch ms); works for any instant."""
        start, stop, day = self._last
        if start <= created_ms < stop:
            return day
        day = self._near(created_ms)
        while day > FIRST_DAY and created_ms < self.start_ms(day):
            day -= timedelta(days=1)
        while day < LAST_DAY and created_ms >= self.start_ms(day + timedelta(days=1)):
            day += timedelta(days=1)
        self._last = (self.start_ms(day), self.start_ms(day + timedelta(days=1)), day)
        return day

    def _near(self, created_ms: int) -> date:
        limit = (LAST_DAY - FIRST_DAY).days * 86_400
        local = self._date_of(min(max(created_ms // 1000, 86_400), limit))
        return min(max(local, FIRST_DAY), LAST_DAY)

    def span_ms(self, of: Directory) -> tuple[int, int]:
        """Return ``[start, stop)`` of a directory in UTC epoch ms; a region spans all time."""
        if not of.year:
            return 0, self.start_ms(LAST_DAY)
        return self.start_ms(of.first_day), self.start_ms(of.stop_day)

    def parts(self, of: Directory, start_ms: int, stop_ms: int) -> list[Directory]:
        """Return the children of ``of`` that overlap ``[start_ms, stop_ms)``, in order."""
        first, stop = self.span_ms(of)
        start_ms, stop_ms = max(start_ms, first), min(stop_ms, stop)
        if of.day or start_ms >= stop_ms:
            return []
        parts, day, last = [], self.day_of(start_ms), self.day_of(stop_ms - 1)
        while day <= last:
            part = of.at(day)
            parts.append(part)
            day = part.stop_day
        return [part for part in parts if self.span_ms(part)[0] < self.span_ms(part)[1]]
