"""Decides whether a process may open a file, and has the open recorded before it is answered.

Used by ``vfs.py``, on behalf of every way to the files: the mount, both doors, and export. Programs
that the option ``crawlers`` names may look at names, but open nothing; that is comfort, not
protection, since a program can call itself what it likes. The journal records every other open. It
also tells of searches and exports (``control/``), and of cached content that was removed because
the service does not have it any more (``changes.py``).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum

import msgspec
from msgspec import UNSET

from phonofs.errors import CrawlerRefused, JournalError
from phonofs.journal.entry import now_text
from phonofs.journal.journal import Journal
from phonofs.journal.lines import Event, Line, Result
from phonofs.model import Record
from phonofs.proc import COMM_MAX, UNKNOWN, Process, Programs, Sessions

PROGRAMS_COUNTED = 100
"""Programs whose opens are counted apart; those that come later are counted as ``OTHERS``."""
PROGRAMS_SHOWN = 5
OTHERS = "others"

RECORDING = "recording"
"""The kind of an object's own content, in a line of the journal; texts have other kinds."""


class How(StrEnum):
    """By which way a file is opened."""

    MOUNT = "mount"
    DOOR = "door"
    EXPORT = "export"
    S3 = "s3"


class Opener(msgspec.Struct, frozen=True):
    """Who opens a file: ``uid`` and ``pid`` as the kernel tells them, None and 0 if it does not.

    ``pid`` may be that of a thread. ``in_order``: whether it may be reading the files of a
    directory in order, so that the next ones are downloaded ahead. ``key``: the name of the key of
    an S3 client, of which no user and no process are known; '' of all others.
    """

    uid: int | None = None
    pid: int = 0
    how: How = How.MOUNT
    in_order: bool = True
    key: str = ""


NOBODY = Opener()


class Access:
    """Owns the counts of opens by program, and the lines of what is open, by its handle."""

    def __init__(self, journal: Journal | None = None, crawlers: Iterable[str] = ()) -> None:
        self._journal = journal
        self._crawlers = frozenset(name[:COMM_MAX] for name in crawlers)
        self._look = (Programs() if journal is None else Sessions()).look
        self._opens = Counter[str]()
        self._refused = Counter[str]()
        self._lines: dict[object, Sequence[int]] = {}

    async def grant(
        self, opener: Opener, records: Sequence[Record], kind: str = RECORDING
    ) -> Sequence[int]:
        """Record that someone opens these objects; return the numbers of the lines, if any.

        Raises CrawlerRefused, and JournalError if it cannot be recorded.
        """
        process = self._process(opener)
        name = process.program
        if name is not None and name in self._crawlers:
            self._count(self._refused, name)
            await self._record_denial(opener, process, records, kind, Result.REFUSED)
            raise CrawlerRefused(f"{name} is one of the programs that may not open recordings")
        if name is not None:
            self._count(self._opens, name)
        if self._journal is None:
            return ()
        lines = [_line(opener, process, record, kind, Result.GRANTED) for record in records]
        first = await self._journal.record(lines)
        return range(first, first + len(lines)) if first else ()

    async def archived(self, opener: Opener, record: Record) -> None:
        """Record that someone could not open an archived object. Raises nothing of its own."""
        if self._journal is not None:
            process = self._process(opener)
            await self._record_denial(opener, process, [record], RECORDING, Result.ARCHIVED)

    async def _record_denial(
        self,
        opener: Opener,
        process: Process,
        records: Sequence[Record],
        kind: str,
        result: Result,
    ) -> None:
        if self._journal is None:
            return
        lines = [_line(opener, process, record, kind, result) for record in records]
        with suppress(JournalError):  # it has said so, and nothing is given
            await self._journal.record(lines)

    @property
    def waits(self) -> int:
        """How many opens have waited for the journal; other tasks run while one does."""
        return 0 if self._journal is None else self._journal.waits

    def opened(self, handle: object, lines: Sequence[int]) -> None:
        """Remember the lines of an open file until it is closed."""
        if lines:
            self._lines[handle] = lines

    def closed(self, handle: object, given_bytes: int) -> None:
        """Record that a file was closed, and how many bytes were given at least."""
        self.ended(self._lines.pop(handle, ()), given_bytes)

    def ended(self, lines: Sequence[int], given_bytes: int = 0) -> None:
        """Record the end of what these lines granted, such as of an open that failed then."""
        for number in lines:
            self._note(
                Line(at=now_text(), event=Event.CLOSE, of=number, bytes_at_least=given_bytes)
            )

    # what is no open

    def search(self, opener: Opener, words: Iterable[str]) -> Line | None:
        """Return the line of a search that begins, for :meth:`searched`; None without a journal."""
        if self._journal is None:
            return None
        hashes = self._journal.hashed(words)
        return msgspec.structs.replace(self._who(Event.SEARCH, opener), words=hashes)

    def searched(self, line: Line | None, results: int) -> None:
        """Record a search that has ended, and how many objects it found."""
        if line is not None:
            self._note(msgspec.structs.replace(line, at=now_text(), results=results))

    async def export_begins(self, opener: Opener, words: Iterable[str], paths: int) -> int:
        """Record that an export of so many paths begins; return the number of the line, or 0.

        Raises JournalError if it cannot be recorded.
        """
        if self._journal is None:
            return 0
        who, hashes = self._who(Event.EXPORT, opener), self._journal.hashed(words)
        line = msgspec.structs.replace(who, result=Result.BEGUN, words=hashes, paths=paths)
        return await self._journal.record([line])

    def export_ends(
        self, opener: Opener, of: int, result: Result, objects: int, copied: int, missing: int
    ) -> None:
        """Record that an export has ended, which began with the line ``of``."""
        who = self._who(Event.EXPORT, opener)
        self._note(
            msgspec.structs.replace(
                who, of=of, result=result, objects=objects, copied=copied, missing=missing
            )
        )

    def purged(self, record: Record, freed_bytes: int, reason: str) -> None:
        """Record that content was removed from the disk, since the service does not have it."""
        self._note(
            Line(
                at=now_text(),
                event=Event.PURGED,
                object=record.id,
                region=record.region,
                type=record.type,
                call=record.tags.get("callId"),
                freed_bytes=freed_bytes,
                reason=reason,
            )
        )

    def _note(self, line: Line) -> None:
        if self._journal is not None:
            self._journal.note(line)

    def _who(self, event: Event, opener: Opener) -> Line:
        """Return a line that tells who does something."""
        process = self._process(opener)
        return Line(
            at=now_text(),
            event=event,
            uid=opener.uid,
            login=process.login,
            pid=process.pid,
            program=process.program,
            unit=process.unit,
        )

    def statistics(self) -> Mapping[str, object]:
        """Return who opened most and who was refused, by program."""
        return {
            "by_program": dict(self._opens.most_common(PROGRAMS_SHOWN)),
            "refused": dict(self._refused),
        }

    def journal_statistics(self) -> Mapping[str, object]:
        """Return the gauges and counts of the journal."""
        return {"state": "off"} if self._journal is None else self._journal.statistics()

    def condition(self) -> str:
        """Return what is wrong with the journal; '' if nothing is."""
        return "" if self._journal is None else self._journal.condition()

    def _process(self, opener: Opener) -> Process:
        if self._journal is None and not self._crawlers:
            return UNKNOWN
        return self._look(opener.pid)

    @staticmethod
    def _count(counts: Counter[str], name: str) -> None:
        counts[name if name in counts or len(counts) < PROGRAMS_COUNTED else OTHERS] += 1


def _line(opener: Opener, process: Process, record: Record, kind: str, result: Result) -> Line:
    return Line(
        at=now_text(),
        event=Event.OPEN,
        result=result,
        how=opener.how,
        object=record.id,
        region=record.region,
        type=record.type,
        call=record.tags.get("callId"),
        kind=kind,
        uid=opener.uid,
        login=process.login,
        pid=process.pid,
        program=process.program,
        unit=process.unit,
        key=opener.key or UNSET,
    )
