"""Estimates how many objects a day holds, so that its pages can be requested at once. Pure.

An estimate that is too low costs a round trip; one that is too high costs some empty pages.
"""

from collections import deque
from collections.abc import Sequence

from cachetools import LRUCache

from phonofs.tree.layout import Directory

DAY_MS = 86_400_000
HOUR_MS = 3_600_000

REMEMBERED = 1000
"""Days whose totals are remembered. A program that walks through a month soon lists them."""


FIRST = 400
"""The estimate for a day of which nothing is known: five usual pages."""

AT_FIRST = 199
"""So many records are requested at once if the region's total is not known either: two usual pages,
of which one is empty at worst. A day larger than one page saves a round trip."""

BUSY_MS = 6 * HOUR_MS
"""A day has as many objects as so many hours like its busiest time."""

BUSIEST = 50
"""The time in which so many objects were created at the fastest: half a page, of which the other
half may be a night's."""

MOST_AT_FIRST = 2500
"""The most records requested at once because of how fast the newest objects were created."""

UNEVEN = 2
"""How many times the average a day may have: nights and weekends have next to nothing."""

LAST = 3
"""Recently listed days used to estimate the next one: after a weekend comes a Monday."""


class DaySizeEstimator:
    """Owns the totals that the service gave for days; and for each region the sizes of the last
    days listed, the average size of a day, the total, and how many objects a busy day has.
    """

    def __init__(self) -> None:
        self._said: LRUCache[int, int] = LRUCache(REMEMBERED)
        self._last: dict[int, deque[int]] = {}
        self._average: dict[int, int] = {}
        self._total: dict[int, int] = {}
        self._busy: dict[int, int] = {}

    def said(self, part: Directory, total: int | None) -> None:
        """Note the number of objects that the service gives for a part."""
        if part.day and total is not None:
            self._said[part.ino] = total

    def spread(self, region: int, first_ms: int, last_ms: int, total: int | None) -> None:
        """Note when the first and the last object of a region were created, and its total."""
        if total is not None:
            self._total[region] = total
            self._average[region] = total // ((last_ms - first_ms) // DAY_MS + 1)

    def newest(self, region: int, created_ms: Sequence[int]) -> None:
        """Note when the newest objects of a region were created."""
        times = sorted(created_ms)
        spans = [last - first for first, last in zip(times, times[BUSIEST:], strict=False)]
        if spans:
            self._busy[region] = min(MOST_AT_FIRST, BUSIEST * BUSY_MS // max(1, min(spans)))

    def listed(self, day: Directory, count: int) -> None:
        """Note the size of a day that was listed: the next one is probably similar."""
        self._said.pop(day.ino, None)
        self._last.setdefault(day.region, deque(maxlen=LAST)).append(count)

    def known(self, day: Directory) -> int:
        """Return the service's total for a day, else the largest recent day; 0 if neither."""
        last = self._last.get(day.region)
        return self._said.get(day.ino, max(last) if last else 0)

    def expected(self, day: Directory) -> int:
        """Return the best estimate, rather too high than too low."""
        if day.ino in self._said or self._last.get(day.region):
            return self.known(day)
        likely = max(FIRST, UNEVEN * self._average.get(day.region, 0))
        return min(likely, self._total.get(day.region, likely))

    def at_once(self, day: Directory) -> int:
        """Return how many records to request before the first page of a day has come."""
        if day.region in self._total or self.known(day):
            return self.expected(day)
        return max(AT_FIRST, self._busy.get(day.region, 0))
