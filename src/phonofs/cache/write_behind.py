"""Small new objects wait in memory for a moment and go to disk many at a time.

Making a file costs ten times as much as filling it with 50 KB, and a row a transaction: while a
folder of small files was read, that was a third of all the work, done between two reads. So the
file of a small new object is made by the maintenance task: the rows first, then the files in a
thread, then what the rows say of them. A kill before that costs a fetch. What the disk does not
take stays in memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from phonofs.cache.backend import Backend
from phonofs.cache.entry import CacheEntry
from phonofs.cache.filestore import FileStore

LARGEST = 256 << 10
"""Bytes of the largest object that waits: to write more takes longer than to make its file."""

CAPACITY_BYTES = 24 << 20
CAPACITY_FILES = 1000
"""What may wait at once; past it files are made immediately. Flushing a full buffer at unmount
takes about 0.5 s."""

FLUSH_BYTES = 16 << 20
FLUSH_FILES = 600
"""When a flush no longer waits for more: there is capacity left for what comes meanwhile."""

FLUSH_DELAY_S = 2.0
"""How long the first waits for others, unless there are many: making files beside a reader slows
it by a twentieth, by a tenth if it writes itself (``cp -r``); a folder of 300 is read by then."""


@dataclass(slots=True)
class FlushJob:
    """One file to make: the whole blocks of an entry as they were when the flush began.

    ``error`` is why the file is not there.
    """

    entry: CacheEntry
    generation: int
    blocks: list[tuple[int, bytes]]
    error: OSError | MemoryError | None = None
    done: bool = False

    @property
    def current(self) -> bool:
        """Whether the entry still has what the file was made of."""
        return self.entry.deferred and self.entry.generation == self.generation


@dataclass(slots=True)
class WriteBehind:
    """Owns who waits, how much that is, and who is ready to be flushed.

    running  whether there is a task that flushes; without it nothing is admitted
    """

    running: bool = False
    _bytes: int = 0
    _waiting: dict[bytes, int] = field(default_factory=dict)
    _ready: dict[bytes, CacheEntry] = field(default_factory=dict)
    _some: trio.Event = field(default_factory=trio.Event)
    _many: trio.Event = field(default_factory=trio.Event)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Admit entries: there is a task that flushes them."""
        self.running = True
        try:
            yield
        finally:
            self.running = False

    def admit(self, entry: CacheEntry) -> bool:
        """Have the file of a new entry made later; False if it has to be made at once."""
        size, count = self._bytes + entry.size, len(self._waiting) + 1
        full = size > CAPACITY_BYTES or count > CAPACITY_FILES
        if not self.running or full or entry.size > LARGEST:
            return False
        self._bytes = size
        self._waiting[entry.identity.key] = entry.size
        if size > FLUSH_BYTES or count > FLUSH_FILES:
            self._many.set()
        entry.defer(self.mark_ready)
        return True

    def mark_ready(self, entry: CacheEntry) -> None:
        """The entry is complete and checked, or nobody uses it any more: it can be flushed."""
        self._ready[entry.identity.key] = entry
        self._some.set()

    def discard(self, entry: CacheEntry) -> None:
        """The entry does not wait any more."""
        self._bytes -= self._waiting.pop(entry.identity.key, 0)
        self._ready.pop(entry.identity.key, None)

    async def wait(self) -> None:
        """Wait until something is ready, and then until there is much of it, or long enough."""
        await self._some.wait()
        with trio.move_on_after(FLUSH_DELAY_S):
            await self._many.wait()

    def take_ready(self) -> list[CacheEntry]:
        """Return the entries to flush now."""
        ready, self._ready = list(self._ready.values()), {}
        self._some, self._many = trio.Event(), trio.Event()
        return ready


def begin(backend: Backend, entries: Iterable[CacheEntry]) -> list[FlushJob]:
    """Reserve the space and declare the rows, which are there before the files."""
    jobs = []
    for entry in entries:
        blocks = entry.flush_data() if entry.deferred else []
        if blocks and entry.reserve([index for index, _ in blocks]):
            jobs.append(FlushJob(entry, entry.generation, blocks))
        elif entry.deferred and (blocks or not entry.pins):
            entry.not_flushed()
    objects = [(job.entry.identity, job.entry.size) for job in jobs]
    if jobs and not (backend.accepts(0) and backend.declare(objects)):
        for job in jobs:
            job.entry.not_flushed()
        return []
    return jobs


def write_files(files: FileStore, jobs: Sequence[FlushJob]) -> None:
    """Make the files; in a thread."""
    for job in jobs:
        try:
            file = files.create(job.entry.identity.key)
            try:
                for index, data in job.blocks:
                    file.write_blocks(index, data)
                job.done = True
            finally:
                file.close()
        except (OSError, MemoryError) as error:
            job.done, job.error = False, error


def finish(backend: Backend, jobs: Sequence[FlushJob]) -> None:
    """Have the entries know their files; a file that is not wanted any more is removed."""
    for job in jobs:
        if job.done and job.current:
            job.entry.flushed(job.blocks)
            continue
        backend.remove_file(job.entry.identity)
        job.entry.not_flushed(retry=job.error is None)
        if job.error is not None:
            backend.failed(job.error)
