"""The calls of the days that the catalogue knows, joined when they are first needed.

Used by ``views`` and ``text_files``. Nothing is made while a day of the date tree is listed.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import trio
from cachetools import LRUCache

from phonofs.catalogue.catalogue import Catalogue, ChangeSet
from phonofs.errors import NoSuchName
from phonofs.tree.layout import FIRST_DAY, LAST_DAY, Directory, day_directory, directory_of
from phonofs.view_tree.in_steps import worked_out
from phonofs.views.calls import Call, CallObject, call_object, hash_of, joined
from phonofs.views.names import (
    MANIFESTS,
    Manifest,
    Text,
    ViewFile,
    manifests,
    text_of_ino,
    texts,
)

OBJECTS_KEPT = 40_000
"""Objects of which the calls stay in memory, about 0.9 KB each: a month of 1,300 a day."""


@dataclass(frozen=True, slots=True)
class _Day:
    """The calls of a day; ``of`` has each by the inode numbers of its objects.

    ``version`` is a hash of all that lists of the day depend on.
    """

    calls: list[Call]
    of: dict[int, Call]
    version: int

    @classmethod
    def joined(cls, day: Directory, objects: list[CallObject], after: list[CallObject]) -> "_Day":
        """Join the objects of a day, with what belongs to them on the day after."""
        calls = joined(day.name, objects, after)
        found = {each.ino: call for call in calls for each in call.objects()}
        records = [(each.ino, each.record, each.name) for each in (*objects, *after)]
        return cls(calls, found, hash_of(records))


class CallIndex:
    """Owns the objects and the calls of the days that were needed last.

    Invariant: what is kept of a day agrees with the catalogue. ``_versions`` counts the changes of
    each day, and of the month, year and region that it is in, so that what was read while it
    changed is not kept.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._objects: LRUCache[Directory, list[CallObject]] = LRUCache(OBJECTS_KEPT, _weight)
        self._days: LRUCache[Directory, _Day] = LRUCache(OBJECTS_KEPT, lambda day: 1 + len(day.of))
        self._versions = Counter[Directory]()
        self._reading = trio.Lock()
        self.changes = 0

    def changed(self, changes: ChangeSet) -> None:
        """Forget the days that changed; ``changes`` counts how often that happened."""
        inos = {*changes.directories}
        for change in changes.objects:
            inos.add(change.parent_ino)
            inos.update(parent for parent, _ in change.entries)
        days = {day for ino in inos if (day := directory_of(ino)) is not None and day.day}
        for day in days:
            self._versions.update(_with_those_above(day))
            self._objects.pop(day, None)
            self._days.pop(day, None)
            self._days.pop(_beside(day, -1), None)
        if days:
            self.changes += 1

    def version(self, span: Directory) -> int:
        """Return how often a span has changed, or the day after it, whose objects it shows too."""
        return self._versions[span] + self._versions[day_directory(span.region, span.stop_day)]

    async def calls(self, day: Directory) -> list[Call]:
        """Return the calls of a day, of the objects that are known. Raises Malformed.

        The caller has the day listed first.
        """
        return (await self._day(day)).calls

    async def some(self, day: Directory, inos: Collection[int]) -> list[Call]:
        """Return those calls of a day that have these objects, all of them. Raises Malformed.

        Of a day that is not in memory, no other records are read.
        """
        made = self._days.get(day)
        if made is not None:
            return [call for call in made.calls if call.main.ino in inos]
        objects, after = await self._read(day, inos), await self._read(_beside(day, 1), inos)
        return joined(day.name, objects, after)

    async def manifests(self, day: Directory) -> list[ViewFile]:
        """Return the lists of a day, with their names. Raises Malformed."""
        known = await self._day(day)
        return manifests(day.ino, known.version, known.calls)

    async def text(self, ino: int) -> Text | Manifest:
        """Return a text or a list by its inode number. Raises NoSuchName, Malformed."""
        found = text_of_ino(ino)
        if found and found[0] in MANIFESTS.values():
            listed = directory_of(found[1])
            for file in await self.manifests(listed) if listed and listed.day else ():
                if file.ino == ino and isinstance(file.text, Manifest):
                    return file.text
            raise NoSuchName(f"there is no list with inode {ino}")
        day = directory_of(self._catalogue.parent(found[1])) if found else None
        if found and day:
            for which in (day, _beside(day, -1)):  # a comment may belong to a call before midnight
                call = (await self._day(which)).of.get(found[1])
                for _, text in texts(call) if call else ():
                    if text.ino == ino:
                        return text
        raise NoSuchName(f"there is no text with inode {ino}")

    async def _day(self, day: Directory) -> _Day:
        made = self._days.get(day)
        if made is not None:
            return made
        async with self._reading:  # who comes at the same time finds it made
            made = self._days.get(day)
            if made is None:
                made = await self._make(day)
        return made

    async def _make(self, day: Directory) -> _Day:
        after = _beside(day, 1)
        versions = self._versions[day], self._versions[after]
        objects, later = await self._read(day), await self._read(after)
        made = await worked_out(
            partial(_Day.joined, day, objects, later), len(objects) + len(later)
        )
        if versions == (self._versions[day], self._versions[after]):
            with suppress(ValueError):  # a day that is too large is made anew each time
                self._days[day] = made
        return made

    async def _read(self, day: Directory, among: Collection[int] | None = None) -> list[CallObject]:
        """Return the objects of a day, or those of them that are ``among`` some."""
        found = self._objects.get(day)
        if found is not None:
            return found if among is None else [each for each in found if each.ino in among]
        version = self._versions[day]
        found = []
        for some in self._catalogue.records_of(day.ino, among):
            found += [call_object(*each) for each in some]
            await trio.lowlevel.checkpoint()
        if among is None and version == self._versions[day]:
            with suppress(ValueError):
                self._objects[day] = found
        return found


def _weight(objects: list[CallObject]) -> int:
    return 1 + len(objects)


def _with_those_above(day: Directory) -> Iterator[Directory]:
    """Yield a day, and the directories that it is in."""
    above: Directory | None = day
    while above is not None:
        yield above
        above = above.parent


def _beside(day: Directory, days: int) -> Directory:
    """Return the day before or after; the first and the last day have none but themselves."""
    other = day.first_day + timedelta(days=days)
    return day_directory(day.region, min(max(other, FIRST_DAY), LAST_DAY))
