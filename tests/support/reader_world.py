"""A small world for the reader's tests: a service with latency, rates and faults, and a cache."""

import hashlib
import mmap
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache

import trio

from phonofs.errors import Unavailable
from phonofs.model import Record
from phonofs.ranges import Ranges
from phonofs.reader.limits import Limits
from phonofs.reader.open_object import Handle
from phonofs.reader.reader import Reader
from phonofs.service.limiter import Permit, PriorityLimiter

KIB, MIB = 1024, 1024 * 1024
PATTERN = bytes(range(251)) * 4200
LATENCY = 0.05
FIRST_WINDOW = 14_000


def plain(start: int, stop: int) -> bytes:
    """Return the true content of an object: a ramp modulo a prime."""
    at, count = start % 251, stop - start
    if count <= MIB:
        return PATTERN[at : at + count]
    return (PATTERN * (count // len(PATTERN) + 2))[at : at + count]


@cache
def checksum_of(size: int) -> str:
    """Return the MD5 of the true content, or '' if hashing would take too long."""
    return hashlib.md5(plain(0, size)).hexdigest() if size <= 48 * MIB else ""


def record(
    size: int, name: str = "a", *, checksum: str | None = None, kind: str = "callrecording"
) -> Record:
    """Make a record of the true content."""
    if checksum is None:
        checksum = checksum_of(size)
    return Record(
        id=name, region="uk", type=kind, mime_type="audio/mpeg", object_name=name, size=size,
        created_ms=0, updated_ms=0, state="AVAILABLE", checksum=checksum, tags={}, source=b"{}",
    )  # fmt: skip


@dataclass
class FakeBody:
    start: int
    stop: int | None
    total: int | None
    etag: str
    chunks: "FakeChunks"
    sent_at: float
    permit: Permit
    framed: bool = True

    def __aiter__(self) -> "FakeChunks":
        return self.chunks

    def allow(self, most_bytes: int) -> None:
        self.chunks.most = most_bytes


@dataclass
class Fault:
    """What one request does wrong.

    silent  the answer states neither its length nor the total size
    framed  whether the client can recognise the end of the body
    short   bytes left out at the end of the range, as the answer states
    """

    error: Exception | None = None
    cut_after: int | None = None
    flip: int | None = None
    etag: str | None = None
    total: int | None = None
    stall: bool = False
    rate: float | None = None
    silent: bool = False
    framed: bool = True
    short: int = 0


@dataclass
class Asked:
    """One request as the service saw it."""

    id: str
    start: int
    stop: int | None
    urgent: bool
    at: float
    sent: int = 0


def no_fault(asked: Asked, number: int) -> Fault | None:
    return None


class FakeChunks:
    """The chunks of one body, at the service's rate and with the request's fault."""

    def __init__(
        self, service: "FakeService", asked: Asked, start: int, stop: int, fault: Fault
    ) -> None:
        self.service, self.asked, self.fault = service, asked, fault
        self.next, self.stop = start, stop
        self.most = service.chunk
        self.window, self.credit = FIRST_WINDOW, 0

    def __aiter__(self) -> "FakeChunks":
        return self

    async def __anext__(self) -> bytes:
        start = self.next
        most = min(self.most, self.service.chunk)
        if self.service.window:
            most = min(most, await self._credit())
        end = min(self.stop, start + most)
        if start >= end:
            raise StopAsyncIteration
        cut = self.fault.cut_after
        if cut is not None and self.asked.sent + end - start > cut:
            raise Unavailable("cut")
        await trio.sleep((end - start) / (self.fault.rate or self.service.rate))
        self.credit -= end - start
        self.asked.sent += end - start
        self.next = end
        data = plain(start, end)
        flip = self.fault.flip
        if flip is not None and start <= flip < end:
            at = flip - start
            data = data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]
        return data

    async def _credit(self) -> int:
        """Wait until the connection, which starts slowly, may send more; return how much."""
        if self.credit <= 0:
            if self.asked.sent:
                await trio.sleep(self.service.latency_s)
            self.credit = self.window
            self.window = min(2 * self.window, self.service.window)
        return self.credit


@dataclass
class FakeService:
    """Serves the true content, changed by the faults.

    ``window``: each response starts with ``FIRST_WINDOW`` bytes a round trip, and doubles them up
    to this many; 0: it does not.
    """

    latency_s: float = LATENCY
    rate: float = 40_000_000
    chunk: int = 64 * KIB
    window: int = 0
    way: str = "range"
    known: bool = True
    connections: int = 16
    held_back_s: float = 0.0
    fault: Callable[[Asked, int], Fault | None] = no_fault
    sizes: dict[str, int] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    open_now: int = 0
    looks: int = 0
    most_open: int = 0

    def __post_init__(self) -> None:
        self.limiter = PriorityLimiter(self.connections)

    def seekable(self, region: str) -> bool | None:
        return (self.way == "range") if self.known else None

    @asynccontextmanager
    async def content(
        self,
        record: Record,
        start: int,
        stop: int | None,
        *,
        urgent: bool,
        etag: str | None = None,
    ) -> AsyncIterator[FakeBody]:
        async with self._content(record, start, stop, urgent, "") as body:
            yield body

    @asynccontextmanager
    async def _content(
        self, record: Record, start: int, stop: int | None, urgent: bool, way: str
    ) -> AsyncIterator[FakeBody]:
        if self.held_back_s:
            await trio.sleep(self.held_back_s)
        permit = await self.limiter.acquire(urgent)
        try:
            asked = Asked(record.id, start, stop, urgent, trio.current_time())
            self.asked.append(asked)
            fault = self.fault(asked, len(self.asked) - 1) or Fault()
            self.open_now += 1
            self.most_open = max(self.most_open, self.open_now)
            try:
                await trio.sleep(self.latency_s)
                if fault.stall:
                    await trio.sleep_forever()
                self.known = True
                if fault.error is not None:
                    raise fault.error
                size = self.sizes.get(record.id, record.size)
                way = way or self.way
                begin = start if way == "range" else 0
                end = min(size, stop) if way == "range" and stop is not None else size
                end -= fault.short
                chunks = FakeChunks(self, asked, begin, end, fault)
                total = size if fault.total is None else fault.total
                yield FakeBody(
                    begin,
                    None if fault.silent else end,
                    None if fault.silent or fault.short else total,
                    fault.etag or "v1",
                    chunks,
                    asked.at,
                    permit,
                    framed=fault.framed,
                )
            finally:
                self.open_now -= 1
        finally:
            permit.release()

    @asynccontextmanager
    async def whole_content(self, record: Record, *, urgent: bool) -> AsyncIterator[FakeBody]:
        """Request the whole content, without a range."""
        self.looks += 1
        async with self._content(record, 0, None, urgent, "stream") as body:
            yield body

    def sent(self, name: str | None = None) -> int:
        """Return the bytes sent of one object, or of all."""
        return sum(asked.sent for asked in self.asked if name in (None, asked.id))


def _memory(size: int) -> mmap.mmap:
    """Return memory that takes no space until it is written to."""
    return mmap.mmap(-1, max(1, size))


class FakeEntry:
    """The cache entry of one object, in memory."""

    def __init__(self, record: Record, in_memory: bool) -> None:
        self.record = record
        self.size = record.size
        self.present = Ranges()
        self.verified = False
        self.in_memory = in_memory
        self.data = _memory(record.size)
        self.checks = 0
        self.pins = 0
        self.most_kept = 0
        self.slow = False
        self.attachment: object = None

    def attach(self, thing: object) -> None:
        self.attachment = thing

    @property
    def complete(self) -> bool:
        return self.present.covers(0, self.size)

    @property
    def memory_bytes(self) -> int:
        return self.present.total() if self.in_memory else 0

    def write(self, offset: int, data: bytes | memoryview) -> None:
        assert self.pins > 0, "written after it was released"
        self.data[offset : offset + len(data)] = data
        self.present.add(offset, offset + len(data))
        self.most_kept = max(self.most_kept, self.present.total())

    def lend_now(self, offset: int, n: int) -> bytes | None:
        return self.read_now(offset, n)

    def read_now(self, offset: int, n: int) -> bytes | None:
        if self.slow or not self.present.covers(offset, offset + n):
            return None
        return bytes(self.data[offset : offset + n])

    async def read(self, offset: int, n: int) -> bytes | None:
        await trio.lowlevel.checkpoint()
        if not self.present.covers(offset, offset + n):
            return None
        return bytes(self.data[offset : offset + n])

    def keep(self, ranges: Ranges) -> None:
        if self.in_memory:
            for start, stop in self.present:
                for a, b in ranges.missing(start, stop):
                    self.present.remove(a, b)
                    self.data[a:b] = b"\xee" * (b - a)

    def check_now(self) -> bool:
        return False

    async def check_ahead(self) -> None:
        assert self.pins > 0
        await trio.sleep(0.01)

    async def check(self) -> bool:
        assert self.pins > 0
        await trio.sleep(0.01)
        self.checks += 1
        digest = hashlib.md5(memoryview(self.data)[: self.size]).hexdigest()
        self.verified = not self.record.checksum or digest == self.record.checksum
        return self.verified

    async def check_parts(self) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    def accept(self) -> None:
        self.verified = self.complete

    def reset(self) -> None:
        self.present = Ranges()
        self.verified = False

    def resize(self, n: int) -> None:
        self.present.remove(n, max(n, self.size))
        old, self.data = self.data, _memory(n)
        for start, stop in self.present:
            self.data[start:stop] = old[start:stop]
        self.size = n


class FakeCache:
    """A cache that never evicts; its entries count as on disk unless told otherwise."""

    def __init__(self, in_memory: bool = False, slow: bool = False) -> None:
        self.in_memory = in_memory
        self.slow = slow
        self.entries: dict[tuple[str, str], FakeEntry] = {}

    def entry(self, record: Record) -> FakeEntry:
        key = record.id, record.fingerprint
        if key not in self.entries:
            self.entries[key] = FakeEntry(record, self.in_memory)
        self.entries[key].pins += 1
        self.entries[key].slow = self.slow
        return self.entries[key]

    def release(self, entry: FakeEntry) -> None:
        entry.pins -= 1
        assert entry.pins >= 0
        if self.in_memory and not entry.pins:
            del self.entries[entry.record.id, entry.record.fingerprint]

    @property
    def pinned(self) -> int:
        return sum(entry.pins for entry in self.entries.values())


@dataclass
class World:
    """A reader over the fakes, and the callbacks it made."""

    service: FakeService
    cache: FakeCache
    reader: Reader
    nursery: trio.Nursery | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)

    async def restart(self) -> None:
        """Run the reader, also after it was stopped."""
        self.scope = trio.CancelScope()
        assert self.nursery is not None
        await self.nursery.start(self._run)

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        with self.scope:
            await self.reader.run(task_status=task_status)

    def stop(self) -> None:
        """End the reader's tasks."""
        self.scope.cancel()

    async def read(self, handle: Handle, offset: int, size: int) -> bytes:
        """Read as the file system does: without waiting if possible."""
        data = self.reader.read_now(handle, offset, size)
        return await self.reader.read(handle, offset, size) if data is None else data

    async def read_on(
        self, handle: Handle, start: int = 0, stop: int | None = None, step: int = 128 * KIB
    ) -> None:
        """Read in sequence as the kernel does, and compare."""
        while start < (handle.size if stop is None else stop):
            data = await self.read(handle, start, step)
            assert data == plain(start, start + len(data))
            assert len(data) == min(step, handle.size - start)
            start += len(data)

    async def read_blindly(self, handle: Handle, step: int = 128 * KIB) -> None:
        """Read everything in sequence, without comparing."""
        for offset in range(0, handle.size, step):
            await self.read(handle, offset, step)

    async def settle(self) -> None:
        """Wait until everything in progress has ended, and check that nothing is held."""
        await trio.sleep(40)
        gauges = self.reader.statistics()
        names = ("waiters", "parts", "streams", "handles", "lingering", "ahead", "ahead_queued",
                 "held", "held_bytes")  # fmt: skip
        assert {name: gauges[name] for name in names} == dict.fromkeys(names, 0)
        assert self.service.open_now == 0
        assert self.service.limiter.in_use == 0
        assert self.cache.pinned == 0


@asynccontextmanager
async def world(
    service: FakeService | None = None,
    *,
    limits: Limits | None = None,
    in_memory: bool = False,
    slow: bool = False,
    files: Iterable[tuple[int, Record]] = (),
    siblings: Callable[..., Sequence[tuple[int, Record]]] | None = None,
) -> AsyncIterator[World]:
    """Run a reader; check at the end that nothing is held."""
    service = service or FakeService()
    cache = FakeCache(in_memory, slow)
    listed = list(files)
    sizes: list[tuple[int, int]] = []
    wrong: list[int] = []

    def order(
        ino: int, n: int, *, by_inode: bool = False, pid: int = 0
    ) -> list[tuple[int, Record]]:
        ordered = sorted(listed) if by_inode else listed
        inodes = [other for other, _ in ordered]
        at = inodes.index(ino) + 1 if ino in inodes else len(ordered)
        return ordered[at : at + n]

    reader = Reader(
        service, cache, limits or Limits(), siblings=siblings or order, draw=lambda: 0.5,
        on_size=lambda ino, size: sizes.append((ino, size)), on_wrong=wrong.append,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        made = World(service, cache, reader, nursery, sizes=sizes, wrong=wrong)
        await made.restart()
        yield made
        await made.settle()
        nursery.cancel_scope.cancel()
