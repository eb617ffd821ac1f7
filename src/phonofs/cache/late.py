"""Small new contents wait in memory for a moment, and go to disk many at a time.

To make a file costs ten times what it costs to fill it with 50 KB, and a row a transaction: while
somebody reads a folder of small files, that was a third of all the work, done between two reads.
So a small content that is new is written to memory first, with its room on disk charged for, and
put down by the janitor: the rows first, then the files in a thread, then what the rows say of
them. Until then a kill costs a fetch, as before. What the disk does not take stays in memory.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from phonofs.cache.holding import Spread
from phonofs.cache.shelf import Content, Shelf, Stamp

if TYPE_CHECKING:
    from phonofs.cache.ground import Ground
    from phonofs.cache.stock import Stock

LARGEST = 256 << 10
"""Bytes of the largest object that waits: to write more takes longer than to make its file."""

MOST_BYTES = 24 << 20
MOST_FILES = 1000
"""What may wait in all; beyond it files are made at once. At the end of a mount half a second's
work is left."""

MANY_BYTES = 16 << 20
MANY_FILES = 600
"""What need not wait for more: there is room left for what comes while these are put down."""

TOGETHER_S = 2.0
"""How long the first waits for others, unless there are many: to make files beside a reader slows
it by a twentieth, by a tenth where it writes itself (``cp -r``), and a folder of 300 is read by
then."""


class LateContent(Content):
    """A content in memory that is going to be a file. Nobody else keeps its buffer."""

    __slots__ = ("_buffer", "_spread")

    def __init__(self, size: int, spread: Spread) -> None:
        super().__init__(-1, memoryview(b""), in_ram=True, writable=True)
        self._buffer = bytearray(size)
        self._spread = spread

    def spread(self, start: int, stop: int) -> tuple[int, int]:  # type: ignore[override]
        """As it will be on disk."""
        return self._spread(start, stop)

    def read(self, offset: int, n: int) -> bytes:
        """Up to ``n`` bytes."""
        return bytes(memoryview(self._buffer)[offset : offset + n])

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer``; fewer bytes only where the content ends."""
        part = memoryview(self._buffer)[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        return len(part)

    def read_now(self, offset: int, n: int) -> bytes | None:
        """Exactly ``n`` bytes, or None where there are fewer."""
        data = self.read(offset, n)
        return data if len(data) == n else None

    def lend_now(self, offset: int, n: int) -> bytes | None:
        """The same."""
        return self.read_now(offset, n)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Take all of ``data``, which lies within the size it was made for."""
        self._buffer[offset : offset + len(data)] = data

    def punch(self, start: int, stop: int) -> bool:
        """Nothing is given back of so little."""
        return False

    def truncate(self, size: int) -> None:
        """Nothing to do: what is held says what counts."""

    def close(self) -> None:
        """A thread may still be reading it: the last one to leave frees it."""


@dataclass(slots=True)
class Job:
    """A content to be put down: the bytes of ``held`` as they were when it was begun.

    ``stamp`` is that of its file once it is there, ``error`` why it is not.
    """

    stock: "Stock"
    content: LateContent
    epoch: int
    held: list[tuple[int, int]]
    stamp: Stamp | None = None
    error: OSError | MemoryError | None = None

    @property
    def holds(self) -> bool:
        """Whether the content is still what was put down."""
        stock = self.stock
        return (
            not stock.forgotten
            and stock.epoch == self.epoch
            and stock.disk is not None
            and stock.disk.content is self.content
            and list(stock.disk.held) == self.held
        )


class Late:
    """Owns who waits, how much that is, who can be put down and who is being put down.

    open   while somebody is there to put them down
    ready  set while some can be: complete, or nobody's any more
    many   set while they should be, since there is little room for others
    """

    def __init__(self) -> None:
        self.open = False
        self.ready = trio.Event()
        self.many = trio.Event()
        self._bytes = 0
        self._waiting: dict[bytes, int] = {}
        self._ready: dict[bytes, Stock] = {}
        self._going: set[bytes] = set()

    def place(self, stock: "Stock", spread: Spread) -> LateContent | None:
        """A place for a new content; None where it has to be a file at once."""
        key = stock.identity.key
        self._bytes -= self._waiting.pop(key, 0)
        size, count = self._bytes + stock.size, len(self._waiting) + 1
        full = size > MOST_BYTES or count > MOST_FILES
        if not self.open or full or stock.size > LARGEST:
            return None
        content = LateContent(stock.size, spread)
        self._bytes, self._waiting[key] = size, stock.size
        if size > MANY_BYTES or count > MANY_FILES:
            self.many.set()
        return content

    def can_go(self, stock: "Stock") -> None:
        """It may be complete now, or let go of."""
        if stock.late and not stock.forgotten and (stock.complete or not stock.pinned):
            self._ready[stock.identity.key] = stock
            self.ready.set()

    def left(self, stock: "Stock") -> None:
        """It does not wait any more."""
        self._bytes -= self._waiting.pop(stock.identity.key, 0)
        self._ready.pop(stock.identity.key, None)

    def going(self, stock: "Stock") -> bool:
        """Whether it is being put down at this moment."""
        return stock.identity.key in self._going

    def take_ready(self) -> list["Stock"]:
        """Those that can be put down now."""
        ready, self._ready = self._ready, {}
        self.ready, self.many = trio.Event(), trio.Event()
        return list(ready.values())

    def begin(self, ground: "Ground", stocks: Iterable["Stock"]) -> list[Job]:
        """Declare them: their rows are there before their files."""
        jobs = [job for job in map(_job, stocks) if job and not self.going(job.stock)]
        identities = [(job.stock.identity, job.stock.size) for job in jobs]
        if not jobs:
            return []
        if not ground.to_disk(0) or not ground.asked(lambda index: index.declare_all(identities)):
            for job in jobs:
                job.stock.stay_in_memory()
            return []
        self._going.update(job.stock.identity.key for job in jobs)
        return jobs

    def finish(self, ground: "Ground", jobs: Sequence[Job]) -> None:
        """Have the stocks know their files, and the rows say so."""
        self._going.difference_update(job.stock.identity.key for job in jobs)
        there = []
        for job in jobs:
            if job.stamp is not None and job.holds:
                job.stock.put_down(job.stamp)
                there.append(job.stock)
            else:
                _undo(ground, job)
        ground.save_all(there)

    def put_now(self, ground: "Ground", stocks: Iterable["Stock"]) -> None:
        """Put some down at once, on the event loop."""
        if ground.disk is not None:
            jobs = self.begin(ground, stocks)
            carry_out(ground.disk.shelf, jobs)
            self.finish(ground, jobs)


def carry_out(shelf: Shelf, jobs: Iterable[Job]) -> None:
    """Make the files; in a thread."""
    for job in jobs:
        try:
            content = shelf.create(job.stock.identity.key)
            try:
                for start, stop in job.held:
                    content.write(start, job.content.read(start, stop - start))
                content.finish()
                job.stamp = content.stamp()
            finally:
                content.close()
        except (OSError, MemoryError) as error:
            job.stamp, job.error = None, error


def _job(stock: "Stock") -> Job | None:
    disk = stock.disk
    if disk is None or not isinstance(disk.content, LateContent) or stock.forgotten:
        return None
    if not disk.held:
        stock.abandon_disk()
        return None
    return Job(stock, disk.content, stock.epoch, list(disk.held))


def _undo(ground: "Ground", job: Job) -> None:
    """It could not be put down, or is not the same any more."""
    stock = job.stock
    ground.remove_file(stock.identity)
    if job.error is not None:
        ground.trouble(job.error)
        stock.stay_in_memory()
