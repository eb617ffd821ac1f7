"""Predicts which day will be opened next, if days are opened in sequence. Pure.

``find``, ``rsync`` and ``du`` walk through a month day by day; the next day is listed while they
read the current one.
"""

from collections.abc import Collection

from cachetools import LRUCache

from phonofs.tree.layout import Directory

LATELY_S = 60.0
"""Longest time since the day before was opened: a program that copies files is slow."""

WALKERS = 8
"""Days remembered, so that this many programs can walk at a time."""


class SequentialDays:
    """Owns the recently opened days and when each was opened (trio's clock, seconds)."""

    def __init__(self) -> None:
        self._opened: LRUCache[Directory, float] = LRUCache(WALKERS)

    def opened(
        self, day: Directory, now_s: float, siblings: Collection[Directory]
    ) -> Directory | None:
        """Note that a day was opened; return the next of ``siblings`` if days are in sequence."""
        order = sorted(siblings, key=lambda sibling: sibling.day)
        at = order.index(day) if day in siblings else 0
        before_s = self._opened.pop(order[at - 1], None) if at else None
        self._opened[day] = now_s
        walks = before_s is not None and now_s - before_s <= LATELY_S
        return order[at + 1] if walks and at + 1 < len(order) else None
