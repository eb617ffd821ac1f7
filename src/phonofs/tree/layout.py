"""How time is divided into folders, and the permanent inode number of each. Pure.

A day is the stretch between two midnights of a time zone: 24 hours, 23 or 25 where the clocks
change, none where a zone skipped it. Days are complete and disjoint; they follow one another
without a gap, also where a clock goes back across midnight: a day begins the first time its
midnight strikes.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

ROOT = 1
"""FUSE's number for the root of a mount."""

FIRST_OBJECT_INO = 1 << 31
"""Objects are numbered from here; folders lie below, so that the two never meet."""

MAX_REGIONS = 255
"""As many as the folder numbers have room for; the service has about six."""

FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(9998, 12, 31)
"""The days there are folders for; what lies outside is put into the nearest."""

_WEEK_S = 7 * 86_400
"""Two changes of a zone are further apart: the shortest are the months of Ramadan in Morocco."""

_RULES_FROM_S = int(datetime(1995, 1, 1, tzinfo=UTC).timestamp())
_RULES_UNTIL_S = int(datetime(2040, 1, 1, tzinfo=UTC).timestamp())

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CACHED_DAYS = 20_000
"""Midnights remembered by a calendar: 50 years, 1 MB."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of the tree: a region (no year), a year, a month or a day.

    region  index of the region in the order of first sight, from 0
    year, month, day  0 where the folder is above that level
    """

    region: int
    year: int = 0
    month: int = 0
    day: int = 0

    @property
    def ino(self) -> int:
        """Its inode number: region, year, month and day side by side (below 2**31)."""
        return (self.region + 1) << 23 | self.year << 9 | self.month << 5 | self.day

    @property
    def parent(self) -> "Folder | None":
        """The folder above, None above a region."""
        if self.day:
            return Folder(self.region, self.year, self.month)
        if self.month:
            return Folder(self.region, self.year)
        return Folder(self.region) if self.year else None

    @property
    def name(self) -> str:
        """``2024``, ``2024-09``, ``2024-09-17``: it stands alone. Empty for a region."""
        if self.day:
            return f"{self.year:04d}-{self.month:02d}-{self.day:02d}"
        if self.month:
            return f"{self.year:04d}-{self.month:02d}"
        return f"{self.year:04d}" if self.year else ""

    @property
    def first_day(self) -> date:
        """Its first day."""
        return date(self.year or FIRST_DAY.year, self.month or 1, self.day or 1)

    @property
    def stop_day(self) -> date:
        """The first day after it."""
        if self.day:
            return self.first_day + timedelta(days=1)
        if self.month == 12 or not self.month:
            return date(self.year + 1 if self.year else LAST_DAY.year + 1, 1, 1)
        return date(self.year, self.month + 1, 1)

    def at(self, day: date) -> "Folder":
        """The folder one level below this one that holds ``day`` (a day folder: itself)."""
        if not self.year:
            return Folder(self.region, day.year)
        if not self.month:
            return Folder(self.region, day.year, day.month)
        return Folder(self.region, day.year, day.month, day.day)


def is_folder(ino: int) -> bool:
    """Whether ``ino`` belongs to a folder (the root among them) and not to an object."""
    return ino < FIRST_OBJECT_INO


def folder(ino: int) -> Folder | None:
    """The folder of an inode number; None for the root, an object's, or one that never was."""
    region, year = (ino >> 23) - 1, ino >> 9 & 0x3FFF
    month, day = ino >> 5 & 0xF, ino & 0x1F
    if not (0 <= region < MAX_REGIONS and ino < FIRST_OBJECT_INO):
        return None
    made = Folder(region, year, month, day)
    return made if _exists(made) else None


def _exists(made: Folder) -> bool:
    if (made.day and not made.month) or (made.month and not made.year):
        return False
    try:
        return made.first_day <= LAST_DAY
    except ValueError:
        return False


def named(parent: Folder, name: str) -> Folder | None:
    """The folder called ``name`` in ``parent``; None where the name is no such folder's."""
    if parent.day or len(name) != (4, 7, 10)[bool(parent.year) + bool(parent.month)]:
        return None
    numbers = name.split("-")
    if len(numbers) > 3 or not all(part.isascii() and part.isdecimal() for part in numbers):
        return None
    found = Folder(parent.region, *map(int, numbers))
    return found if found.name == name and found.parent == parent and _exists(found) else None


def day_folder(region: int, day: date) -> Folder:
    """The folder of a day."""
    return Folder(region, day.year, day.month, day.day)


def rules_of(zone: tzinfo) -> str:
    """A hash of when a zone's offset changes, and to what: its name stays when its rules do not.

    Of the years in which recordings can have been made, and of the next few, for which rules
    are announced long before: 5 ms.
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
    """The days of one time zone, as instants.

    Owns a cache of midnights (date to UTC epoch ms) of bounded size, and the last day found:
    records come sorted, so the next one is mostly of the same day.
    """

    def __init__(self, zone: tzinfo) -> None:
        self.zone = zone
        self._starts: dict[date, int] = {}
        self._last = (0, 0, FIRST_DAY)

    def start_ms(self, day: date) -> int:
        """When ``day`` begins, in UTC epoch ms; its end is the start of the next one."""
        found = self._starts.get(day)
        if found is None:
            if len(self._starts) >= _CACHED_DAYS:
                self._starts.clear()
            found = self._starts[day] = self._midnight(day)
        return found

    def _midnight(self, day: date) -> int:
        """The first instant whose local date is ``day`` or later, but for clocks gone back."""
        naive = datetime(day.year, day.month, day.day, tzinfo=self.zone)
        first, second = sorted(self._instant_s(naive.replace(fold=fold)) for fold in (0, 1))
        if self._date_of(first) >= day:
            return first * 1000
        while first + 1 < second:  # midnight was skipped: the clock was put forward across it
            middle = (first + second) // 2
            first, second = (first, middle) if self._date_of(middle) >= day else (middle, second)
        return second * 1000

    def _instant_s(self, local: datetime) -> int:
        offset = local.utcoffset() or timedelta()
        return int((local.replace(tzinfo=UTC) - offset - _EPOCH).total_seconds())

    def _date_of(self, instant_s: int) -> date:
        return (_EPOCH + timedelta(seconds=instant_s)).astimezone(self.zone).date()

    def day_of(self, created_ms: int) -> date:
        """The day an instant (UTC epoch ms) belongs to; total."""
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

    def span_ms(self, of: Folder) -> tuple[int, int]:
        """``[start, stop)`` of a year, month or day in UTC epoch ms; a region's is all time."""
        if not of.year:
            return 0, self.start_ms(LAST_DAY)
        return self.start_ms(of.first_day), self.start_ms(of.stop_day)

    def parts(self, of: Folder, start_ms: int, stop_ms: int) -> list[Folder]:
        """The folders one level below ``of`` that ``[start_ms, stop_ms)`` touches, in order."""
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
