"""One object in the cache: writing, reading and checking its bytes.

What a byte has to pass before it is given out:

- one written in this run came over an authenticated connection and is given out as it is;
- one of an earlier run is given out after the CRC of its block was found right, once a run;
- an object that was complete in an earlier run, but was not checked against its checksum then
  (the process was killed before), is checked as a whole before any of it is given out;
- every object is checked as a whole when it becomes complete (the reader asks for that), and
  one that fails is forgotten.

So a *partial* object does serve single blocks to a later mount, each by its CRC: they are bytes
the service gave us, and whether they are the right ones shows when the object is complete.

All methods run on the event loop; ``read`` and ``check`` hand the slow part to a thread.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import trio

from phonofs.cache.blocks import (
    BLOCK,
    Seals,
    bytes_of,
    crcs_of,
    touched_blocks,
    whole_blocks,
)
from phonofs.cache.digest import Hash, expected, hash_stretch
from phonofs.cache.holding import Holding, View
from phonofs.cache.index import Identity, Row
from phonofs.cache.shelf import Content, Stamp
from phonofs.ranges import Ranges

log = logging.getLogger(__name__)

CHECK_NOW = 2 * BLOCK
"""Bytes of an earlier run that ``read_now`` checks itself: 256 KiB take 100 µs, and handing
them to a thread takes as long."""

HASH_NOW = BLOCK
"""Bytes ``check`` hashes on the event loop: what costs about as much as handing it over."""

HASH_STEP = 32 << 20
"""Bytes hashed per visit to a thread: a check can be cancelled and gone on with in between."""

SEAL_STEP = 32 << 20 >> 17
"""Blocks sealed per visit to a thread."""

AHEAD = 8 << 20
"""The most bytes one ``prefetch`` checks ahead."""

T = TypeVar("T")


class Counters:
    """Bytes in and out since the start, for statistics. Owner: the cache."""

    def __init__(self) -> None:
        self.read_bytes = 0
        self.written_bytes = 0
        self.lost_bytes = 0
        self.refused_bytes = 0


class Host(Protocol):
    """What a blob needs of the cache."""

    counters: Counters

    def open_file(self, blob: "Blob", *, create: bool) -> Content | None:
        """The blob's file, or None where the disk is in trouble."""

    def open_memory(self) -> Content | None:
        """A place in memory, or None where there is none."""

    def declare(self, blob: "Blob") -> bool:
        """Note that bytes of the blob are going to be on disk; False where that failed."""

    def take(self, n: int) -> bool:
        """Charge bytes that are about to be written to disk; False where there is no room."""

    def give(self, n: int) -> None:
        """Bytes charged for are no longer on disk."""

    def take_memory(self, n: int) -> None:
        """Count bytes in memory (negative: no longer)."""

    def trouble(self, error: Exception) -> None:
        """The disk failed."""

    def save(self, blob: "Blob") -> None:
        """Write the blob's row."""

    def now(self) -> float:
        """Seconds, monotonic."""

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do what waits for the disk."""

    def start_soon(self, work: Callable[[], object], /) -> bool:
        """Start an async function in the background; False where nothing runs there."""


class Blob:
    """The bytes of one object that are in the cache. Got from ``Cache.blob``, which pins it.

    size       the length of the object, in bytes
    present    the bytes that can be read
    verified   whether the whole had the right checksum (or the right length, where there is
               no more to check)
    in_memory  whether what is written goes to memory, because the disk is not to be used

    Owner of its holdings. Invariants: ``_trusted`` lies within ``present``, ``present`` within
    what the holdings hold together; what is present and not trusted lies on disk in whole
    blocks that have a seal; ``_epoch`` changes with every byte that is taken away, so that
    what a thread found out before is not believed after.
    """

    def __init__(
        self,
        host: Host,
        identity: Identity,
        size: int,
        *,
        in_memory: bool,
        disk: Holding | None = None,
        seals: Seals | None = None,
        verified: bool = False,
    ) -> None:
        self.identity = identity
        self.size = size
        self.in_memory = in_memory
        self.verified = verified
        self.present = Ranges(disk.held) if disk else Ranges()
        self.seals = seals or Seals()
        self.disk = disk
        self.refs = 0
        self.unsaved_bytes = 0
        self.unsaved_since: float | None = None
        self.forgotten = False
        self._host = host
        self._memory: Holding | None = None
        self._trusted = Ranges()
        self._hashed = Hash()
        self._epoch = 0
        self._users = 0
        self._retired: list[Holding] = []
        self._stamp: Stamp | None = None
        self._checking = trio.Lock()
        self._ahead = (0, 0)
        self._declared = False
        self._suspect = self.complete and not verified and disk is not None

    @property
    def complete(self) -> bool:
        """Whether every byte is present."""
        return self.present.covers(0, self.size)

    @property
    def memory_bytes(self) -> int:
        """What it takes in memory."""
        return self._memory.charge if self._memory else 0

    @property
    def busy(self) -> bool:
        """Whether a thread is using its files."""
        return self._users > 0

    # Writing

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Keep bytes of the object. Where the disk does not take them they go to memory.

        Nothing is raised. In the worst case (no disk, no memory) they are not kept: then
        ``present`` says so. Bytes behind ``size`` are not kept either.
        """
        stop = offset + len(data)
        if stop > self.size:
            data, stop = memoryview(data)[: max(0, self.size - offset)], self.size
        if offset >= stop or self.forgotten or self.verified:
            return
        if not self._write_disk(offset, stop, data) and not self._write_memory(offset, stop, data):
            self._host.counters.refused_bytes += stop - offset
            return
        self.present.add(offset, stop)
        self._trusted.add(offset, stop)
        self._host.counters.written_bytes += stop - offset
        if offset < self._hashed.position:
            self._hashed = Hash()

    def _write_disk(self, offset: int, stop: int, data: bytes | bytearray | memoryview) -> bool:
        if self.in_memory:
            return False
        disk = self._disk_for_writing()
        if disk is None or disk.content is None:
            self.in_memory = True
            return False
        cost = disk.cost(offset, stop)
        if cost:
            if not self._host.take(cost):
                self.in_memory = True
                return False
            disk.charge_for(offset, stop, cost)  # also where it fails: part may be written
        try:
            disk.content.write(offset, data)
        except OSError as error:
            self.in_memory = True
            self._host.trouble(error)
            return False
        disk.held.add(offset, stop)
        self._note_unsaved(stop - offset)
        return True

    def _note_unsaved(self, n: int) -> None:
        self.unsaved_bytes += n
        if self.unsaved_since is None:
            self.unsaved_since = self._host.now()

    def _disk_for_writing(self) -> Holding | None:
        """The file, opened and declared; None where the disk is in trouble."""
        if self._declared:
            return self.disk
        if not self._host.declare(self):
            return None
        if self.disk is None:
            content = self._host.open_file(self, create=True)
            self.disk = Holding(content) if content else None
        elif not self._open_disk():
            return None
        self._declared = bool(self.disk and self.disk.content and self.disk.content.writable)
        return self.disk if self._declared else None

    def _write_memory(self, offset: int, stop: int, data: bytes | bytearray | memoryview) -> bool:
        if self._memory is None:
            content = self._host.open_memory()
            if content is None:
                return False
            self._memory = Holding(content)
        memory = self._memory
        assert memory.content is not None
        try:
            memory.content.write(offset, data)
        except OSError as error:
            log.error("no memory for the bytes of %s: %s", self.identity.id, error.strerror)
            return False
        cost = memory.cost(offset, stop)
        memory.charge_for(offset, stop, cost)
        memory.held.add(offset, stop)
        self._host.take_memory(cost)
        if self.disk:
            self.disk.held.remove(offset, stop)
        return True

    def keep(self, ranges: Ranges) -> None:
        """Of what lies in memory, only ``ranges`` is still wanted; the rest is given back."""
        if self._memory is None:
            return
        for held_start, held_stop in self._memory.held:
            for start, stop in ranges.missing(held_start, held_stop):
                self._drop(start, stop)
                self._host.take_memory(-self._memory.drop(start, stop))

    # Reading

    def read_now(self, offset: int, n: int) -> bytes | None:
        """Exactly ``n`` bytes, or None where it would wait, or they are not there."""
        stop = offset + n
        if not self._trusted.covers(offset, stop):
            return self._check_now(offset, stop)
        content = self._place_of(offset, stop)
        data = content.read_now(offset, n) if content else None
        if data is not None:
            self._host.counters.read_bytes += n
        return data

    def _place_of(self, start: int, stop: int) -> Content | None:
        """The one open file that holds all of it, if there is one."""
        memory, disk = self._memory, self.disk
        if memory is not None and memory.held.covers(start, stop):
            return memory.content
        if disk is None or not disk.held.covers(start, stop):
            return None
        if disk.content is None and not self._open_disk():
            return None
        return disk.content if self._trusted.covers(start, stop) else None

    def _check_now(self, offset: int, stop: int) -> bytes | None:
        """Read bytes of an earlier run and check their blocks, where that is quick."""
        if self._suspect or not self.present.covers(offset, stop) or not self._open_disk():
            return None
        first, last = touched_blocks(offset, stop)
        start, end = bytes_of(first, last, self.size)
        disk = self.disk
        if (
            disk is None
            or disk.content is None
            or end - start > CHECK_NOW
            or not disk.held.covers(start, end)
            or not self.seals.known.covers(first, last)
        ):
            return None
        data = disk.content.read_now(start, end - start)
        if data is None:
            return None
        if crcs_of(memoryview(data)) != self.seals.get(first, last):
            self._lose(start, end)
            return None
        self._trusted.add(start, end)
        self._host.counters.read_bytes += stop - offset
        return data[offset - start : stop - start]

    async def read(self, offset: int, n: int) -> bytes | None:
        """Exactly ``n`` bytes, in a thread where needed; None where they must be fetched (again).

        After None the bytes that did not come are no longer in ``present``.
        """
        stop = offset + n
        if self._suspect and not await self.check():
            return None
        data = self.read_now(offset, n)
        if data is not None:
            await trio.lowlevel.checkpoint()
            return data
        if not self._make_readable(offset, stop):
            return None
        spans = self._spans(offset, stop)
        return await self._read_spans(offset, stop, spans)

    def _make_readable(self, start: int, stop: int) -> bool:
        """Whether all is present, its file open, and what is not trusted can be checked."""
        if not self.present.covers(start, stop):
            return False
        if self.disk and self.disk.content is None and not self._open_disk():
            return self.present.covers(start, stop)
        for gap in self._trusted.missing(start, stop):
            first, last = touched_blocks(*gap)
            for a, b in self.seals.known.missing(first, last):
                self._lose(*bytes_of(a, b, self.size))
        return self.present.covers(start, stop)

    def _spans(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """What to read: ``(start, stop, block)``, block -1 for what is trusted as it is."""
        spans: list[tuple[int, int, int]] = []
        for block in range(*touched_blocks(start, stop)):
            first, last = bytes_of(block, block + 1, self.size)
            inside = max(first, start), min(last, stop)
            if not self._trusted.covers(*inside):
                spans.append((first, last, block))
            elif spans and spans[-1][2] < 0 and spans[-1][1] == inside[0]:
                spans[-1] = (spans[-1][0], inside[1], -1)
            else:
                spans.append((*inside, -1))
        return spans

    async def _read_spans(
        self, offset: int, stop: int, spans: list[tuple[int, int, int]]
    ) -> bytes | None:
        view, epoch = self._view(spans[0][0], spans[-1][1]), self._epoch
        wanted = [self.seals.get(block, block + 1) if block >= 0 else None for *_, block in spans]
        with self._using():
            found = await self._host.in_thread(lambda: _read_checked(view, spans, wanted))
        if self._epoch != epoch:
            return None
        for (start, end, block), data in zip(spans, found, strict=True):
            if data is None:
                self._lose(start, end)
            elif block >= 0:
                self._trusted.add(start, end)
        whole = b"".join(data for data in found if data is not None)
        if self._epoch != epoch:
            return None
        self._host.counters.read_bytes += stop - offset
        return whole[offset - spans[0][0] : stop - spans[0][0]]

    def prefetch(self, offset: int, n: int) -> None:
        """Have the disk's bytes at hand soon: read ahead, and check those of an earlier run.

        Cheap when called with every read of a sequence: it does something only every half ``n``.
        """
        stop = min(offset + min(n, AHEAD), self.size)
        start, done = self._ahead
        if start <= offset and stop - done < n // 2 and (done < self.size or stop <= done):
            return
        begin = max(offset, done) if start <= offset <= done else offset
        stop = max(begin, min(stop, self.present.stop_of(begin)))
        if begin >= stop or self.disk is None or self._suspect or not self._open_disk():
            return
        self._ahead = (offset, stop)
        content = self.disk.content
        if self._trusted.covers(begin, stop):
            if content is not None and self.disk.held.covers(begin, stop):
                content.prefetch(begin, stop)
        elif not self._host.start_soon(lambda: self._check_ahead_of(begin, stop)):
            self._ahead = (0, 0)

    async def _check_ahead_of(self, start: int, stop: int) -> None:
        if self.refs and self._make_readable(start, stop):
            spans = [span for span in self._spans(start, stop) if span[2] >= 0]
            if spans:
                await self._check_spans(spans)

    async def _check_spans(self, spans: list[tuple[int, int, int]]) -> None:
        view, epoch = self._view(spans[0][0], spans[-1][1]), self._epoch
        wanted = [self.seals.get(block, block + 1)[0] for *_, block in spans]
        with self._using():
            right = await self._host.in_thread(lambda: _check_blocks(view, spans, wanted))
        if self._epoch != epoch:
            return
        for (start, end, _), good in zip(spans, right, strict=True):
            if good:
                self._trusted.add(start, end)
            else:
                self._lose(start, end)

    # Checking the whole

    async def check(self) -> bool:
        """Whether the content has the checksum of its record, or else its length.

        Reads all of it once, in a thread, and seals its blocks on the way. False for an object
        that is not complete, and for one that is wrong: that one is forgotten, and can be
        fetched anew. True is remembered, also in later runs.
        """
        if self.verified:
            return True
        async with self._checking:
            while not self.verified:
                if not self.complete:
                    return False
                want = expected(self.identity.checksum)
                if want is None and not self._suspect:
                    self._passed()
                elif not await self._hash_on(self.size):
                    return False
                elif self._hashed.position < self.size:
                    continue
                elif want is None or want.matches(self._hashed.md5.digest()):
                    self._passed()
                else:
                    log.warning("%s does not have its checksum; it is forgotten", self.identity.id)
                    self.reset()
                    return False
        return True

    async def check_ahead(self) -> None:
        """Hash what there is from the start on, so that :meth:`check` has less left to do."""
        if self.verified or self._suspect or self._checking.locked():
            return
        if expected(self.identity.checksum) is None:
            return
        async with self._checking:
            await self._hash_on(self.present.stop_of(self._hashed.position))

    async def _hash_on(self, stop: int) -> bool:
        """Hash one step further towards ``stop``; False where bytes turned out to be missing."""
        start = self._hashed.position
        stop = min(stop, start + HASH_STEP)
        if stop < self.size:
            stop -= stop % BLOCK
        if start >= stop:
            return True
        if self.disk and self.disk.held and not self._open_disk():
            return False
        view, hashed, epoch = self._view(start, stop), self._hashed, self._epoch
        with self._using():
            if stop - start <= HASH_NOW and self._trusted.covers(start, stop):
                crcs = _hash(view, hashed, start, stop)
            else:
                crcs = await self._host.in_thread(lambda: _hash(view, hashed, start, stop))
        if self._epoch != epoch or self._hashed is not hashed:
            return not self._suspect and self.present.covers(start, stop)
        if crcs is None:
            self._lose(start, stop)
            return False
        return self._compare(start, stop, crcs)

    def _compare(self, start: int, stop: int, crcs: list[int]) -> bool:
        """Seal what was hashed; a block that has another seal already is lost."""
        first, last = touched_blocks(start, stop)
        wrong = [
            block
            for block, crc in zip(range(first, last), crcs, strict=True)
            if self.seals.known.covers(block, block + 1)
            and self.seals.get(block, block + 1) != [crc]
        ]
        for block in wrong:
            self._lose(*bytes_of(block, block + 1, self.size))
        if wrong:
            return False
        self.seals.put(first, crcs)
        if not self._suspect:
            self._trusted.add(start, stop)
        return True

    def _passed(self) -> None:
        self.verified = True
        self._suspect = False
        if self._hashed.position == self.size:
            self._trusted.add(0, self.size)
        self._hashed = Hash()
        if self.disk:
            self._host.save(self)

    # Losing bytes

    def reset(self) -> None:
        """Forget every byte, on disk and in memory."""
        self._drop(0, max(self.size, 1))
        self.present = Ranges()
        if self._memory:
            self._host.take_memory(-self._memory.charge)
            self._retire(self._memory)
            self._memory = None
        if self.disk:
            self._empty_disk(self.disk)
            self._host.save(self)

    def _empty_disk(self, disk: Holding) -> None:
        if self._open_disk() and disk.content is not None:
            try:
                disk.content.truncate(0)
            except OSError as error:
                self._host.trouble(error)
                disk.held = Ranges()
                return
        if self.disk is disk:
            self._host.give(disk.charge)
            self.disk = Holding(disk.content)

    def resize(self, size: int) -> None:
        """The real length of the object is ``size``: what lies behind it is forgotten."""
        if size == self.size:
            return
        edge = min(size, self.size) // BLOCK
        stop = max(size, self.size)
        for a, b in self._trusted.missing(edge * BLOCK, stop):
            self._drop(a, b)
        self._drop(size, stop)
        self.seals.forget(edge, touched_blocks(0, stop)[1])
        self.size = size
        if self._memory:
            self._host.take_memory(-self._memory.drop(size, stop))
        if self.disk:
            self._host.give(self.disk.drop(size, stop))
            self._note_unsaved(0)

    def forget(self) -> None:
        """The object is withdrawn: nothing of it is given out or kept from now on."""
        self.forgotten = True
        self.present = Ranges()
        self._drop(0, max(self.size, 1))

    def _lose(self, start: int, stop: int) -> None:
        """Bytes on disk turned out to be wrong or missing: they must be fetched again."""
        log.warning(
            "the cache lost bytes %d to %d of %s; they are fetched again",
            start, stop, self.identity.id,
        )  # fmt: skip
        self._host.counters.lost_bytes += stop - start
        self._drop(start, stop)
        if self.disk:
            self._host.give(self.disk.drop(start, stop))
            self._note_unsaved(0)

    def _drop(self, start: int, stop: int) -> None:
        self._epoch += 1
        self.present.remove(start, stop)
        self._trusted.remove(start, stop)
        self.seals.forget(*touched_blocks(start, stop))
        self.verified = False
        self._suspect = False
        self._hashed = Hash()
        self._ahead = (0, 0)

    # Its files

    def _view(self, start: int, stop: int) -> View:
        """The open files that hold ``[start, stop)``."""
        parts: list[tuple[int, int, Content]] = []
        for place in (self._memory, self.disk):
            if place is None or place.content is None:
                continue
            for a, b in place.held:
                a, b = max(a, start), min(b, stop)
                if a < b:
                    parts.append((a, b, place.content))
        return View(sorted(parts, key=lambda part: part[0]))

    def _open_disk(self) -> bool:
        """Open the file again; where it is not there any more, its bytes are lost."""
        disk = self.disk
        if disk is None or self.forgotten:
            return False
        if disk.content is not None:
            return True
        content = self._host.open_file(self, create=False)
        if content is None:
            self._lose_disk(disk)
            return False
        if self._stamp is not None and content.stamp() != self._stamp:
            self._distrust(disk)
        disk.content = content
        return True

    def _distrust(self, disk: Holding) -> None:
        """Somebody touched the file while it was closed: its blocks are to be checked again."""
        for start, stop in disk.held:
            self._trusted.remove(start, stop)
        self._hashed = Hash()

    def _lose_disk(self, disk: Holding) -> None:
        for start, stop in disk.held:
            self._lose(start, stop)
        self._host.give(disk.charge)
        self.disk = None
        self._declared = False

    @contextmanager
    def _using(self) -> Iterator[None]:
        """A thread uses the files: they are not closed meanwhile."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                for holding in self._retired:
                    holding.close()
                self._retired.clear()

    def _retire(self, holding: Holding) -> None:
        """Close a place that is not used any more, once no thread reads it."""
        if self._users:
            self._retired.append(holding)
        else:
            holding.close()

    # Saving, for the cache

    def unsealed(self) -> list[tuple[int, int]]:
        """The whole blocks on disk that have no seal yet."""
        if self.disk is None or self.disk.content is None:
            return []
        runs: list[tuple[int, int]] = []
        for start, stop in self.disk.held:
            runs += self.seals.known.missing(*whole_blocks(start, stop, self.size))
        return runs

    async def seal(self) -> None:
        """Read what has no seal yet, in a thread, and seal it."""
        for first, last in self.unsealed():
            for at in range(first, last, SEAL_STEP):
                await self._seal_blocks(at, min(at + SEAL_STEP, last))

    async def _seal_blocks(self, first: int, last: int) -> None:
        start, stop = bytes_of(first, last, self.size)
        view, epoch = self._view(start, stop), self._epoch
        with self._using():
            crcs = await self._host.in_thread(lambda: _hash(view, None, start, stop))
        self._sealed(epoch, first, start, stop, crcs)

    def seal_now(self) -> None:
        """The same on the event loop, for the end."""
        for first, last in self.unsealed():
            for at in range(first, last, SEAL_STEP):
                start, stop = bytes_of(at, min(at + SEAL_STEP, last), self.size)
                crcs = _hash(self._view(start, stop), None, start, stop)
                self._sealed(self._epoch, at, start, stop, crcs)

    def _sealed(
        self, epoch: int, first: int, start: int, stop: int, crcs: list[int] | None
    ) -> None:
        if self._epoch == epoch:
            if crcs is None:
                self._lose(start, stop)
            else:
                self.seals.put(first, crcs)

    def row(self) -> tuple[Row, Ranges]:
        """What to note of it, and the blocks that are on disk and sealed."""
        blocks = Ranges()
        if self.disk:
            for start, stop in self.disk.held:
                blocks.add(*whole_blocks(start, stop, self.size))
            for first, last in blocks:
                for gap in self.seals.known.missing(first, last):
                    blocks.remove(*gap)
        held = sum(b - a for a, b in (bytes_of(*run, self.size) for run in blocks))
        verified = self.verified and held == self.size
        charge = self.disk.charge if self.disk else 0
        return Row(self.identity, self.size, held, charge, verified), blocks

    @property
    def unsaved(self) -> bool:
        """Whether its row is not what it should be once it is closed."""
        return self.unsaved_since is not None or self._declared

    def saved(self, *, final: bool) -> None:
        """The row was written; ``final``: nothing is written to disk before the next declare."""
        self.unsaved_bytes = 0
        self.unsaved_since = None
        self._declared = self._declared and not final

    def close(self) -> None:
        """Close the files; what lay in memory is gone, what lies on disk can be opened again."""
        if self._memory:
            for start, stop in self._memory.held:
                self._drop(start, stop)
            self._host.take_memory(-self._memory.charge)
            self._memory.close()
            self._memory = None
        if self.disk and self.disk.content:
            self._stamp = self.disk.content.stamp()
            self.disk.close()
        self._declared = False


def _read_checked(
    view: View, spans: list[tuple[int, int, int]], wanted: list[list[int] | None]
) -> list[bytes | None]:
    """In a thread: the bytes of each span; None where they are not there or not right."""
    found: list[bytes | None] = []
    for (start, stop, _), crcs in zip(spans, wanted, strict=True):
        try:
            data = view.read(start, stop)
        except OSError as error:
            log.warning("the cache disk fails: %s", error.strerror)
            data = None
        if data is not None and crcs is not None and crcs_of(memoryview(data)) != crcs:
            data = None
        found.append(data)
    return found


def _check_blocks(view: View, spans: list[tuple[int, int, int]], wanted: list[int]) -> list[bool]:
    """In a thread: whether each block is right."""
    buffer = memoryview(bytearray(BLOCK))
    right = []
    for (start, stop, _), crc in zip(spans, wanted, strict=True):
        piece = buffer[: stop - start]
        try:
            whole = view.read_into(start, piece) == len(piece)
        except OSError:
            whole = False
        right.append(whole and crcs_of(piece) == [crc])
    return right


def _hash(view: View, hashed: Hash | None, start: int, stop: int) -> list[int] | None:
    """In a thread, or here: hash and seal; None where the bytes are not all there."""
    try:
        return hash_stretch(view.read_into, hashed, start, stop)
    except OSError as error:
        log.warning("the cache disk fails: %s", error.strerror)
        return None
