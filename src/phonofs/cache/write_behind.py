"""Small new objects wait in memory for a moment and are written to disk many at a time.

Creating a file costs ten times as much as writing 50 KB to it, and a row costs a transaction.
While a directory of small files was read, that was a third of all the work, done between two
reads. So the maintenance task creates the files of small new objects: first it declares the rows,
then it writes the files in a thread, then it completes the rows. After a kill before that, the
objects are fetched again. Objects that the disk does not accept stay in memory.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import trio

from phonofs.cache.backend import Backend, Disk
from phonofs.cache.entry import CacheEntry

LARGEST = 256 << 10
"""Bytes of the largest object that waits: to write more takes longer than to create a file."""

CAPACITY_BYTES = 24 << 20
CAPACITY_FILES = 1000
"""How much may wait at once; beyond it files are created immediately. Flushing this much at unmount
takes about 0.5 s."""

FLUSH_BYTES = 16 << 20
FLUSH_FILES = 600
"""Beyond this a flush starts without further delay; the rest of the capacity is for objects that
come meanwhile."""

FLUSH_DELAY_S = 2.0
"""How long the first object waits for others, unless there are many. Creating files slows a reader
by a twentieth, or by a tenth if it also writes (``cp -r``); a directory of 300 is read by then."""


@dataclass(slots=True)
class FlushJob:
    """One file to create from the whole blocks of an entry, as they were when the flush began.

    ``error`` is the reason why the file could not be created.
    """

    entry: CacheEntry
    generation: int
    blocks: list[tuple[int, bytes]]
    error: OSError | MemoryError | None = None
    done: bool = False


@dataclass(slots=True)
class WriteBehind:
    """Owns the entries that wait, their total size, and those that are ready to be flushed.

    running  whether a task flushes; without one nothing is admitted
    """

    running: bool = False
    _bytes: int = 0
    _waiting: dict[bytes, int] = field(default_factory=dict)
    _ready: dict[bytes, CacheEntry] = field(default_factory=dict)
    _some: trio.Event = field(default_factory=trio.Event)
    _many: trio.Event = field(default_factory=trio.Event)

    async def run(self, flush: Callable[[list[CacheEntry]], Awaitable[None]]) -> None:
        """Admit entries and flush those that are ready, many at a time, until cancelled."""
        self.running = True
        try:
            while True:
                await self._some.wait()
                with trio.move_on_after(FLUSH_DELAY_S):
                    await self._many.wait()
                ready, self._ready = list(self._ready.values()), {}
                self._some, self._many = trio.Event(), trio.Event()
                await flush(ready)
        finally:
            self.running = False

    def admit(self, entry: CacheEntry) -> None:
        """Defer the file of a new entry, if it is small and not too much waits."""
        size, count = self._bytes + entry.size, len(self._waiting) + 1
        full = size > CAPACITY_BYTES or count > CAPACITY_FILES
        if full or not self.running or entry.size > LARGEST:
            return
        self._bytes = size
        self._waiting[entry.key] = entry.size
        if size > FLUSH_BYTES or count > FLUSH_FILES:
            self._many.set()
        entry.defer(self.mark_ready)

    def mark_ready(self, entry: CacheEntry) -> None:
        """Note that the entry can be flushed: it is complete and checked, or was released."""
        self._ready[entry.key] = entry
        self._some.set()

    def discard(self, entry: CacheEntry) -> None:
        """Forget the entry: it no longer waits."""
        self._bytes -= self._waiting.pop(entry.key, 0)
        self._ready.pop(entry.key, None)


def begin(backend: Backend, entries: Iterable[CacheEntry]) -> list[FlushJob]:
    """Reserve the space and declare the rows, before the files are created."""
    jobs = [FlushJob(entry, entry.generation, entry.begin_flush()) for entry in entries]
    jobs = [job for job in jobs if job.blocks]
    rows = [job.entry.row for job in jobs]
    if not jobs or (
        backend.accepts(0) and backend.attempt(lambda disk: disk.index.declare_all(rows))
    ):
        return jobs
    for job in jobs:
        job.entry.not_flushed()
    return []


def write_files(disk: Disk | None, jobs: Sequence[FlushJob]) -> None:
    """Create the files; call it in a thread. There are no jobs if there is no disk."""
    if disk is None:
        return
    for job in jobs:
        try:
            with closing(disk.files.create(job.entry.key)) as file:
                for index, data in job.blocks:
                    file.write_blocks(index, data)
            job.done = True
        except (OSError, MemoryError) as error:
            job.error = error


def finish(backend: Backend, jobs: Sequence[FlushJob]) -> None:
    """Tell the entries about their files; remove files that are no longer wanted."""
    for job in jobs:
        entry = job.entry
        if job.done and entry.deferred and entry.generation == job.generation:
            entry.flushed(job.blocks)
            continue
        backend.remove({entry.key: entry.stored.disown_file()})
        entry.not_flushed(retry=job.error is None)
        if job.error is not None:
            backend.failed(job.error)
