"""What all open files hold without a disk cache: ``memory_bytes``, and 1 MiB a waiting read."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from phonofs.cache.backend import Backend
from phonofs.cache.cache import Cache
from phonofs.errors import PhonofsError
from phonofs.reader.limits import Limits
from phonofs.reader.reader import Reader
from tests.support.reader_world import KIB, MIB, FakeCache, FakeService, World, plain, record

MEMORY = Limits(cache_bytes=0)
pytestmark = pytest.mark.real_clock


class Watched(World):
    """A reader over the real cache, whose memory (memfd files) is looked at with each read."""

    cache_in_use: Cache
    most: int = 0

    def look(self) -> None:
        held = self.cache_in_use.statistics()["memory_bytes"]
        waiting = self.reader.statistics()["waiters"] * MIB
        assert held <= MEMORY.memory_bytes + waiting + MIB  # of pages that are held in part
        self.most = max(self.most, held)

    async def read(self, handle, offset: int, size: int) -> bytes:
        data = await super().read(handle, offset, size)
        self.look()
        return data

    async def watch(self) -> None:
        while True:
            self.look()
            await trio.sleep(0.002)


@asynccontextmanager
async def without_a_disk(service: FakeService, folder: Path) -> AsyncIterator[Watched]:
    cache = Cache.open(folder / "cache", size_bytes=0, min_free_bytes=0)
    reader = Reader(service, cache, MEMORY)
    w = Watched(service, FakeCache(), reader)
    w.cache_in_use = cache
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(reader.run)
            nursery.start_soon(w.watch)
            yield w
            nursery.cancel_scope.cancel()
    finally:
        cache.close()


def quick(**options) -> FakeService:
    return FakeService(latency_s=0, rate=1e12, chunk=256 * KIB, **options)


@pytest.mark.promise("memory-is-bounded")
async def test_idle_open_files(tmp_path):
    """Twelve large files, each read a little and left open."""
    async with without_a_disk(quick(), tmp_path) as w:
        handles = [w.reader.open(record(400 * MIB, f"f{n}", checksum=""), n + 1) for n in range(12)]
        for handle in handles:
            await w.read_on(handle, 0, 24 * MIB)
        for handle in handles:
            await w.read_on(handle, 24 * MIB, 25 * MIB)
            w.reader.release(handle)


@pytest.mark.promise("memory-is-bounded")
async def test_many_handles_of_one_file(tmp_path):
    """Twelve readers of one file, each at another place."""
    async with without_a_disk(quick(), tmp_path) as w:
        one = record(800 * MIB, checksum="")
        handles = [w.reader.open(one, 7) for _ in range(12)]
        async with trio.open_nursery() as nursery:
            for n, handle in enumerate(handles):
                nursery.start_soon(w.read_on, handle, n * 60 * MIB, (n * 60 + 12) * MIB)
        for handle in handles:
            w.reader.release(handle)


@pytest.mark.promise("memory-is-bounded")
async def test_a_far_seek_in_a_whole_stream(tmp_path):
    """A player looks for what stands at the end: what passes on the way there is not kept."""
    async with without_a_disk(quick(way="stream"), tmp_path) as w:
        handle = w.reader.open(record(300 * MIB, checksum=""), 7)
        await w.read(handle, 0, 128 * KIB)
        at = 299 * MIB
        assert await w.read(handle, at, 128 * KIB) == plain(at, at + 128 * KIB)
        w.reader.release(handle)


@pytest.mark.promise("memory-is-bounded")
async def test_many_small_files_left_open(tmp_path):
    """Sixty of 4 MiB, 4 KiB read of each; then some of them are read to their end."""
    async with without_a_disk(quick(), tmp_path) as w:
        handles = [w.reader.open(record(4 * MIB, f"f{n}"), n + 1) for n in range(60)]
        for handle in handles:
            assert await w.read(handle, 0, 4 * KIB) == plain(0, 4 * KIB)
        for handle in handles[::15]:
            await w.read_on(handle)
        for handle in handles:
            w.reader.release(handle)


async def read_side_by_side(w: Watched, size: int) -> None:
    """Read forty files at once, and compare; the service sends less than three times as much."""
    handles = [w.reader.open(record(size, f"f{n}"), n + 1) for n in range(40)]
    async with trio.open_nursery() as nursery:
        for handle in handles:
            nursery.start_soon(w.read_on, handle)
    assert w.service.sent() < 3 * 40 * size
    for handle in handles:
        w.reader.release(handle)


@pytest.mark.promise("memory-is-bounded")
@pytest.mark.parametrize("size", [4 * MIB, 6 * MIB])
async def test_many_readers_at_once_are_right(tmp_path, size):
    """Forty files side by side: little memory each, every byte right."""
    async with without_a_disk(quick(), tmp_path) as w:
        await read_side_by_side(w, size)


async def test_what_memory_gave_back_is_fetched_for_readers_only(tmp_path, monkeypatch):
    """While the checks of forty files take their time, nothing is fetched over and over."""
    in_thread = Backend.in_thread

    async def slow(backend, work):
        done = await in_thread(backend, work)
        await trio.sleep(1)
        return done

    monkeypatch.setattr(Backend, "in_thread", slow)
    async with without_a_disk(quick(), tmp_path) as w:
        await read_side_by_side(w, 4 * MIB)


@pytest.mark.promise("whole-is-checked")
@pytest.mark.expected_log("wrong content")
@pytest.mark.parametrize("size", [4 * MIB, 9 * MIB])
async def test_little_memory_is_no_reason_not_to_check(tmp_path, size):
    """A file that is read while others need the memory is checked as it passes."""
    async with without_a_disk(quick(), tmp_path) as w:
        others = [w.reader.open(record(400 * MIB, f"o{n}", checksum=""), n + 9) for n in range(6)]
        right = record(size, "right")
        wrong = record(size, "wrong", checksum=hashlib.md5(b"else").hexdigest())
        ends = []
        for one in (right, wrong):
            handle = w.reader.open(one, 7)
            try:
                for at in range(0, size, MIB):
                    await w.read_on(handle, at, at + MIB)
                    for other in others:
                        await w.read_on(other, 3 * at, 3 * at + 3 * MIB)
                ends.append("right")
            except PhonofsError as error:
                ends.append(type(error).__name__)
            w.reader.release(handle)
        assert ends == ["right", "Corrupt"]
        for other in others:
            w.reader.release(other)
