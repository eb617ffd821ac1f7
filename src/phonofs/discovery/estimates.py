"""How many objects a day may hold, so that as many pages are asked for at once. Pure.

A guess: too low costs a round trip, too high some empty answers.
"""

from collections import OrderedDict, deque

from phonofs.tree.layout import Folder

DAY_MS = 86_400_000

REMEMBERED = 1000
"""Days of which the service said how many objects they have; a walk soon asks for them."""


FIRST = 400
"""Of a day of which nothing is known: four usual pages at once, three of them empty at worst,
instead of a round trip more where it is larger than one."""

UNEVEN = 2
"""How much larger than the average a day may well be: nights and weekends have next to nothing."""

LAST = 3
"""Days listed lately that the next one is compared with: after a weekend comes a Monday."""


class DaySizeEstimator:
    """Owns what the service said of days, and of each region the last days, the average and the
    total.
    """

    def __init__(self) -> None:
        self._said: OrderedDict[int, int] = OrderedDict()
        self._last: dict[int, deque[int]] = {}
        self._average: dict[int, int] = {}
        self._total: dict[int, int] = {}

    def said(self, part: Folder, total: int | None) -> None:
        """The service says how many objects a part has."""
        if part.day and total is not None:
            self._said[part.ino] = total
            if len(self._said) > REMEMBERED:
                self._said.popitem(last=False)

    def spread(self, region: int, first_ms: int, last_ms: int, total: int | None) -> None:
        """Of a region: when its first and its last object were created, and how many it has."""
        if total is not None:
            self._total[region] = total
            self._average[region] = total // ((last_ms - first_ms) // DAY_MS + 1)

    def listed(self, day: Folder, count: int) -> None:
        """A day was listed: the next one is probably like it."""
        self._said.pop(day.ino, None)
        self._last.setdefault(day.region, deque(maxlen=LAST)).append(count)

    def known(self, day: Folder) -> int:
        """What is said of it, or was so of the days before; 0 for nothing."""
        last = self._last.get(day.region)
        return self._said.get(day.ino, max(last) if last else 0)

    def expected(self, day: Folder) -> int:
        """The best guess, rather too high than too low."""
        if day.ino in self._said or self._last.get(day.region):
            return self.known(day)
        likely = max(FIRST, UNEVEN * self._average.get(day.region, 0))
        return min(likely, self._total.get(day.region, likely))
