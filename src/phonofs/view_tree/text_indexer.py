"""Makes the texts of the whole account, so that their sizes and words are known.

Newest first, after all other requests in the queue, and not while the service asks for a pause.
What was made is kept, so that a later run continues. Used by ``app.py`` (``index=texts``) and by
``phonofs index --texts``.
"""

from collections.abc import AsyncGenerator, Callable
from datetime import date, timedelta
from typing import Any

import trio

from phonofs.catalogue.catalogue import Catalogue
from phonofs.discovery.indexer import AGAIN_S, Indexer, Progress
from phonofs.discovery.rests import Rests, until_calm
from phonofs.errors import (
    Archived,
    CatalogueError,
    Changed,
    Corrupt,
    Gone,
    Malformed,
    NoSuchName,
    PhonofsError,
    Refused,
    ServiceError,
)
from phonofs.reader.reader import Reader
from phonofs.texts.forms import LARGEST
from phonofs.tree.layout import FIRST_DAY, Directory, day_directory, directory_of
from phonofs.units import format_count
from phonofs.view_tree.call_index import CallIndex
from phonofs.view_tree.text_files import TextFiles
from phonofs.views.calls import TEXT_TYPES, CallObject
from phonofs.views.names import KIND_SHIFT, Text, TextKind, texts

AT_ONCE = 8
"""Texts brought side by side."""

LOOK_S = 60.0
"""How often a mount looks whether days have changed, whose new texts are then brought."""

_GONE = Archived, Gone, NoSuchName
"""Errors of an object without a text: it cannot be read now, or its form is not known."""

_OF_ONE = Refused, Corrupt, Malformed, Changed
"""Errors of one object, which would come again at once."""


class _Round:
    """One walk through the days that lack texts.

    looked   how many texts are known now, or known not to be there
    made     how many of them are there
    failed   the inode numbers of objects whose texts cannot be had, and why
    error    why the walk had to end before its time, None if it did not
    """

    def __init__(self) -> None:
        self.looked = 0
        self.made = 0
        self.failed: dict[int, str] = {}
        self.error: PhonofsError | None = None

    def count(self, *, made: bool) -> None:
        """Count a text that was made, or of which it is known now that there is none."""
        self.looked += 1
        self.made += made

    def note(self, ino: int, error: PhonofsError) -> None:
        """Note why there is no text of an object."""
        if isinstance(error, _OF_ONE):
            self.failed[ino] = str(error)
        else:
            self.error = error


class TextIndexer:
    """Makes texts, after the records are known. Owns its progress in the background.

    ``_settled`` has the days that were walked through, and how often each had changed by then:
    objects that no text can be made of are not looked at again. ``_in_part`` has those of these
    days with objects that could not be had, and why; the next time they are walked through again.
    ``_listed`` is the last progress of the records.
    """

    def __init__(
        self,
        records: Indexer,
        catalogue: Catalogue,
        index: CallIndex,
        files: TextFiles,
        reader: Reader,
        paused_s: Callable[[], float],
    ) -> None:
        """``paused_s`` returns for how many more seconds the service wants no requests."""
        self._records = records
        self._catalogue = catalogue
        self._index = index
        self._files = files
        self._reader = reader
        self._paused_s = paused_s
        self._settled: dict[Directory, int] = {}
        self._in_part: dict[Directory, dict[int, str]] = {}
        self._listed = Progress()
        self._progress = Progress(state="off")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Index everything, and what is new within ``LOOK_S``, until cancelled."""
        task_status.started()
        while True:
            async for progress in self.steps(None):
                self._progress = progress
            again_at = trio.current_time() + AGAIN_S
            while trio.current_time() < again_at:
                changes = self._index.changes
                await trio.sleep(LOOK_S)
                if self._index.changes != changes:
                    async for progress in self._text_steps(None, None):
                        self._progress = progress

    def statistics(self) -> dict[str, object]:
        """Return how far the background run is; ``state`` is ``off`` if there is none."""
        return self._progress.gauges()

    async def steps(
        self, since: date | None, *, tries: int | None = None
    ) -> AsyncGenerator[Progress, None]:
        """Index the records from ``since`` on, then their texts; as :meth:`Indexer.steps`."""
        for day in self._in_part:
            self._settled.pop(day, None)
        self._in_part.clear()
        async for progress in self._records.steps(since, tries=tries):
            self._listed = progress
            if progress.state != "done":
                yield progress
        async for progress in self._text_steps(since, tries):
            yield progress

    async def _text_steps(
        self, since: date | None, tries: int | None
    ) -> AsyncGenerator[Progress, None]:
        """Make the texts that are not known."""
        rests = Rests(tries)
        while True:
            await self._records.make_facets(since)
            walk = _Round()
            before = self._catalogue.text_sizes.count(TextKind.CSV << KIND_SHIFT)
            for day in await self._lacking(since):
                await self._make(day, walk)
                yield self._progressed(before + walk.made, day=day.name)
                if walk.error is not None:
                    break
            if walk.error is None:
                break
            rest_s = rests.after(walk.error, vain=not walk.looked)
            yield self._progressed(before + walk.made, state="waiting", error=str(walk.error))
            await trio.sleep(rest_s)
        missing, error = self._listed.missing, self._listed.error
        if self._in_part:
            failed = {ino: why for some in self._in_part.values() for ino, why in some.items()}
            missing = [*missing, f"the texts of {format_count(len(failed), 'object')}"]
            error = error or next(iter(failed.values()))
        yield self._progressed(before + walk.made, state="done", error=error, missing=missing)

    async def _lacking(self, since: date | None) -> list[Directory]:
        """Return the days that may lack texts, newest first.

        Words that come after midnight belong to a call of the day before, so that is one of them.
        """
        found: set[Directory] = set()
        for region in self._catalogue.regions():
            known = self._catalogue.facets.days(region, since, None)
            for first, last in self._catalogue.facets.slices(*known) if known else ():
                for ino in self._catalogue.text_sizes.lacking(first, last, TEXT_TYPES):
                    day = directory_of(ino)
                    assert day is not None, "objects lie in day directories"
                    found.add(day)
                    before = day.first_day - timedelta(days=1)
                    if before >= max(since or FIRST_DAY, FIRST_DAY):
                        found.add(day_directory(day.region, before))
                await trio.lowlevel.checkpoint()
        new = (day for day in found if self._settled.get(day) != self._index.version(day))
        return sorted(new, key=lambda day: day.first_day, reverse=True)

    async def _make(self, day: Directory, walk: _Round) -> None:
        """Make the texts that a day lacks."""
        version = self._index.version(day)
        every = [text for call in await self._index.calls(day) for _, text in texts(call)]
        known = self._files.known_sizes(every)
        lacking: dict[tuple[CallObject, ...], list[Text]] = {}
        for text in every:
            if text.ino not in known:
                lacking.setdefault(text.sources, []).append(text)
        waiting = iter(lacking.items())

        async def work_off() -> None:
            for sources, some in waiting:
                await until_calm(self._paused_s)
                if walk.error is not None:
                    return
                for source in sources:
                    if not await self._bring(source, walk):
                        break
                else:
                    for text in some:
                        await self._know(text, walk)

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(work_off)
        if walk.error is None:
            self._settled[day] = version
            self._in_part.pop(day, None)
            inos = {source.ino for sources in lacking for source in sources}
            failed = {ino: why for ino, why in walk.failed.items() if ino in inos}
            if failed:
                self._in_part[day] = failed

    async def _bring(self, source: CallObject, walk: _Round) -> bool:
        """Bring the content of an object; return whether it came."""
        try:
            record = self._catalogue.record(source.ino)
            if record.size <= LARGEST:
                await self._reader.bring(record, source.ino)
        except _GONE:
            return False
        except (ServiceError, CatalogueError) as error:
            walk.note(source.ino, error)
            return False
        return True

    async def _know(self, text: Text, walk: _Round) -> None:
        """Make a text of what was brought, by which its size becomes known."""
        try:
            await self._files.size(text)
            walk.count(made=True)
        except _GONE:
            walk.count(made=False)
        except (ServiceError, CatalogueError) as error:
            walk.note(text.sources[0].ino, error)

    def _progressed(self, known: int, **what: Any) -> Progress:
        return Progress(objects=self._catalogue.totals()[0], texts=known, **what)
