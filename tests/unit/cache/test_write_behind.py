"""Small new contents wait in memory and go to disk together: whatever comes in between."""

import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from phonofs.cache import maintenance
from phonofs.cache.backend import Backend
from phonofs.cache.cache import Cache
from phonofs.cache.entry import CacheEntry
from phonofs.cache.filestore import FileStore
from phonofs.cache.index import Index
from phonofs.cache.write_behind import (
    CAPACITY_BYTES,
    FLUSH_BYTES,
    FLUSH_DELAY_S,
    FLUSH_FILES,
    LARGEST,
)
from tests.support.caching import PLENTY, file_of, on_disk, open_cache, ramp, record

SOON_S = 2 * FLUSH_DELAY_S
DATA = ramp(50_000)
RECORD = record("a", DATA)


@pytest.fixture(autouse=True)
def in_between(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What is handed to a thread is done at once; what is in the list, before it has ended."""
    events: list[Callable[[], None]] = []

    async def in_thread(self, work):
        await trio.lowlevel.checkpoint()
        done = work()
        for event in events:
            event()
        return done

    monkeypatch.setattr(Backend, "in_thread", in_thread)
    return events


@asynccontextmanager
async def running(folder: Path, size: int = PLENTY) -> AsyncIterator[Cache]:
    """A cache with its maintenance task; closed at the end."""
    cache = open_cache(folder, size)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(maintenance.run, cache)
        await trio.testing.wait_all_tasks_blocked()
        yield cache
        nursery.cancel_scope.cancel()
    cache.close()


def written(cache: Cache, wanted=RECORD, data: bytes = DATA) -> CacheEntry:
    """An object that has just come, and was checked."""
    entry = cache.entry(wanted)
    entry.write(0, data)
    assert entry.check_now()
    return entry


async def test_it_is_read_at_once_and_is_on_disk_soon(tmp_path: Path):
    """From memory first, then from its file, with a row that says it was checked."""
    async with running(tmp_path) as cache:
        entry = written(cache)
        assert not file_of(tmp_path, RECORD).exists()
        assert entry.read_now(0, len(DATA)) == DATA
        assert cache.cached_bytes(RECORD) == len(DATA), "it is about to be there"
        await trio.sleep(SOON_S)
        assert file_of(tmp_path, RECORD).read_bytes() == DATA
        assert entry.read_now(0, len(DATA)) == DATA
        assert [(row.bytes, row.verified) for row in cache.entries()] == [(len(DATA), True)]
        cache.release(entry)
        assert cache.statistics()["open"] == 0
    cache = open_cache(tmp_path)
    assert cache.entry(RECORD).verified
    cache.close()


async def test_many_go_in_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Rows first, all of them; then the files; then what the rows say of them, together."""
    saved: list[int] = []
    save = Index.save
    monkeypatch.setattr(Index, "save", lambda self, rows: saved.append(1) or save(self, rows))
    async with running(tmp_path) as cache:
        for number in range(40):
            cache.release(written(cache, record(str(number), DATA)))
        await trio.sleep(SOON_S)
        assert len(saved) == 1
        assert len(list(cache.entries())) == 40
        assert cache.statistics()["open"] == 0


async def test_a_large_one_or_one_too_many_is_a_file_at_once(tmp_path: Path):
    """What waits in memory is bounded, one by one and together."""
    async with running(tmp_path) as cache:
        large = ramp(LARGEST + 1)
        cache.entry(record("large", large)).write(0, large)
        assert file_of(tmp_path, record("large", large)).exists()
        data = ramp(LARGEST)
        wanted = [record(str(number), data) for number in range(CAPACITY_BYTES // LARGEST + 1)]
        for one in wanted:
            cache.entry(one).write(0, data)
        assert [one.id for one in wanted if file_of(tmp_path, one).exists()] == [wanted[-1].id]


async def test_many_do_not_wait_until_there_is_no_space(tmp_path: Path):
    """With two thirds of what may wait, in bytes or in files, those that can go do."""
    async with running(tmp_path) as cache:
        many = FLUSH_BYTES // len(DATA)
        for number in range(many):
            cache.release(written(cache, record(f"a{number}", DATA)))
        await trio.testing.wait_all_tasks_blocked()
        assert on_disk(tmp_path) == 0
        cache.release(written(cache, record("one more", DATA)))
        await trio.testing.wait_all_tasks_blocked()
        assert on_disk(tmp_path) >= many * len(DATA)
        small = b"x" * 10
        for number in range(FLUSH_FILES):
            cache.release(written(cache, record(f"b{number}", small), small))
        await trio.testing.wait_all_tasks_blocked()
        assert not file_of(tmp_path, record("b0", small)).exists()
        cache.release(written(cache, record("another", small), small))
        await trio.testing.wait_all_tasks_blocked()
        assert file_of(tmp_path, record("b0", small)).exists()


async def test_half_an_object_waits_until_it_is_let_go_of(tmp_path: Path):
    """What came of it so far lies on disk when nobody uses it any more."""
    data = ramp(200_000)
    wanted = record("half", data)
    async with running(tmp_path) as cache:
        entry = cache.entry(wanted)
        entry.write(0, data[:150_000])
        await trio.sleep(30)
        assert not file_of(tmp_path, wanted).exists()
        cache.release(entry)
        await trio.sleep(SOON_S)
        assert file_of(tmp_path, wanted).stat().st_size == 131_072, "whole blocks count"
        assert [row.bytes for row in cache.entries()] == [131_072]
        entry = cache.entry(wanted)
        entry.write(131_072, data[131_072:])
        assert await entry.check()
        cache.release(entry)
    assert file_of(tmp_path, wanted).read_bytes() == data


async def test_who_asks_how_much_is_cached_changes_nothing(tmp_path: Path):
    """``user.phonofs.cached`` counts what is on its way to disk, and does not hurry it."""
    async with running(tmp_path) as cache:
        entry = written(cache)
        assert cache.cached_bytes(RECORD) == len(DATA)
        assert not file_of(tmp_path, RECORD).exists()
        await trio.sleep(SOON_S)
        assert file_of(tmp_path, RECORD).read_bytes() == DATA
        assert cache.cached_bytes(RECORD) == len(DATA)
        cache.release(entry)


async def test_what_was_withdrawn_meanwhile_leaves_no_file(tmp_path: Path, in_between):
    """Before it is put down, while it is, and after."""
    async with running(tmp_path) as cache:
        entry = written(cache)
        in_between.append(lambda: cache.forget("us-east", "a"))
        await trio.sleep(SOON_S)
        assert entry.read_now(0, 10) is None
        cache.release(entry)
        in_between.clear()
        other = written(cache, record("b", DATA))
        cache.forget("us-east", "b")
        cache.release(other)
        await trio.sleep(SOON_S)
        assert on_disk(tmp_path) == 0
        assert list(cache.entries()) == []
        assert cache.statistics()["disk_bytes"] == 0


async def test_what_was_dropped_meanwhile_is_not_taken_for_there(tmp_path: Path, in_between):
    """Its old bytes do not stand for those that come then."""
    other = DATA[::-1]
    async with running(tmp_path) as cache:
        entry = written(cache, record("a", DATA, checksum=""))

        def changes() -> None:
            in_between.clear()
            entry.reset()
            entry.write(0, other)
            assert entry.check_now()

        in_between.append(changes)
        await trio.sleep(SOON_S)
        assert not in_between, "it was being put down"
        assert entry.read_now(0, len(DATA)) == other
        cache.release(entry)
        await trio.sleep(SOON_S)
    assert file_of(tmp_path, record("a", DATA, checksum="")).read_bytes() == other


async def test_asked_for_while_it_is_put_down_it_is_written_once(
    tmp_path: Path, in_between, monkeypatch: pytest.MonkeyPatch
):
    """Two who make the same file would spoil it for each other."""
    made: list[bytes] = []
    create = FileStore.create
    monkeypatch.setattr(
        FileStore, "create", lambda self, key: made.append(key) or create(self, key)
    )
    async with running(tmp_path) as cache:
        entry = written(cache)
        in_between.append(lambda: cache.cached_bytes(RECORD))
        await trio.sleep(SOON_S)
        cache.release(entry)
    assert len(made) == 1


async def test_a_longer_object_than_said_does_not_stay_in_memory(tmp_path: Path):
    """The record's length is what it waits by; the real one may be any."""
    wanted, data = record("a", checksum="", size=10), ramp(3 * LARGEST)
    async with running(tmp_path) as cache:
        entry = cache.entry(wanted)
        entry.write(0, data[:10])
        entry.resize(len(data))
        entry.write(10, data[10:])
        assert file_of(tmp_path, wanted).read_bytes() == data
        assert await entry.read(0, len(data)) == data
        cache.release(entry)


@pytest.mark.expected_log("the disk cache is off")
async def test_what_the_disk_does_not_take_is_read_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_log
):
    """Whoever has it open reads on; afterwards it is gone, and nothing is charged for."""

    def full(self, key):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(FileStore, "create", full)
    async with running(tmp_path) as cache:
        entries = [written(cache, record(str(number), DATA)) for number in range(4)]
        await trio.sleep(SOON_S)
        assert all(entry.read_now(0, len(DATA)) == DATA and entry.in_memory for entry in entries)
        assert cache.statistics()["memory_bytes"] > 0
        for entry in entries:
            cache.release(entry)
        await trio.sleep(SOON_S)
        found = cache.statistics()
        assert (found["memory_bytes"], found["disk_bytes"], found["open"]) == (0, 0, 0)
        assert list(cache.entries()) == []
    assert len(expected_log.seen) == 1


async def test_at_the_end_everything_is_put_down(tmp_path: Path):
    """A mount that ends a moment after a read keeps what was read."""
    async with running(tmp_path) as cache:
        entry = written(cache)
    assert file_of(tmp_path, RECORD).read_bytes() == DATA
    assert entry.verified


@pytest.mark.parametrize("at", range(12))
async def test_cancelled_anywhere_nothing_is_lost(tmp_path: Path, at: int):
    """Whatever maintenance was doing when the mount ended, all is on disk and has its row."""
    cache = open_cache(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(maintenance.run, cache)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(3):
            cache.release(written(cache, record(str(number), DATA)))
        with trio.move_on_after(0.1):
            await trio.sleep_forever()
        for _ in range(at):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    cache.close()
    cache = open_cache(tmp_path)
    assert [(row.bytes, row.verified) for row in cache.entries()] == [(len(DATA), True)] * 3
    assert all(file_of(tmp_path, record(str(n), DATA)).read_bytes() == DATA for n in range(3))
    cache.close()
