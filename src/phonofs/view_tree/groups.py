"""Says whose calls there are in a span of time: by agent and by queue. Used by ``views``."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from weakref import WeakValueDictionary

import trio

from phonofs.errors import NoSuchName
from phonofs.tree.layout import Directory
from phonofs.view_tree.call_index import CallIndex
from phonofs.view_tree.in_steps import worked_out
from phonofs.view_tree.spans import Spans
from phonofs.views import calls
from phonofs.views.calls import Call
from phonofs.views.groups import Groups
from phonofs.views.places import BY_AGENT, Place

NUMBERS_KEPT = 1_000_000
"""Inode numbers in the groups of the spans of time that stay in memory, 8 bytes each; the span used
last stays however many it has."""


class GroupIndex:
    """Owns the groups of the spans of time that were used last.

    A span is that of a place that lists names. What is kept of it is of the version of the span
    that is kept with it.
    """

    def __init__(self, spans: Spans, index: CallIndex) -> None:
        self._spans = spans
        self._index = index
        self._kept: OrderedDict[Place, tuple[int, Groups]] = OrderedDict()
        self._locks = WeakValueDictionary[Place, trio.Lock]()

    async def groups(self, place: Place, *, fresh: bool) -> Groups:
        """Return the calls of a span by agent or queue.

        If ``fresh``, the service is asked first where it may have something new. Raises errors of
        the service.
        """
        if fresh or not self._is_current(place):
            return await self._spans.in_time(self._made(place))
        return self._used(place)

    async def calls(self, place: Place, name: str) -> list[Call]:
        """Return the calls of one name, in order. Raises NoSuchName, errors of the service."""
        groups = await self.groups(place, fresh=False)
        if name not in groups:
            raise NoSuchName(f"{name!r} is not in this folder any more")
        found: list[Call] = []
        for day, inos in groups.days(name):
            found += await self._index.some(day, inos)
        return found

    def _is_current(self, place: Place) -> bool:
        kept = self._kept.get(place)
        return kept is not None and kept[0] == self._index.version(place.span)

    def _used(self, place: Place) -> Groups:
        self._kept.move_to_end(place)
        return self._kept[place][1]

    async def _made(self, place: Place) -> Groups:
        """Return the groups of a span, made once for all who want them."""
        async with self._locks.setdefault(place, trio.Lock()):
            days = await self._spans.list_days(place.span)
            if self._is_current(place):
                return self._used(place)
            version = self._index.version(place.span)
            value = calls.agent_of if place.view == BY_AGENT else calls.queue_of
            made = await self._grouped(days, value)
            self._keep(place, version, made)
            return made

    async def _grouped(self, days: Iterable[Directory], value: Callable[[Call], str]) -> Groups:
        """Group the calls of consecutive days. What is attached to a call of the day before is not
        there a second time.
        """
        made = Groups()
        before: set[int] = set()
        for day in days:
            found = [call for call in await self._index.calls(day) if call.main.ino not in before]
            before = {each.what.ino for call in found for each in call.attached}
            await worked_out(partial(made.add, day, found, value), len(found))
        return made

    def _keep(self, place: Place, version: int, groups: Groups) -> None:
        self._kept[place] = version, groups
        self._kept.move_to_end(place)
        while len(self._kept) > 1 and self._count() > NUMBERS_KEPT:
            self._kept.popitem(last=False)

    def _count(self) -> int:
        return sum(groups.count for _, groups in self._kept.values())
