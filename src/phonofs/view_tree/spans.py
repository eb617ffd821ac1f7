"""Lists spans of time for the views: their days, and the calls of these. Used by ``views``.

A span is whole or an error: what is not known of it is listed first, a few days at a time.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import trio

from phonofs.catalogue.catalogue import Catalogue
from phonofs.discovery.lister import Lister
from phonofs.errors import PhonofsError, Unavailable
from phonofs.tree.layout import ROOT, Directory
from phonofs.view_tree.call_index import CallIndex
from phonofs.views.calls import RECORDINGS, Call, without_repeated

LATEST_CALLS = 200
"""Recordings that ``latest`` shows."""

LATEST_DAYS = 31
"""Days with recordings that it looks through for them, so that a quiet account is not listed as a
whole."""

SIDE_BY_SIDE = 2
"""Days that are listed at a time. Each has up to 14 searches under way, so that a third would only
wait for connections before readers."""

_T = TypeVar("_T")


class Spans:
    """Lists years, months and days, and joins the calls in them. Owns nothing.

    What cannot be listed is an error of the service.
    """

    def __init__(
        self, catalogue: Catalogue, lister: Lister, index: CallIndex, deadline_s: float
    ) -> None:
        self._catalogue = catalogue
        self._lister = lister
        self._index = index
        self._deadline_s = deadline_s

    def shown_ino(self, of: Directory) -> int:
        """Return the inode number of a directory of the date tree, as it is shown."""
        return ROOT if self._catalogue.shown_directory(ROOT) == of else of.ino

    async def list_days(self, span: Directory) -> list[Directory]:
        """List the days of a span that are not known, or may have changed; return its days."""
        days = await self.days(span)
        await self._each(self._have_listed, days)
        return days

    async def newest(self, region: Directory) -> list[Call]:
        """Return the newest recordings of a region with their calls, in order of time."""
        found: list[Call] = []
        count = looked = 0
        for year in reversed(await self.below(region)):
            for month in reversed(await self.below(year)):
                for day in reversed(await self.below(month)):
                    if count >= LATEST_CALLS or looked >= LATEST_DAYS:
                        return _last_recordings(without_repeated(found))
                    await self._have_listed(day)
                    here = await self._index.calls(day)
                    recordings = sum(call.main.type in RECORDINGS for call in here)
                    found = here + found
                    count += recordings
                    looked += bool(recordings)
        return _last_recordings(without_repeated(found))

    async def is_shown(self, directory: Directory) -> bool:
        """Return whether the date tree shows a directory; ask the service if that is not known."""
        if self._catalogue.entry(directory.ino) is not None:
            return True
        above = directory.parent
        if above is None or (above.year and not await self.is_shown(above)):
            return False
        parent = self.shown_ino(above)
        if self._lister.needs(parent):
            await self._lister.find(parent, directory.name)
        return self._catalogue.entry(directory.ino) is not None

    async def months(self, span: Directory) -> list[Directory]:
        """Return the months of a region that hold something, in order."""
        return await self._below_each(await self.below(span))

    async def days(self, span: Directory) -> list[Directory]:
        """Return the days of a span that hold something, in order."""
        if span.day:
            return [span]
        parts = await self.below(span)
        while parts and not parts[0].day:
            parts = await self._below_each(parts)
        return parts

    async def _below_each(self, directories: Sequence[Directory]) -> list[Directory]:
        await self._each(self._have_listed, directories)
        found = [part for each in directories for part in self._catalogue.known(each)]
        return sorted(found, key=lambda part: part.ino)

    async def below(self, directory: Directory) -> list[Directory]:
        """Return the directories in a region, year or month that hold something, in order."""
        return await self._below_each([directory])

    async def _have_listed(self, directory: Directory) -> None:
        ino = self.shown_ino(directory)
        if self._lister.needs(ino):
            await self._lister.list(ino)

    async def _each(
        self, work: Callable[[Directory], Awaitable[None]], directories: Iterable[Directory]
    ) -> None:
        """Do some work for directories, a few at a time. Raises the first error."""
        errors: list[PhonofsError] = []
        waiting = iter(directories)

        async def work_off() -> None:
            for directory in waiting:
                try:
                    await work(directory)
                except PhonofsError as error:
                    errors.append(error)
                if errors:
                    return

        async with trio.open_nursery() as nursery:
            for _ in range(SIDE_BY_SIDE):
                nursery.start_soon(work_off)
        if errors:
            raise errors[0]

    async def in_time(self, work: Awaitable[_T]) -> _T:
        """Wait for something up to the deadline. Listings that have begun go on after it."""
        with trio.move_on_after(self._deadline_s):
            return await work
        raise Unavailable(
            f"this took longer than {self._deadline_s:g} s; listing goes on: try again"
        )


def _last_recordings(found: Sequence[Call]) -> list[Call]:
    recordings = [call for call in found if call.main.type in RECORDINGS]
    recordings.sort(key=lambda call: (call.day, call.main.name))
    return recordings[-LATEST_CALLS:]
