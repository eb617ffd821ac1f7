"""One object in the cache: which of its bytes are here, and giving them out checked.

A block goes to disk whole, with its CRC. What is not whole yet, or may not go to disk, is a
buffer in memory. What a byte has to pass before it is given out:

- a byte written in this run came over an authenticated connection and is given out as it is;
- a block of an earlier run, or of a file that was closed meanwhile, is given out after its CRC
  was found right, once while the file is open;
- an object that was complete in an earlier run but was not checked against its checksum (the
  process was killed before) is checked as a whole before any of it is given out;
- every object is checked as a whole when it becomes complete: the reader asks for that.

So a partial object does serve single blocks to a later mount: they are bytes that the service
gave, and whether they are the right ones shows when the object is complete.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

import trio

from phonofs.cache.backend import Backend
from phonofs.cache.blockfile import View
from phonofs.cache.blocks import (
    BLOCK,
    BlockChecksums,
    Data,
    block_count,
    bytes_of,
    crcs_of,
    touched_blocks,
)
from phonofs.cache.buffers import Buffer, BufferPool
from phonofs.cache.checksum_task import HASH_NOW, ChecksumTask
from phonofs.cache.index import Identity, Row, Saved
from phonofs.cache.read_plan import Outcome, ReadPlan, Source
from phonofs.cache.stored_blocks import StoredBlocks
from phonofs.ranges import Ranges

log = logging.getLogger(__name__)


class CacheEntry:
    """The bytes of one object that are here. Got from ``Cache.blob``, which pins it.

    Everything runs on the event loop; ``read`` and the checks hand the slow part to a thread.

    identity    which content it is
    size        length of the object in bytes: the real one, once that is known
    present     bytes that can be read, on disk or in memory; not to be changed by others
    verified    the whole had the right checksum, or the right length if there is no more to check
    accepted    it counts as verified in this run only, since its checksum is another one
    unverified  complete in an earlier run and not verified then: nothing of it is given out yet
    in_memory   what is written stays in memory, because the disk is not to be used
    deferred    its file is made later, by write-behind; until then it waits in memory
    pins        how many use it
    withdrawn   the service took the object back: nothing is given out or kept any more
    generation  goes up with every loss, so that what a thread found out before does not count

    Invariant: a block is stored, or has a buffer, or is not here.
    """

    def __init__(
        self,
        backend: Backend,
        pool: BufferPool,
        identity: Identity,
        size: int,
        *,
        row: Row | None = None,
        checksums: BlockChecksums | None = None,
    ) -> None:
        """``row`` and ``checksums`` are what the index knows of it."""
        self.identity = identity
        self.size = row.size if row is not None else size
        self.verified = row is not None and row.verified
        self.accepted = False
        self.in_memory = True  # until it is pinned
        self.deferred = False
        self.pins = 0
        self.withdrawn = False
        self.generation = 0
        self.unsaved_bytes = 0
        self.unsaved_since: float | None = None
        self._backend = backend
        self._pool = pool
        self._stored = StoredBlocks(
            backend,
            identity,
            self.size,
            self._lose,
            charge=row.charge if row is not None else None,
            checksums=checksums or BlockChecksums(),
        )
        self.present = Ranges(bytes_of(*run, self.size) for run in self._stored.runs)
        self.unverified = bool(self.present) and self.complete and not self.verified
        self._buffers: dict[int, Buffer] = {}
        self._needed: dict[object, tuple[int, int]] = {}
        self._ready: Callable[[CacheEntry], None] = lambda entry: None
        self._task = ChecksumTask(self)

    def __repr__(self) -> str:
        return f"<CacheEntry {self.identity.id} {self.present.total()}/{self.size}>"

    @property
    def checksum(self) -> str:
        """The checksum of the record, which the whole is checked against."""
        return self.identity.checksum

    @property
    def complete(self) -> bool:
        """Whether every byte is present."""
        return self.present.covers(0, self.size)

    @property
    def busy(self) -> bool:
        """Whether a thread is using its file."""
        return self._stored.busy

    @property
    def unsaved(self) -> bool:
        """Whether its row is not what it has to be once the entry is closed."""
        stored = self._stored
        return (self.unsaved_since is not None or stored.row_open) and not stored.unreadable

    @property
    def memory_bytes(self) -> int:
        """Bytes its buffers take."""
        return sum(len(buffer.data) for buffer in self._buffers.values())

    @property
    def cached_bytes(self) -> int:
        """Bytes that are on disk or about to be; those that stay in memory do not count."""
        return self._stored.total_bytes if self.in_memory else self.present.total()

    @property
    def has_file(self) -> bool:
        """Whether there is a file of it."""
        return self._stored.has_file

    @property
    def charged(self) -> int:
        """Bytes charged for what it has on disk."""
        return self._stored.charged

    @property
    def reusable(self) -> bool:
        """Whether it is worth keeping open once nobody uses it."""
        return bool(self.present) and not (self.in_memory or self._stored.unreadable)

    # Users

    def pin(self) -> None:
        """Note one more user."""
        if not self.pins and not self.deferred:
            self.in_memory = self._stored.unreadable or not self._backend.accepts(self.size)
        self.pins += 1

    def unpin(self) -> bool:
        """Note one user less; whether nobody uses it any more."""
        self.pins = max(0, self.pins - 1)
        return not self.pins

    def need(self, ticket: object, start: int, stop: int) -> None:
        """Keep the buffers of ``[start, stop)`` until :meth:`unneed`: a read waits for them."""
        self._needed[ticket] = (start, stop)

    def unneed(self, ticket: object) -> None:
        """A read does not wait any more."""
        self._needed.pop(ticket, None)

    # Writing

    def write(self, offset: int, data: Data) -> None:
        """Keep bytes of the object: whole blocks on disk, all else in memory.

        Raises nothing. In the worst case (no disk, no memory) they are not kept, and ``present``
        says so. Bytes behind ``size`` are not kept, nor any of a verified object.
        """
        view = memoryview(data)[: max(0, self.size - offset)]
        if not view or self.withdrawn or self.verified:
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
        if self._task.position > offset:
            self._task.restart()
        self._backend.counters.written(self.present.total() - before, len(view))

    def _whole_run(self, at: int, stop: int) -> int:
        """Return the end of the run of whole blocks without a buffer at ``at``, 0 if none."""
        first = at // BLOCK
        if at % BLOCK or self.in_memory or self.deferred:
            return 0
        last = block_count(stop) if stop == self.size else stop // BLOCK
        end = next((index for index in range(first, last) if index in self._buffers), last)
        return end if end > first else 0

    def _buffer(self, at: int, piece: memoryview) -> None:
        """Put part of one block into its buffer, and on to disk if that made it whole."""
        index = at // BLOCK
        if self._stored.runs.covers(index, index + 1):
            return
        start, stop = bytes_of(index, index + 1, self.size)
        buffer = self._buffers.get(index)
        if buffer is None:
            try:
                buffer = self._pool.add(self, index, stop - start)
            except MemoryError as error:
                self._backend.no_memory(error)
                return
            self._buffers[index] = buffer
        buffer.put(at - start, piece)
        self.present.add(at, at + len(piece))
        if buffer.whole and not (self.in_memory or self.deferred):
            self._store_buffer(index)

    def _store_buffer(self, index: int) -> None:
        if self._store(index, memoryview(self._buffers[index].data)):
            self._forget_buffer(index)

    def _store(self, first: int, blocks: memoryview) -> bool:
        """Write whole blocks to disk; False if they have to stay in memory."""
        if not self._stored.write(first, blocks):
            log.debug("the disk does not take %s: it is read through memory", self.identity.id)
            self.in_memory = True
            return False
        self.present.add(*bytes_of(first, first + block_count(len(blocks)), self.size))
        self._changed(len(blocks))
        return True

    # Buffers

    def drop_buffer(self, index: int) -> bool:
        """Drop the buffer of a block to save memory; False if it must stay."""
        start, stop = bytes_of(index, index + 1, self.size)
        needed = any(a < stop and start < b for a, b in self._needed.values())
        if needed or (self.deferred and not self.in_memory):
            return False
        self._drop(index, index + 1)
        return True

    def keep(self, ranges: Ranges) -> None:
        """Of an object in memory only ``ranges`` is still wanted: drop the other blocks."""
        for index in list(self._buffers) if self.in_memory else ():
            start, stop = bytes_of(index, index + 1, self.size)
            if ranges.missing(start, stop) == [(start, stop)]:
                self._drop(index, index + 1)

    def _forget_buffer(self, index: int) -> None:
        if self._buffers.pop(index, None) is not None:
            self._pool.remove(self, index)

    # Reading

    def read_now(self, offset: int, n: int) -> bytes | None:
        """Return exactly ``n`` bytes, or None if that would wait or they are not here."""
        data = self.lend_now(offset, n)
        return bytes(data) if data is not None else None

    def lend_now(self, offset: int, n: int) -> View | None:
        """Like :meth:`read_now`; a memoryview is valid until the next read of any entry."""
        stop = offset + n
        if self.unverified or not self.present.covers(offset, stop):
            return None
        first, last = touched_blocks(offset, stop)
        if self._stored.runs.covers(first, last):
            data = self._view_stored(first, last, offset, stop)
        else:
            data = self._join(first, last, offset, stop)
        if data is not None:
            self._backend.counters.read(n)
        return data

    def _view_stored(self, first: int, last: int, offset: int, stop: int) -> View | None:
        data = self._stored.view_nowait(first, last, offset, stop)
        if data is None and self._stored.unreadable:
            self._pass_by()
        return data

    def _join(self, first: int, last: int, offset: int, stop: int) -> bytes | None:
        """Bytes of which some are in buffers."""
        parts = []
        for index in range(first, last):
            start, end = bytes_of(index, index + 1, self.size)
            a, b = max(start, offset), min(end, stop)
            buffer = self._buffers.get(index)
            data: View | None
            if buffer is not None:
                self._pool.touch(self, index)
                data = memoryview(buffer.data)[a - start : b - start]
            else:
                data = self._view_stored(index, index + 1, a, b)
            if data is None:
                return None
            parts.append(bytes(data))
        return b"".join(parts)

    async def read(self, offset: int, n: int) -> bytes | None:
        """Return exactly ``n`` bytes, in a thread if needed; None if they must be fetched (again).

        If the disk failed, the bytes left ``present``.
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
        self._backend.counters.read(n)
        start = offset % BLOCK
        return outcome.data[start : start + n]

    async def hash_on(self, hashed: Callable[[memoryview], None], start: int, stop: int) -> bool:
        """Hash ``[start, stop)``, ``start`` a block's, in a thread unless it is little; False if
        bytes were lost.
        """
        data = self.read_now(start, stop - start) if stop - start <= HASH_NOW else None
        if data is not None:
            hashed(memoryview(data))
            await trio.lowlevel.checkpoint()
            return True
        return await self._read_blocks(start, stop, hashed) is not None

    async def _read_blocks(
        self, start: int, stop: int, hashed: Callable[[memoryview], None] | None = None
    ) -> Outcome | None:
        """Read the blocks of ``[start, stop)`` in a thread; None if they are not all right."""
        if not self.present.covers(start, stop) or not self._openable():
            await trio.lowlevel.checkpoint()
            return None
        plan = ReadPlan([self._source(i) for i in range(*touched_blocks(start, stop))], hashed)
        generation = self.generation
        with self._stored.in_use():
            outcome = await self._backend.in_thread(plan.run)
        if self.generation != generation or not self._believe(outcome):
            return None
        return outcome

    def _source(self, index: int) -> Source:
        """What a thread reads for a block: the file, or its buffer."""
        start, stop = bytes_of(index, index + 1, self.size)
        buffer = self._buffers.get(index)
        if buffer is not None:
            return Source(index, start, stop, memoryview(buffer.data), None)
        return Source(index, start, stop, self._stored.open(), self._stored.crc(index))

    def _believe(self, outcome: Outcome) -> bool:
        """Take over what a thread found; whether all blocks were right.

        What cannot be read back is not written there once more: it is fetched into memory.
        """
        if outcome.failure is not None:
            self.in_memory = True
            self._backend.failed(outcome.failure)
        for index in outcome.good:
            self._stored.checked(index)
        for index in outcome.bad:
            self._lose(index, index + 1)
        return not outcome.bad

    def _openable(self) -> bool:
        """Whether the file, if there is something in it, is open now."""
        if not self._stored.runs or self._stored.open() is not None:
            return True
        if self._stored.unreadable:
            self._pass_by()
        return False

    def _pass_by(self) -> None:
        """The file cannot be opened now: its bytes are fetched into memory."""
        self.in_memory = True
        for run in list(self._stored.runs):
            self._drop(*run)

    def in_use(self) -> AbstractContextManager[None]:
        """Keep the file open while a thread uses it."""
        return self._stored.in_use()

    # Checking the whole

    async def check(self) -> bool:
        """Whether the content has the checksum of its record, or else its length.

        Reads all of it once, in a thread. True is remembered, also in later runs. False for an
        object that is not complete, and for one that is wrong: its bytes stay readable until
        :meth:`reset`, unless they are of an earlier run.
        """
        return await self._task.whole()

    def check_now(self) -> bool:
        """Whether it is quickly found that a small object is right; if False, ask :meth:`check`."""
        if self.verified:
            return True
        if self.size > HASH_NOW or self.unverified or not self.complete:
            return False
        data = self.read_now(0, self.size)
        return data is not None and self._task.now(data)

    async def check_parts(self) -> bool:
        """Whether the content has the multipart checksum of its record, as far as can be found.

        The size of the parts is not given: the usual ones are tried. True proves the content and
        its length, and is remembered as by :meth:`check`; False says nothing.
        """
        return await self._task.in_parts()

    def accept(self) -> None:
        """Take the complete content for right in this run, whatever its checksum.

        A later run checks it anew.
        """
        if self.complete:
            self.accepted = True
            self.passed()

    async def check_ahead(self) -> None:
        """Hash what is here from the start on, so that :meth:`check` has less left to do."""
        await self._task.ahead()

    def passed(self) -> None:
        """The whole content is right: the row says so from now on."""
        self.verified = True
        self.unverified = False
        if self.deferred:
            self._ready(self)
        elif self._stored.has_file:
            self.unsaved_since = float("-inf")  # saved at the next round of maintenance

    def rejected(self) -> None:
        """The whole content is wrong; bytes of an earlier run are not given out at all."""
        if self.unverified:
            log.warning("%s in the cache does not have its checksum", self.identity.id)
            self.reset()

    # Losing

    def _drop(self, first: int, last: int) -> None:
        """These blocks are not given out any more, wherever they lie."""
        self.generation += 1
        self._stored.drop(first, last)
        for index in [index for index in self._buffers if first <= index < last]:
            self._forget_buffer(index)
        self.present.remove(first * BLOCK, last * BLOCK)
        self.verified = False
        self.accepted = False
        self.unverified = False
        self._task.restart()

    def _lose(self, first: int, last: int) -> None:
        """Blocks on disk turned out to be wrong or missing: they must be fetched again."""
        start, stop = bytes_of(first, last, self.size)
        log.warning(
            "the cache lost the bytes %d to %d of %s, which are fetched again",
            start,
            stop,
            self.identity.id,
        )
        self._backend.counters.lost(stop - start)
        self._drop(first, last)
        self._changed(0)

    def reset(self) -> None:
        """Forget every byte, on disk and in memory."""
        self._drop(0, block_count(self.size))
        if self._stored.has_file:
            self._stored.open()
            self._stored.cut(self.size, 0)
            self._changed(0)
            self._backend.wake.set()

    def resize(self, size: int) -> None:
        """The real length of the object is ``size``: what lies behind it is forgotten."""
        if size == self.size:
            return
        edge, end = min(size, self.size), max(size, self.size)
        kept = self._cut_block(edge)
        self._drop(edge // BLOCK, block_count(end))  # the block at the edge has another length
        self.size = size
        self._stored.cut(size, block_count(edge))
        for start, piece in kept:
            self._buffer(start, piece)
        if self.deferred and end == size:
            self._defer_no_longer()
        self._changed(0)

    def _cut_block(self, edge: int) -> list[tuple[int, memoryview]]:
        """The bytes of this run in the block that a new length cuts, as (offset, bytes)."""
        index, start = edge // BLOCK, edge // BLOCK * BLOCK
        buffer = self._buffers.get(index)
        if buffer is not None:
            data = memoryview(buffer.data)
            return [(start + a, data[a : min(b, edge - start)]) for a, b in buffer.filled]
        if edge == start or not self._stored.is_checked(index):
            return []  # a block of an earlier run could not be checked any more
        found = self.read_now(start, edge - start)
        return [(start, memoryview(found))] if found is not None else []

    def withdraw(self) -> None:
        """The service took the object back: nothing of it is given out or kept from now on."""
        self.withdrawn = True
        self.deferred = False
        self._drop(0, block_count(self.size))

    def close(self) -> None:
        """Close the file; what lay in memory is gone, what lies on disk can be opened again."""
        for index in list(self._buffers):
            self._forget_buffer(index)
            self.present.remove(*bytes_of(index, index + 1, self.size))
            self.generation += 1
        self._stored.close()
        self.deferred = False

    def no_file(self) -> None:
        """Its file was removed."""
        self._stored.gone()
        self.unsaved_since = None

    # Write-behind

    @property
    def deferrable(self) -> bool:
        """Whether it has nothing on disk and nothing promised there."""
        started = self._stored.has_file or self._stored.row_open
        return not (started or self.in_memory or self.deferred)

    def defer(self, ready: "Callable[[CacheEntry], None]") -> None:
        """Have its file made later, by write-behind, which is told when the entry is ready."""
        self.deferred = True
        self._ready = ready

    def _defer_no_longer(self) -> None:
        """It grew: what is whole goes to disk at once."""
        self.deferred = False
        for index in [i for i, buffer in self._buffers.items() if buffer.whole]:
            self._store_buffer(index)

    def flush_data(self) -> list[tuple[int, bytes]]:
        """The whole blocks that wait in buffers, as (index, bytes)."""
        whole = ((i, buffer) for i, buffer in sorted(self._buffers.items()) if buffer.whole)
        return [(index, bytes(buffer.data)) for index, buffer in whole]

    def reserve(self, blocks: list[int]) -> bool:
        """Charge for a file with these blocks before it is made; False if it does not fit."""
        return all(self._stored.charge(index, index + 1) for index in blocks)

    def flushed(self, blocks: list[tuple[int, bytes]]) -> None:
        """Its file was made and has these blocks; it is closed."""
        self.deferred = False
        self._stored.made()
        for index, data in blocks:
            self._stored.put(index, crcs_of(memoryview(data)))
            self._forget_buffer(index)
        self._changed(0)

    def not_flushed(self, *, retry: bool = False) -> None:
        """Its file could not be made: it stays in memory, unless it is tried once more."""
        self._stored.release_space()
        if not retry:
            self.deferred = False
            self.in_memory = True

    # Its row

    def stored_blocks(self) -> list[int]:
        """The indices of the blocks on disk."""
        return self._stored.indices

    def distrust(self, index: int) -> None:
        """Have a block on disk checked again before it is given out."""
        self._stored.distrust(index)

    def _changed(self, n: int) -> None:
        self.unsaved_bytes += n
        if self.unsaved_since is None and self._stored.has_file:
            self.unsaved_since = self._backend.now()

    @property
    def worthless(self) -> bool:
        """Whether it has a file of which nothing is worth a row, and nobody writes it."""
        gone = self.withdrawn or self._stored.unreadable or self.pins
        return self._stored.has_file and not gone

    def saving(self) -> Saved | None:
        """What the index is to note, or None if nothing of it is worth a row."""
        stored = self._stored
        if self.withdrawn or stored.unreadable or not stored.has_file:
            return None
        held = stored.total_bytes
        verified = self.verified and not self.accepted and held == self.size
        row = Row(self.identity, self.size, held, stored.charged, verified)
        final = held == self.size or not self.pins
        if final and not held and self.size:
            return None
        return Saved(row, *stored.packed(), final)

    def save_again(self) -> None:
        """Its row may be lost: it is to be written again."""
        self._changed(0)

    def saved(self, *, final: bool) -> None:
        """The row was written; ``final``: nothing is written to disk before it is declared."""
        self.unsaved_bytes = 0
        self.unsaved_since = None
        if final:
            self._stored.row_saved()
