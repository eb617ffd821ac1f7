"""One object in the cache: which of its bytes are present, and how they are checked and read.

A block is written to disk whole, with its CRC. A block that is not whole yet, or cannot go to
disk, is a buffer in memory. Bytes are checked before they are read:

- bytes written in this run came over an authenticated connection and are read unchecked;
- a block of an earlier run, or of a file that was closed meanwhile, is checked against its CRC
  once while the file is open;
- an object that was complete in an earlier run, but was not checked against its checksum (because
  the process was killed), is checked as a whole before any of its bytes are read;
- every object is checked as a whole when it becomes complete; the reader starts that check.

So a later mount can read single blocks of a partial object: the service sent these bytes, and the
check of the complete object shows whether they are right.
"""

import logging
from collections.abc import Callable
from functools import partial

import trio

from phonofs.cache.backend import Backend
from phonofs.cache.blockfile import View
from phonofs.cache.blocks import BLOCK, Data, block_count, bytes_of, touched_blocks
from phonofs.cache.buffers import BufferPool
from phonofs.cache.checked_read import Outcome, Source, read_blocks
from phonofs.cache.checksum_task import HASH_NOW, ChecksumTask
from phonofs.cache.hash_threads import HashJob
from phonofs.cache.index import Row
from phonofs.cache.stored_blocks import StoredBlocks, StoredRange
from phonofs.ranges import Ranges

log = logging.getLogger(__name__)


HASH_PIECE = 1 << 20
"""Bytes that are passed on to be hashed at a time, but for the last ones; of a small object an
eighth, so that little is left to hash when it is complete."""


class CacheEntry:
    """The cached bytes of one object. Returned by ``Cache.entry``, which pins it.

    All methods run on the event loop; ``read`` and the checks do their slow part in a thread.

    row         its row when it was opened: says which content it is
    stored      its blocks that are on disk; the cache saves their row and removes the file
    key         names the content
    size        length of the object in bytes: the real length, once it is known
    present     bytes that can be read, on disk or in memory; only this class changes it
    in_memory   new bytes stay in memory, because the disk must not be used
    deferred    write-behind creates its file later; until then its blocks stay in memory
    pins        number of users
    withdrawn   the service withdrew the object: no byte can be read or written any more
    generation  increases with every loss, so that the outcome of an earlier read does not count
    attachment  what its last user attached for the next one; None once it was closed

    Invariant: a block is either stored, or has a buffer, or is not present.
    """

    def __init__(self, backend: Backend, pool: BufferPool, row: Row, known: Row | None) -> None:
        """``known`` is the row from the index, if there is one; else ``row`` says what it is."""
        self.row = known or row
        self.key = row.key
        self.size = self.row.size if self.row.bytes else row.size
        self.in_memory = True  # until it is pinned
        self.deferred = False
        self.pins = 0
        self.withdrawn = False
        self.generation = 0
        self.attachment: object = None
        self._backend = backend
        self._pool = pool
        self.stored = StoredBlocks(
            backend, self.row, self.size, self._lose, self._pass_by, known=known is not None
        )
        self.present = Ranges(bytes_of(*run, self.size) for run in self.stored.runs)
        self._buffers: dict[int, bytearray] = {}
        self._ready: Callable[[CacheEntry], None] = lambda entry: None
        self._hash_job: HashJob | None = None
        self._passed_on = 0
        self._task = ChecksumTask(
            self.row, self.present, self.size, self.hash_on, self.hash_arriving, self._decided
        )

    @property
    def verified(self) -> bool:
        """Whether the whole object has the right checksum, or length if it has no checksum."""
        return self._task.verified

    @property
    def unverified(self) -> bool:
        """Whether it was complete in an earlier run but not verified: no byte can be read yet."""
        return self._task.unverified

    @property
    def complete(self) -> bool:
        """Whether every byte is present."""
        return self.present.covers(0, self.size)

    @property
    def memory_bytes(self) -> int:
        """Bytes of its buffers."""
        return sum(map(len, self._buffers.values()))

    @property
    def cached_bytes(self) -> int:
        """Bytes that are on disk or will be; those that stay in memory do not count."""
        return self.stored.total_bytes if self.in_memory else self.present.total()

    @property
    def reusable(self) -> bool:
        """Whether it is worth keeping open after it was released."""
        return bool(self.present) and not (self.in_memory or self.stored.unreadable)

    # Users

    def pin(self) -> None:
        """Add a user."""
        if not self.pins and not self.deferred:
            self.in_memory = self.stored.unreadable or not self._backend.accepts(self.size)
        self.pins += 1

    def attach(self, thing: object) -> None:
        """Keep a thing of its user as long as the entry stays open."""
        self.attachment = thing

    def unpin(self) -> bool:
        """Remove a user; return whether none is left."""
        self.pins = max(0, self.pins - 1)
        return not self.pins

    # Writing

    def write(self, offset: int, data: Data) -> None:
        """Store bytes of the object: whole blocks on disk, all others in memory.

        Raises nothing. If there is neither disk nor memory, the bytes are not stored and not added
        to ``present``. Bytes beyond ``size`` and bytes of a verified object are not stored.
        """
        view = memoryview(data)[: max(0, self.size - offset)]
        if not view or self.withdrawn or self._task.verified:
            return
        before = self.present.total()
        at, stop = offset, offset + len(view)
        while at < stop:
            last = self._whole_run(at, stop)
            end = min(last * BLOCK, self.size) if last else min((at // BLOCK + 1) * BLOCK, stop)
            piece = view[at - offset : end - offset]
            if not (last and self._store(at // BLOCK, piece)):
                for start in range(at, end, BLOCK):
                    self._buffer(start, piece[start - at : start - at + BLOCK])
            at = end
        if max(self._task.position, self._passed_on) > offset:
            self._hash_anew()
        self._pass_on()
        written = self.present.total() - before
        self._backend.counters["written_bytes"] += written
        self._backend.counters["refused_bytes"] += len(view) - written

    def _whole_run(self, at: int, stop: int) -> int:
        """Return the end of the run of whole blocks without a buffer at ``at``, 0 if none."""
        first = at // BLOCK
        if at % BLOCK or self.in_memory or self.deferred:
            return 0
        last = block_count(stop) if stop == self.size else stop // BLOCK
        end = next((index for index in range(first, last) if index in self._buffers), last)
        return end if end > first else 0

    def _buffer(self, at: int, piece: memoryview) -> None:
        """Write part of one block into its buffer; write the block to disk if it is whole now."""
        index = at // BLOCK
        if self.stored.runs.covers(index, index + 1):
            return
        start, stop = bytes_of(index, index + 1, self.size)
        buffer = self._buffers.get(index)
        if buffer is None:
            try:
                buffer = bytearray(stop - start)
                self._pool[self._drop_buffer, index] = buffer
            except MemoryError as error:
                self._backend.no_memory(error)
                return
            self._buffers[index] = buffer
        buffer[at - start : at - start + len(piece)] = piece
        self.present.add(at, at + len(piece))
        if self._is_whole(index) and not (self.in_memory or self.deferred):
            self._store_buffer(index)

    def _is_whole(self, index: int) -> bool:
        return self.present.covers(*bytes_of(index, index + 1, self.size))

    def _store_buffer(self, index: int) -> None:
        if self._store(index, memoryview(self._buffers[index])):
            self._forget_buffer(index)

    def _store(self, first: int, blocks: memoryview) -> bool:
        """Write whole blocks to disk; return False if they must stay in memory."""
        if not self.stored.write(first, blocks):
            log.debug("the disk does not take %s: it is read through memory", self.row.id)
            self.in_memory = True
            return False
        self.present.add(*bytes_of(first, first + block_count(len(blocks)), self.size))
        return True

    # Buffers

    def keep(self, ranges: Ranges) -> None:
        """Drop the buffers outside ``ranges`` if the object stays in memory."""
        for index in list(self._buffers) if self.in_memory else ():
            start, stop = bytes_of(index, index + 1, self.size)
            if ranges.missing(start, stop) == [(start, stop)]:
                self._drop(index, index + 1)

    def _forget_buffer(self, index: int) -> None:
        self._buffers.pop(index, None)
        self._pool.pop((self._drop_buffer, index), None)

    def _drop_buffer(self, index: int) -> None:
        self._drop(index, index + 1)

    # Reading

    def read_now(self, offset: int, n: int) -> bytes | None:
        """Return exactly ``n`` bytes, or None if that would wait or they are not present."""
        data = self.lend_now(offset, n)
        return bytes(data) if data is not None else None

    def lend_now(self, offset: int, n: int) -> View | None:
        """Like :meth:`read_now`; a memoryview is valid until the next read of any entry."""
        stop = offset + n
        if self._task.unverified or not self.present.covers(offset, stop):
            return None
        first, last = touched_blocks(offset, stop)
        if self.stored.runs.covers(first, last):
            data = self.stored.view_nowait(first, last, offset, stop)
        else:
            data = self._join(first, last, offset, stop)
        if data is not None:
            self._backend.counters["read_bytes"] += n
        return data

    def lend_stored(self, offset: int, n: int) -> StoredRange | None:
        """Like :meth:`lend_now`, of bytes that stay in the file: of a verified object only."""
        if not self._task.verified:
            return None
        stored = self.stored.range_nowait(offset, offset + n)
        if stored is not None:
            self._backend.counters["read_bytes"] += n
        return stored

    def _join(self, first: int, last: int, offset: int, stop: int) -> bytes | None:
        """Return a range of which some blocks are in buffers."""
        parts = []
        for index in range(first, last):
            start, end = bytes_of(index, index + 1, self.size)
            a, b = max(start, offset), min(end, stop)
            buffer = self._buffers.get(index)
            data: View | None
            if buffer is not None:
                self._pool.get((self._drop_buffer, index))
                data = memoryview(buffer)[a - start : b - start]
            else:
                data = self.stored.view_nowait(index, index + 1, a, b)
            if data is None:
                return None
            parts.append(bytes(data))
        return b"".join(parts)

    async def read(self, offset: int, n: int) -> bytes | None:
        """Return exactly ``n`` bytes, read in a thread if needed; None if they must be fetched.

        Bytes that could not be read from disk are removed from ``present``.
        """
        if n and self.unverified and not await self.check():
            return None
        data = self.read_now(offset, n) if n else b""
        if data is not None:
            await trio.lowlevel.checkpoint()
            return data
        outcome = await self._read_blocks(offset, offset + n)
        if outcome is None:
            return None
        self._backend.counters["read_bytes"] += n
        start = offset % BLOCK
        return outcome.data[start : start + n]

    async def hash_on(self, hashed: Callable[[memoryview], None], start: int, stop: int) -> bool:
        """Hash ``[start, stop)``; return False if bytes were lost.

        ``start`` must be the start of a block. More than HASH_NOW bytes are hashed in a thread.
        """
        data = self.read_now(start, stop - start) if stop - start <= HASH_NOW else None
        if data is not None:
            await trio.lowlevel.checkpoint()  # if it is cancelled, nothing was hashed
            hashed(memoryview(data))
            return True
        return await self._read_blocks(start, stop, hashed) is not None

    async def hash_arriving(self, hashed: Callable[[memoryview], None], start: int) -> int | None:
        """Hash what is there from ``start`` on, and what comes meanwhile, in a thread.

        ``start`` must be the start of a block. Returns where it ended; None if bytes were lost.
        Blocks that the disk gives back otherwise than they were written in this run are hashed
        like that. Raises MemoryError.
        """
        job = self._hash_job = self._backend.hash_threads.begin(hashed)
        self._passed_on = start
        generation = self.generation
        with self.stored.in_use():
            try:
                self._pass_on()
                await job.rest()
                self._pass_on(least=1)
            finally:
                if self._hash_job is job:
                    self._hash_job = None
                outcome = await job.outcome()
        if self.generation != generation or not self._believe(outcome):
            return None
        return outcome.stop or start

    def _pass_on(self, least: int = HASH_PIECE) -> None:
        """Have the blocks hashed that have come, if these are at least so many bytes."""
        start, stop = self._passed_on, self.present.stop_of(self._passed_on)
        if stop < self.size:
            stop -= stop % BLOCK
            stop = stop if stop - start >= min(least, self.size // 8) else start
        if self._hash_job is None or start >= stop:
            return
        file = self.stored.open() if self.stored.runs else None
        if self._hash_job is None:
            return  # the file could not be opened, so its blocks were dropped
        numbers = range(*touched_blocks(start, stop))
        self._hash_job.pass_on(file, [self._source(number, again=False) for number in numbers])
        self._passed_on = stop
        if stop == self.size:
            self._pass_no_more()

    def _hash_anew(self) -> None:
        """Bytes that were hashed, or passed on, have changed."""
        self.generation += 1
        self._pass_no_more()
        self._passed_on = 0
        self._task.restart()

    def _pass_no_more(self) -> None:
        """Have no more hashed of what comes."""
        if self._hash_job is not None:
            self._hash_job.end()
            self._hash_job = None

    async def _read_blocks(
        self, start: int, stop: int, hashed: Callable[[memoryview], None] | None = None
    ) -> Outcome | None:
        """Read the blocks of ``[start, stop)`` in a thread; None if any is bad or missing."""
        file = self.stored.open() if self.stored.runs else None
        if not self.present.covers(start, stop):  # now at the latest
            await trio.lowlevel.checkpoint()
            return None
        sources = [self._source(index) for index in range(*touched_blocks(start, stop))]
        generation = self.generation
        with self.stored.in_use():
            outcome = await self._backend.in_thread(partial(read_blocks, file, sources, hashed))
        if self.generation != generation or not self._believe(outcome):
            return None
        return outcome

    def _source(self, index: int, *, again: bool = True) -> Source:
        """Return where a thread reads a block: the file, or its buffer.

        Its CRC is not checked ``again`` if it was written or checked while the file was open.
        """
        start, stop = bytes_of(index, index + 1, self.size)
        buffer = self._buffers.get(index)
        if buffer is not None:
            return Source(index, start, stop, memoryview(buffer), None)
        sure = not again and self.stored.is_checked(index)
        return Source(index, start, stop, None, None if sure else self.stored.crc(index))

    def _believe(self, outcome: Outcome) -> bool:
        """Apply the outcome of a read in a thread; return whether all blocks were right.

        If the disk cannot be read, the bytes are not written there again but fetched into memory.
        """
        if outcome.failure is not None:
            self.in_memory = True
            self._backend.failed(outcome.failure)
        for index in outcome.good:
            self.stored.checked(index)
        for index in outcome.bad:
            self._lose(index, index + 1)
        return not outcome.bad

    def _pass_by(self) -> None:
        """Do without the file, which cannot be opened now: its bytes are fetched into memory."""
        self.in_memory = True
        for run in list(self.stored.runs):
            self._drop(*run)

    # Checking the whole

    async def check(self) -> bool:
        """Return whether the content has the checksum of its record, or its length if it has none.

        Reads the whole content once, in a thread. A result of True is remembered, also in later
        runs. Returns False if the object is not complete or is wrong. The bytes of a wrong object
        can be read until :meth:`reset`, unless they are from an earlier run.
        """
        return await self._task.whole()

    def check_now(self) -> bool:
        """Return whether a small object is right if that is quickly known.

        False proves nothing: call :meth:`check` then.
        """
        if self.verified:
            return True
        if self.size > HASH_NOW or self.unverified or not self.complete:
            return False
        data = self.read_now(0, self.size)
        return data is not None and self._task.now(data)

    async def check_parts(self) -> bool:
        """Return whether the content has the multipart checksum of its record.

        The size of the parts is unknown, so common sizes are tried. True proves the content and
        its length, and is remembered as by :meth:`check`; False proves nothing.
        """
        return await self._task.in_parts()

    def accept(self) -> None:
        """Accept the complete content as right in this run, whatever its checksum.

        A later run checks it again.
        """
        self._task.accept()

    async def check_ahead(self) -> None:
        """Hash the bytes present from the start on, and those that come while it does.

        So :meth:`check` has only the rest to do.
        """
        await self._task.ahead()

    def _decided(self, right: bool) -> None:
        """Note whether the whole content is right; forget a wrong one of an earlier run."""
        if not right and self.unverified:
            log.warning("%s in the cache does not have its checksum", self.row.id)
            self.reset()
        elif right and self.deferred:
            self._ready(self)
        elif right:
            self.stored.changed(at_once=True)

    # Losing

    def _drop(self, first: int, last: int) -> None:
        """Forget these blocks, on disk and in memory."""
        self.generation += 1
        self._pass_no_more()
        self._passed_on = 0
        self.stored.drop(first, last)
        for index in [index for index in self._buffers if first <= index < last]:
            self._forget_buffer(index)
        self.present.remove(first * BLOCK, last * BLOCK)
        self._task.lost(self.size)

    def _lose(self, first: int, last: int) -> None:
        """Forget blocks that turned out to be wrong or missing: they must be fetched again."""
        start, stop = bytes_of(first, last, self.size)
        log.warning(
            "the cache lost the bytes %d to %d of %s, which are fetched again",
            start,
            stop,
            self.row.id,
        )
        self._backend.counters["lost_bytes"] += stop - start
        self._drop(first, last)
        self.stored.changed()

    def reset(self) -> None:
        """Forget every byte, on disk and in memory."""
        self._drop(0, block_count(self.size))
        if self.stored.has_file:
            self.stored.open()
            self.stored.cut(self.size, 0)
            self._backend.wake.set()

    def resize(self, size: int) -> None:
        """Set the real length of the object to ``size`` bytes, and forget the bytes beyond it."""
        if size == self.size:
            return
        edge, end = min(size, self.size), max(size, self.size)
        kept = self._cut_block(edge)
        self.size = size
        self._drop(edge // BLOCK, block_count(end))  # the length of the block at the edge changes
        self.stored.cut(size, block_count(edge))
        for start, piece in kept:
            self._buffer(start, piece)
        if self.deferred and end == size:
            self._defer_no_longer()

    def _cut_block(self, edge: int) -> list[tuple[int, memoryview]]:
        """Return the checked bytes of the block that a new length cuts, as (offset, bytes)."""
        index, start = edge // BLOCK, edge // BLOCK * BLOCK
        buffer = self._buffers.get(index)
        if buffer is not None:
            data, there = memoryview(buffer), self.present
            cut = ((max(a, start), min(b, edge)) for a, b in there if a < edge and start < b)
            return [(a, data[a - start : b - start]) for a, b in cut]
        if edge == start or not self.stored.is_checked(index):
            return []  # once cut, a block of an earlier run cannot be checked
        found = self.read_now(start, edge - start)
        return [(start, memoryview(found))] if found is not None else []

    def withdraw(self) -> None:
        """Forget every byte and accept no more: the service withdrew the object."""
        self.withdrawn = True
        self.deferred = False
        self._drop(0, block_count(self.size))

    def close(self) -> None:
        """Close the file and drop the buffers; blocks on disk can be opened again."""
        self.attachment = None
        self._pass_no_more()
        for index in list(self._buffers):
            self._forget_buffer(index)
            self.present.remove(*bytes_of(index, index + 1, self.size))
            self.generation += 1
        self.stored.close()
        self.deferred = False

    # Write-behind

    @property
    def deferrable(self) -> bool:
        """Whether its file can be created later: it has neither a file nor an open row."""
        started = self.stored.has_file or self.stored.row_open
        return not (started or self.in_memory or self.deferred)

    def defer(self, ready: "Callable[[CacheEntry], None]") -> None:
        """Leave the creation of its file to write-behind; ``ready`` is called when it is ready."""
        self.deferred = True
        self._ready = ready

    def _defer_no_longer(self) -> None:
        """Write its whole blocks to disk at once, because the object grew."""
        self.deferred = False
        for index in [index for index in self._buffers if self._is_whole(index)]:
            self._store_buffer(index)

    def begin_flush(self) -> list[tuple[int, bytes]]:
        """Charge for the file to be created; return its blocks, as (index, bytes).

        Empty if no block is whole, or the disk does not accept them: then they stay in memory.
        """
        whole = [index for index in sorted(self._buffers) if self._is_whole(index)]
        if self.deferred and whole and all(self.stored.charge(i, i + 1) for i in whole):
            return [(index, bytes(self._buffers[index])) for index in whole]
        if self.deferred and (whole or not self.pins):
            self.not_flushed()
        return []

    def flushed(self, blocks: list[tuple[int, bytes]]) -> None:
        """Note that its file was created with these blocks, and closed."""
        self.deferred = False
        self.stored.flushed(blocks)
        for index, _ in blocks:
            self._forget_buffer(index)

    def not_flushed(self, *, retry: bool = False) -> None:
        """Note that its file was not created: it stays in memory, or until the next ``retry``."""
        self._backend.budget.release(self.stored.disown_file())
        if not retry:
            self.deferred = False
            self.in_memory = True

    # Its row

    @property
    def worthless(self) -> bool:
        """Whether its file can be removed if :meth:`saving` returns None: nothing writes it."""
        gone = self.withdrawn or self.stored.unreadable or self.pins
        return self.stored.has_file and not gone

    def saving(self) -> Row | None:
        """Return the row to save, or None if none is needed."""
        stored = self.stored
        if self.withdrawn or stored.unreadable or not stored.has_file:
            return None
        verified = self.verified and not self._task.accepted
        final = not self.pins or stored.total_bytes == self.size
        if final and not stored.runs:
            return None
        return stored.row(verified=verified, final=final)
