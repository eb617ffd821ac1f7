"""Estimates how many objects a day holds, so that its pages can be requested at once. Pure.

An estimate that is too low costs a round trip; one that is too high costs some empty pages.
"""

from collections import deque

from cachetools import LRUCache

from phonofs.tree.layout import Directory

DAY_MS = 86_400_000

REMEMBERED = 1000
"""Days whose totals are remembered. A program that walks through a month soon lists them."""


FIRST = 400
"""The estimate for a day of which nothing is known: five usual pages."""

AT_FIRST = 199
"""So many records are requested at once if the region's total is not known either: two usual pages,
of which one is empty at worst. A day larger than one page saves a round trip."""

UNEVEN = 2
"""How many times the average a day may have: nights and weekends have next to nothing."""

LAST = 3
"""Recently listed days used to estimate the next one: after a weekend comes a Monday."""


class DaySizeEstimator:
    """Owns the totals that the service gave for days; and for each region the sizes of the last
    days listed, the average size of a day, and the total.
    """

    def __init__(self) -> None:
        self._said: LRUCache[int, int] = LRUCache(REMEMBERED)
        self._last: dict[int, deque[int]] = {}
        self._average: dict[int, int] = {}
        self._total: dict[int, int] = {}

    def said(self, part: Directory, total: int | None) -> None:
        """Note the number of objects that the service gives for a part."""
        if part.day and total is not None:
            self._said[part.ino] = total

    def spread(self, region: int, first_ms: int, last_ms: int, total: int | None) -> None:
        """Note when the first and the last object of a region were created, and its total."""
        if total is not None:
            self._total[region] = total
            self._average[region] = total // ((last_ms - first_ms) // DAY_MS + 1)

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
        guessed = day.region not in self._total and not self.known(day)
        return AT_FIRST if guessed else self.expected(day)
