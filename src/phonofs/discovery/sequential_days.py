"""Which day will be opened next, where somebody opens one after the other. Pure.

``find``, ``rsync`` and ``du`` walk through a month day by day; the next one is listed while they
look at this one.
"""

from collections import OrderedDict
from collections.abc import Collection

from phonofs.tree.layout import Folder

LATELY_S = 60.0
"""How long ago the day before may have been opened: a walk that copies files is slow."""

WALKERS = 8
"""Walks at a time that are told apart."""


class SequentialDays:
    """Owns the days opened lately, with when that was (seconds)."""

    def __init__(self) -> None:
        self._opened: OrderedDict[Folder, float] = OrderedDict()

    def opened(self, day: Folder, now_s: float, siblings: Collection[Folder]) -> Folder | None:
        """A day was opened; the one of ``siblings`` that is next, if somebody walks."""
        order = sorted(siblings, key=lambda sibling: sibling.day)
        at = order.index(day) if day in siblings else 0
        before_s = self._opened.pop(order[at - 1], None) if at else None
        self._opened[day] = now_s
        if len(self._opened) > WALKERS:
            self._opened.popitem(last=False)
        walks = before_s is not None and now_s - before_s <= LATELY_S
        return order[at + 1] if walks and at + 1 < len(order) else None
