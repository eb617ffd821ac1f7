"""One object in the cache: what is written comes out, what is wrong never does."""

import errno
import os
import socket
import threading
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phonofs.cache import blockfile, checksum_task, hash_threads, stored_blocks
from phonofs.cache import entry as entry_module
from phonofs.cache.blockfile import BlockFile
from phonofs.cache.blocks import BLOCK, bytes_of
from phonofs.cache.buffers import BufferPool
from phonofs.cache.cache import Cache
from phonofs.cache.codec import AesGcmCodec
from phonofs.cache.entry import CacheEntry
from phonofs.cache.maintenance import run_once
from phonofs.cache.stored_blocks import StoredRange
from phonofs.ranges import Ranges
from tests.support.caching import (
    MIB,
    PLENTY,
    file_of,
    fill,
    md5,
    on_disk,
    open_cache,
    ramp,
    record,
    stored,
)
from tests.support.descriptors import descriptors, settled_descriptors
from tests.support.log_check import LogCheck

DATA = ramp(3 * BLOCK + 1000)
RECORD = record("a", DATA)
LOST = pytest.mark.expected_log("the cache lost", "the disk of the cache fails")


async def read_all(entry: CacheEntry, step: int = BLOCK) -> bytes | None:
    parts = [await entry.read(at, min(step, entry.size - at)) for at in range(0, entry.size, step)]
    return None if None in parts else b"".join(part or b"" for part in parts)


async def test_what_was_written_is_read_at_once(tmp_path: Path):
    """In this run, without any check."""
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    assert (entry.size, entry.complete, list(entry.present)) == (len(DATA), False, [])
    entry.write(BLOCK, memoryview(DATA)[BLOCK : 2 * BLOCK])
    assert list(entry.present) == [(BLOCK, 2 * BLOCK)]
    assert entry.read_now(BLOCK + 7, 100) == DATA[BLOCK + 7 : BLOCK + 107]
    assert entry.read_now(BLOCK - 1, 2) is None
    assert await entry.read(BLOCK - 1, 2) is None
    assert not entry.in_memory
    cache.release(entry)
    cache.close()


async def test_what_was_written_survives_a_remount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Verified as it was, block by block, also at odd offsets."""
    monkeypatch.setattr(stored_blocks, "CHECK_NOW", 2)
    await stored(tmp_path, RECORD, DATA)
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    assert entry.complete
    assert entry.verified
    assert entry.read_now(BLOCK - 5, 10) == DATA[BLOCK - 5 : BLOCK + 5]
    assert entry.read_now(0, len(DATA)) is None  # too much to check at once
    assert await entry.read(0, len(DATA)) == DATA
    assert entry.read_now(0, len(DATA)) == DATA
    assert await entry.check()
    cache.close()


async def test_a_partial_object_survives_in_whole_blocks(tmp_path: Path):
    """What lies in a block that is not whole is fetched again."""
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(100, DATA[100 : 2 * BLOCK + 7])
    entry.write(3 * BLOCK, DATA[3 * BLOCK :])
    cache.release(entry)
    cache.close()
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    assert list(entry.present) == [(BLOCK, 2 * BLOCK), (3 * BLOCK, len(DATA))]
    assert await entry.read(BLOCK, 10) == DATA[BLOCK : BLOCK + 10]
    assert not entry.verified
    entry.write(0, DATA[:BLOCK])
    entry.write(2 * BLOCK, DATA[2 * BLOCK : 3 * BLOCK])
    assert entry.complete
    assert await entry.check()
    assert await read_all(entry, 1000) == DATA
    cache.close()


@pytest.mark.promise("nothing-unchecked-from-disk")
@LOST
@pytest.mark.parametrize("at", [0, 5, BLOCK, 2 * BLOCK - 1, len(DATA) - 1])
@pytest.mark.parametrize("now", [True, False])
async def test_a_flipped_bit_is_never_served(tmp_path: Path, at: int, now: bool):
    """Its block is a miss, the others are not."""
    await stored(tmp_path, RECORD, DATA)
    with file_of(tmp_path, RECORD).open("r+b") as file:
        file.seek(at)
        file.write(bytes([DATA[at] ^ 1]))
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    block = at // BLOCK * BLOCK
    end = min(block + BLOCK, len(DATA))
    got = entry.read_now(at, 1) if now else await entry.read(at, 1)
    assert got is None
    assert entry.present.missing(0, len(DATA)) == [(block, end)]
    assert not entry.verified
    for start in range(0, len(DATA), BLOCK):
        stop = min(start + BLOCK, len(DATA))
        if start != block:
            assert await entry.read(start, stop - start) == DATA[start:stop]
    entry.write(block, DATA[block:end])
    assert await read_all(entry) == DATA
    assert await entry.check()
    cache.close()


@LOST
@pytest.mark.parametrize("length", [0, 1, BLOCK, 2 * BLOCK + 5, len(DATA) - 1])
async def test_a_truncated_file_is_a_miss_from_there_on(tmp_path: Path, length: int):
    """No zeros, no short read."""
    await stored(tmp_path, RECORD, DATA)
    os.truncate(file_of(tmp_path, RECORD), length)
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    for start in range(0, len(DATA), BLOCK):
        stop = min(start + BLOCK, len(DATA))
        want = DATA[start:stop] if stop <= length else None
        assert await entry.read(start, stop - start) == want
    cache.close()


@LOST
async def test_of_a_truncated_file_what_is_left_stays(tmp_path: Path):
    """One long read finds out which blocks are not there."""
    await stored(tmp_path, RECORD, DATA)
    os.truncate(file_of(tmp_path, RECORD), 2 * BLOCK + 5)
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    assert await entry.read(0, len(DATA)) is None
    assert list(entry.present) == [(0, 2 * BLOCK)]
    assert await entry.read(0, 2 * BLOCK) == DATA[: 2 * BLOCK]
    cache.close()


@LOST
async def test_a_passing_read_error_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What the second look finds right is given out, whole."""
    monkeypatch.setattr(stored_blocks, "CHECK_NOW", 0)  # the first look, which does not wait
    await stored(tmp_path, RECORD, DATA)
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    real, failures = os.preadv, [errno.EIO]

    def preadv(fd: int, buffers: list[memoryview], at: int, *flags: int) -> int:
        if failures:
            raise OSError(failures.pop(), "Input/output error")
        return real(fd, buffers, at, *flags)

    monkeypatch.setattr(os, "preadv", preadv)
    assert await entry.read(0, len(DATA)) == DATA
    assert not failures
    cache.close()


@LOST
async def test_zeros_in_place_of_bytes_are_a_miss(tmp_path: Path):
    """As a power cut leaves them."""
    await stored(tmp_path, RECORD, DATA)
    size = file_of(tmp_path, RECORD).stat().st_size
    os.truncate(file_of(tmp_path, RECORD), 0)
    os.truncate(file_of(tmp_path, RECORD), size)
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    assert await entry.read(0, len(DATA)) is None
    assert entry.read_now(0, 1) is None
    assert not entry.present
    cache.close()


@LOST
async def test_a_swapped_file_is_a_miss(tmp_path: Path):
    """Another object's bytes are nobody's."""
    other, data = record("b", ramp(len(DATA), 9)), ramp(len(DATA), 9)
    await stored(tmp_path, RECORD, DATA)
    await stored(tmp_path, other, data)
    a, b = file_of(tmp_path, RECORD), file_of(tmp_path, other)
    a.rename(tmp_path / "x")
    b.rename(a)
    (tmp_path / "x").rename(b)
    cache = open_cache(tmp_path)
    for wanted in (RECORD, other):
        entry = cache.entry(wanted)
        assert await entry.read(0, 10) is None
        assert entry.read_now(BLOCK, 10) is None
    cache.close()


@LOST
@pytest.mark.parametrize("how", ["removed", "link", "folder", "pipe"])
async def test_a_file_that_is_no_file_any_more_is_a_miss(tmp_path: Path, how: str):
    """Nor is a link in its place followed."""
    await stored(tmp_path, RECORD, DATA)
    path = file_of(tmp_path, RECORD)
    path.unlink()
    (tmp_path / "victim").write_bytes(DATA)
    if how == "link":
        path.symlink_to(tmp_path / "victim")
    elif how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    assert await entry.read(0, 10) is None
    assert not entry.present
    entry.write(0, DATA)  # wherever it goes
    assert entry.read_now(0, len(DATA)) == DATA
    assert (tmp_path / "victim").read_bytes() == DATA
    assert not (tmp_path / "victim").is_symlink()
    cache.close()


@LOST
async def test_a_file_touched_while_it_was_closed_is_checked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In the same run, too: released, closed, changed by somebody, opened again."""
    monkeypatch.setattr("phonofs.cache.idle_entries.IDLE", 1)
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, DATA)
    assert await entry.check()
    cache.release(entry)
    fill(cache, record("b", DATA), DATA)
    await run_once(cache)
    with file_of(tmp_path, RECORD).open("r+b") as file:
        file.write(b"\xff")
    entry = cache.entry(RECORD)
    assert entry.read_now(0, 10) is None
    assert await entry.read(0, 10) is None
    assert entry.read_now(BLOCK, 10) == DATA[BLOCK : BLOCK + 10]
    cache.close()


# The check of the whole


async def test_a_wrong_content_fails_its_check(tmp_path: Path):
    """Its bytes stay until they are reset, and none of them outlives the run."""
    cache = open_cache(tmp_path)
    wanted = record("a", DATA, checksum=md5(b"other"))
    entry = cache.entry(wanted)
    entry.write(0, DATA)
    assert not await entry.check()
    assert not entry.verified
    assert entry.read_now(0, 5) == DATA[:5]
    entry.reset()
    assert not entry.present
    assert on_disk(tmp_path) == 0
    assert cache.statistics()["disk_bytes"] == 0
    entry.write(0, DATA)
    assert entry.read_now(0, 5) == DATA[:5]
    cache.close()


@pytest.mark.expected_log("does not have its checksum")
async def test_a_complete_object_nobody_checked_is_checked_before_it_is_served(tmp_path: Path):
    """The process was killed between its last byte and its check."""
    for wanted in (RECORD, record("b", DATA, checksum=md5(b"other"))):
        cache = open_cache(tmp_path)
        entry = cache.entry(wanted)
        entry.write(0, DATA)
        cache.close()  # saves what is there
        cache = open_cache(tmp_path)
        entry = cache.entry(wanted)
        assert entry.complete
        assert not entry.verified
        assert entry.read_now(0, 5) is None
        right = wanted is RECORD
        assert await entry.read(0, 5) == (DATA[:5] if right else None)
        assert entry.verified is entry.complete is right
        cache.close()


async def test_without_a_checksum_the_length_is_checked(tmp_path: Path):
    """And every block by its CRC in a later run."""
    wanted = record("a", DATA, checksum=md5(DATA) + "-3")
    await stored(tmp_path, wanted, DATA)
    cache = open_cache(tmp_path)
    entry = cache.entry(wanted)
    assert entry.verified
    assert await read_all(entry) == DATA
    cache.close()


async def test_an_incomplete_object_is_not_verified(tmp_path: Path):
    """Whatever its checksum says."""
    for wanted in (RECORD, record("b", DATA, checksum="")):
        cache = open_cache(tmp_path)
        entry = cache.entry(wanted)
        entry.write(0, DATA[:-1])
        assert not await entry.check()
        cache.close()


async def test_an_empty_object_is_complete(tmp_path: Path):
    """Nothing has to be fetched for it."""
    cache = open_cache(tmp_path)
    entry = cache.entry(record("a", b""))
    assert entry.complete
    assert await entry.check()
    assert await entry.read(0, 0) == b""
    cache.release(entry)
    cache.close()


async def test_a_check_goes_on_where_it_was_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nothing is hashed twice, and nothing stays locked."""
    monkeypatch.setattr(checksum_task, "HASH_STEP", BLOCK)
    monkeypatch.setattr(checksum_task, "HASH_NOW", 0)
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, DATA)
    steps = 0
    while not entry.verified:
        steps += 1
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(entry.check)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert steps < 20
    assert entry.verified
    cache.close()


@pytest.mark.parametrize("at", range(4))
async def test_a_small_object_is_right_although_its_check_was_cancelled(tmp_path: Path, at: int):
    """Bytes that were hashed and not counted would be hashed twice, for a wrong checksum."""
    cache = open_cache(tmp_path)
    entry = cache.entry(record("a", DATA[:BLOCK]))
    entry.write(0, DATA[:BLOCK])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(entry.check)
        for _ in range(at):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert await entry.check()
    cache.close()


async def test_checking_ahead_leaves_less_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What was hashed while it came is not read again."""
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, DATA[: 2 * BLOCK + 9])
    await entry.check_ahead()
    entry.write(2 * BLOCK, DATA[2 * BLOCK :])
    read: list[int] = []
    real = BlockFile.read_into
    monkeypatch.setattr(
        BlockFile, "read_into", lambda self, at, buf: (read.append(at), real(self, at, buf))[1]
    )
    assert await entry.check()
    assert min(read) == 2 * BLOCK
    cache.close()


@pytest.mark.expected_log("the cache lost")
async def test_what_the_disk_gives_back_wrong_is_no_wrong_content(tmp_path: Path):
    """What was written in this run is hashed without its CRC; so if the hash is wrong, all is
    hashed once more with it, and the block is lost, not the content.
    """
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, DATA)
    with file_of(tmp_path, RECORD).open("r+b") as file:
        file.seek(BLOCK + 5)
        file.write(b"another")
    await entry.check_ahead()
    assert not await entry.check()
    assert entry.present.missing(0, len(DATA)) == [(BLOCK, 2 * BLOCK)]
    entry.write(BLOCK, DATA[BLOCK : 2 * BLOCK])
    assert await entry.check()
    assert await read_all(entry) == DATA
    cache.close()


async def test_a_content_hashed_ahead_may_be_wrong(tmp_path: Path):
    """It is, if the disk gave back what was written."""
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, ramp(len(DATA), 5))
    await entry.check_ahead()
    assert not await entry.check()
    assert entry.complete
    cache.close()


async def test_bytes_written_again_are_hashed_again(tmp_path: Path):
    """The hash is of what lies there in the end."""
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, ramp(len(DATA), 5))
    await entry.check_ahead()
    entry.write(0, DATA)
    assert await entry.check()
    cache.close()


@pytest.mark.real_clock  # a made-up one would jump ahead while a thread hashes
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]])
async def test_what_comes_while_a_thread_hashes_is_hashed_by_it(
    order: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In the order of the content, whatever comes first; the check then reads nothing."""
    monkeypatch.setattr(hash_threads, "LINGER_S", 60.0)
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(entry.check_ahead)
        for number in order:
            await trio.testing.wait_all_tasks_blocked()
            start, stop = bytes_of(number, number + 1, len(DATA))
            entry.write(start, DATA[start:stop])
    read: list[int] = []
    monkeypatch.setattr(BlockFile, "read_into", lambda self, at, buf: read.append(at))
    assert await entry.check()
    assert not read
    cache.close()


@pytest.mark.real_clock
async def test_what_waits_for_a_thread_is_hashed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """All that came while it hashed something else, object by object."""
    monkeypatch.setattr(entry_module, "HASH_PIECE", BLOCK)
    monkeypatch.setattr(hash_threads, "MOST_THREADS", 1)
    first, begun, real = threading.Event(), threading.Event(), BlockFile.read_into
    reads: list[tuple[int, int]] = []

    def read_into(self: BlockFile, at: int, buffer: memoryview) -> int:
        begun.set()
        first.wait(10)
        reads.append((at, len(buffer)))
        return real(self, at, buffer)

    monkeypatch.setattr(BlockFile, "read_into", read_into)
    cache = open_cache(tmp_path)
    entries = [cache.entry(RECORD), cache.entry(record("other", DATA))]
    async with trio.open_nursery() as nursery:
        for entry in entries:
            nursery.start_soon(entry.check_ahead)
        await trio.testing.wait_all_tasks_blocked()
        entries[0].write(0, DATA[:BLOCK])
        await trio.to_thread.run_sync(begun.wait)
        for entry in (entries[1], entries[0]):
            for number in range(entry is entries[0], 4):
                start, stop = bytes_of(number, number + 1, len(DATA))
                entry.write(start, DATA[start:stop])
        first.set()
    assert reads == [(0, BLOCK), (0, len(DATA)), (BLOCK, len(DATA) - BLOCK)]
    for entry in entries:
        assert await entry.check()
    cache.close()


@pytest.mark.real_clock
async def test_hashing_that_was_cancelled_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """How far a thread had come by then is not known."""
    monkeypatch.setattr(entry_module, "HASH_PIECE", BLOCK)
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, DATA[: 2 * BLOCK])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(entry.check_ahead)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    entry.write(2 * BLOCK, DATA[2 * BLOCK :])
    assert await entry.check()
    cache.close()


@pytest.mark.real_clock
async def test_what_comes_after_the_end_is_hashed_by_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The next blocks came late, so hashing ends; its thread is still busy when more come."""
    monkeypatch.setattr(hash_threads, "FIRST_S", 0.0)
    monkeypatch.setattr(hash_threads, "LINGER_S", 0.0)
    monkeypatch.setattr(entry_module, "HASH_PIECE", BLOCK)
    first, next_ones, real = threading.Event(), threading.Event(), BlockFile.read_into

    def read_into(self: BlockFile, at: int, buffer: memoryview) -> int:
        (next_ones if at else first).wait(10)
        return real(self, at, buffer)

    monkeypatch.setattr(BlockFile, "read_into", read_into)
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, DATA[:BLOCK])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(entry.check_ahead)
        await trio.testing.wait_all_tasks_blocked(0.05)
        for start in range(BLOCK, len(DATA), BLOCK):
            entry.write(start, DATA[start : start + BLOCK])
        first.set()
    next_ones.set()
    assert await entry.check()
    cache.close()


@pytest.mark.real_clock
async def test_what_changes_while_a_thread_hashes_is_hashed_again(tmp_path: Path):
    """Bytes that are written anew, and a content that is given up and comes again."""
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    for change in (lambda: entry.write(0, DATA[:BLOCK]), entry.reset):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(entry.check_ahead)
            await trio.testing.wait_all_tasks_blocked()
            entry.write(0, ramp(2 * BLOCK, 5))
            change()
    entry.write(0, DATA)
    assert await entry.check()
    cache.close()


async def test_several_who_check_wait_for_one(tmp_path: Path):
    """All get the same answer."""
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, DATA)
    answers: list[bool] = []

    async def ask() -> None:
        answers.append(await entry.check())

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert answers == [True] * 5
    cache.close()


# The real length


async def test_a_longer_object_grows(tmp_path: Path):
    """What was there stays, but for the block that is no longer whole in a later run."""
    short = DATA[:-500]
    wanted = record("a", DATA, size=len(short))
    cache = open_cache(tmp_path)
    entry = cache.entry(wanted)
    entry.write(0, DATA)
    assert list(entry.present) == [(0, len(short))]
    entry.resize(len(DATA))
    assert not entry.complete
    entry.write(len(short), DATA[len(short) :])
    assert await entry.check()
    cache.close()
    cache = open_cache(tmp_path)
    entry = cache.entry(wanted)
    assert entry.size == len(DATA)
    assert await read_all(entry) == DATA
    cache.close()


async def test_a_shorter_object_shrinks(tmp_path: Path):
    """What lies behind its end is forgotten, and its space given back."""
    wanted = record("a", DATA, size=len(DATA) + 5 * BLOCK)
    cache = open_cache(tmp_path)
    entry = cache.entry(wanted)
    entry.write(0, DATA + ramp(5 * BLOCK))
    entry.resize(len(DATA))
    assert list(entry.present) == [(0, len(DATA))]
    assert await entry.check()
    assert await read_all(entry) == DATA
    assert on_disk(tmp_path) <= len(DATA) + 2 * 4096
    cache.close()


async def test_a_block_cut_by_a_new_length_is_not_trusted_by_its_old_seal(tmp_path: Path):
    """It was of an earlier run, and nothing can check it now."""
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, DATA[: 2 * BLOCK])
    cache.close()
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.resize(BLOCK + 100)
    assert list(entry.present) == [(0, BLOCK)]
    assert await entry.read(0, BLOCK) == DATA[:BLOCK]
    cache.close()
    cache = open_cache(tmp_path)
    assert list(cache.entry(RECORD).present) == [(0, BLOCK)]
    cache.close()


# Memory


def memory_cache(folder: Path) -> Cache:
    return open_cache(folder, 0)


async def test_without_a_cache_all_is_in_memory(tmp_path: Path):
    """And nothing on disk."""
    cache = memory_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, DATA)
    assert entry.in_memory
    assert await read_all(entry) == DATA
    assert await entry.check()
    assert cache.statistics()["memory_bytes"] == entry.memory_bytes >= len(DATA)
    assert not list(tmp_path.iterdir())
    cache.release(entry)
    assert cache.statistics()["memory_bytes"] == 0


async def test_only_what_is_wanted_is_kept_in_memory(tmp_path: Path):
    """Whole blocks; the others are given back at once."""
    cache = memory_cache(tmp_path)
    entry = cache.entry(record("a", ramp(MIB)))
    entry.write(0, ramp(MIB))
    entry.keep(Ranges([(100_000, 200_000), (MIB - 1, MIB)]))
    assert list(entry.present) == [(0, 2 * BLOCK), (MIB - BLOCK, MIB)]
    assert entry.memory_bytes == cache.statistics()["memory_bytes"] == 3 * BLOCK
    assert entry.read_now(100_000, 100_000) == ramp(MIB)[100_000:200_000]
    assert entry.read_now(2 * BLOCK - 1, 2) is None
    assert await entry.read(2 * BLOCK, 1) is None
    entry.write(0, ramp(MIB))
    assert await read_all(entry) == ramp(MIB)
    cache.release(entry)


async def test_memory_that_is_nobodys_any_more_is_closed(tmp_path: Path):
    """Descriptors too."""
    cache = memory_cache(tmp_path)
    before = settled_descriptors()
    entries = [cache.entry(record(str(n), DATA)) for n in range(5)]
    for entry in entries:
        entry.write(0, DATA)
    for entry in entries[:3]:
        entry.reset()
    for entry in entries:
        cache.release(entry)
    assert descriptors() == before
    assert cache.statistics()["memory_bytes"] == 0


@pytest.mark.expected_log("no memory for content")
async def test_without_any_place_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And said not to be there, rather than promised."""

    def none(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(BufferPool, "__setitem__", none)
    cache = memory_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, DATA)
    assert not entry.present
    assert entry.read_now(0, 1) is None
    assert cache.statistics()["refused_bytes"] == len(DATA)
    cache.release(entry)


@pytest.mark.expected_log("the cache lost", "the disk of the cache fails", "cache is off")
@pytest.mark.parametrize("in_ram", [False, True])
async def test_bytes_that_cannot_be_read_back_turn_the_disk_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_ram: bool
):
    """They are not written there once more, to be lost again with the next read."""
    await stored(tmp_path, RECORD, DATA)
    if in_ram:
        monkeypatch.setattr("phonofs.cache.backend.file_system_of", lambda fd: "tmpfs")
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    assert await entry.read(0, 10) == DATA[:10]

    def failing(*args: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", failing)
        patch.setattr(os, "preadv", failing)
        assert entry.read_now(0, 10) is None
        assert await entry.read(0, 10) is None
    assert cache.statistics()["state"] == "off"
    entry.write(0, DATA)
    assert entry.in_memory
    assert await read_all(entry) == DATA
    cache.release(entry)
    cache.close()


@pytest.mark.expected_log("no memory for content")
async def test_memory_that_takes_nothing_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_log: LogCheck
):
    """However often it is tried again for the readers that wait."""
    cache = memory_cache(tmp_path)
    entry = cache.entry(RECORD)

    def full(*args: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(BufferPool, "__setitem__", full)
        for _ in range(20):
            entry.write(0, DATA)
    assert len(expected_log.seen) == 1
    assert not entry.present
    entry.write(0, DATA)
    assert await read_all(entry) == DATA
    cache.release(entry)


async def test_a_cache_in_ram_answers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """There, the kernel cannot say whether a read would wait; it never does."""
    monkeypatch.setattr("phonofs.cache.backend.file_system_of", lambda fd: "tmpfs")
    await stored(tmp_path, RECORD, DATA)
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    assert entry.read_now(0, BLOCK) == DATA[:BLOCK]
    assert entry.read_now(5, 10) == DATA[5:15]
    cache.close()


async def test_where_the_kernel_cannot_say_a_thread_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Some file systems do not know RWF_NOWAIT."""
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], at: int, flags: int = 0) -> int:
        if flags:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(fd, buffers, at)

    monkeypatch.setattr(os, "preadv", preadv)
    await stored(tmp_path, RECORD, DATA)
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    assert entry.read_now(0, 10) is None
    assert await entry.read(0, 10) == DATA[:10]
    assert await read_all(entry, 1000) == DATA
    cache.close()


async def test_an_object_partly_in_memory_is_read_across_both(tmp_path: Path):
    """Of an earlier run, of this one, on disk and not, in one read."""
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, DATA[:BLOCK])
    entry.write(2 * BLOCK, DATA[2 * BLOCK : 3 * BLOCK])
    cache.close()
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(3 * BLOCK, DATA[3 * BLOCK :])
    entry.in_memory = True
    entry.write(BLOCK - 10, DATA[BLOCK - 10 : 2 * BLOCK + 10])
    assert entry.complete
    assert await entry.read(5, len(DATA) - 9) == DATA[5:-4]
    assert await entry.check()
    cache.release(entry)
    cache.close()
    cache = open_cache(tmp_path)
    again = cache.entry(RECORD)
    assert not again.verified
    assert 0 < again.present.total() < len(DATA)
    cache.close()


# Random reads and writes against a plain file


pieces = st.tuples(st.integers(0, len(DATA)), st.integers(0, 2 * BLOCK))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), pieces),
        st.tuples(st.just("read"), pieces),
        st.tuples(st.just("now"), pieces),
        st.tuples(st.just("remount"), st.none()),
        st.tuples(st.just("release"), st.none()),
        st.tuples(st.just("check"), st.none()),
        st.tuples(st.just("flip"), st.integers(0, len(DATA) - 1)),
        st.tuples(st.just("keep"), pieces),
        st.tuples(st.just("off"), st.booleans()),
        st.tuples(st.just("reset"), st.none()),
    ),
    max_size=30,
)


@pytest.mark.expected_log("")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps)
def test_whatever_happens_only_the_right_bytes_come_out(tmp_path_factory, steps):
    """Writes, losses, remounts, memory and disk in any order: right, or nothing."""
    folder = tmp_path_factory.mktemp("c")

    async def run() -> None:
        cache = open_cache(folder)
        entry = cache.entry(RECORD)
        for what, arg in steps:
            cache, entry = await step(folder, cache, entry, what, arg)
            present = entry.present.total()
            assert present <= len(DATA)
        cache.close()

    trio.run(run)


async def step(folder: Path, cache: Cache, entry: CacheEntry, what: str, arg):
    if what in ("write", "read", "now", "keep"):
        start, stop = arg[0], min(sum(arg), len(DATA))
        if what == "write":
            entry.write(start, DATA[start:stop])
            assert entry.present.covers(start, stop)
        elif what == "keep":
            entry.keep(Ranges([(start, stop)]))
        else:
            n = max(0, stop - start)
            got = entry.read_now(start, n) if what == "now" else await entry.read(start, n)
            assert got is None or got == DATA[start:stop]
    elif what == "remount":
        cache.close()
        cache = open_cache(folder)
        entry = cache.entry(RECORD)
    elif what == "release":
        cache.release(entry)
        entry = cache.entry(RECORD)
    elif what == "check":
        if entry.complete and not entry.unverified:
            right = await entry.check()
            assert right or not entry.complete
    elif what == "flip":
        cache.close()
        flip(folder, arg)
        cache = open_cache(folder)
        entry = cache.entry(RECORD)
    elif what == "off":
        entry.in_memory = arg
    else:
        entry.reset()
    return cache, entry


def flip(folder: Path, at: int) -> None:
    """Change a byte of the file while it is closed."""
    path = file_of(folder, RECORD)
    if not path.exists() or path.stat().st_size <= at:
        return
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x40]))


async def test_a_small_object_is_checked_at_once(tmp_path: Path):
    """Where it was just written whole and is right; all else is left to the check that waits."""
    data = ramp(50_000)
    cache = open_cache(tmp_path)
    for wanted, right in ((record("s", data), True), (record("t", data, checksum="0" * 32), False)):
        entry = cache.entry(wanted)
        entry.write(0, data[:-1])
        assert not entry.check_now()
        entry.write(len(data) - 1, data[-1:])
        assert entry.check_now() is right
        assert entry.verified is right
        assert await entry.check() is right
    large = cache.entry(RECORD)
    large.write(0, DATA)
    assert not large.check_now()
    cache.close()
    cache = open_cache(tmp_path)
    assert cache.entry(record("s", data)).verified
    assert not cache.entry(record("t", data, checksum="0" * 32)).check_now()
    cache.close()


def taken(stored: StoredRange, most: int = MIB) -> bytes:
    """Have a socket take what is stored, which need not be all of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, most)
        theirs.setblocking(False)
        while stored and stored.send(theirs.fileno()):
            pass
        theirs.close()
        return b"".join(iter(lambda: ours.recv(MIB), b""))


async def test_what_was_checked_is_sent_from_its_file(tmp_path: Path):
    """Any part of it; as much as the socket takes, and on from there."""
    data = ramp(2 * MIB + 1000)
    wanted = record("a", data)
    await stored(tmp_path, wanted, data)
    cache = open_cache(tmp_path)
    entry = cache.entry(wanted)
    assert await entry.read(0, len(data)) == data
    for offset, n in ((0, 1), (5, BLOCK), (BLOCK - 1, MIB), (2 * MIB, 1000)):
        lent = entry.lend_stored(offset, n)
        assert lent is not None
        assert (len(lent), lent.offset) == (n, offset)
        assert taken(lent, 2 * MIB) == data[offset : offset + n]
        assert not lent
    lent, got = entry.lend_stored(0, len(data)), b""
    assert lent is not None
    while lent:
        some = taken(lent, 1 << 16)
        assert 0 < len(some) < MIB
        got += some
    assert got == data
    cache.release(entry)
    cache.close()


@pytest.mark.promise("nothing-unchecked-from-disk")
@LOST
async def test_what_was_not_checked_is_not_sent_from_its_file(tmp_path: Path):
    """Not before its verification, nor a block of an earlier run before its check, nor if bad."""
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, DATA)
    assert entry.lend_now(0, BLOCK) is not None
    assert entry.lend_stored(0, BLOCK) is None
    assert await entry.check()
    assert entry.lend_stored(0, BLOCK) is not None
    cache.release(entry)
    cache.close()
    flip(tmp_path, 2 * BLOCK + 5)
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    assert entry.verified
    assert entry.lend_stored(0, BLOCK) is None
    assert entry.read_now(0, 2 * BLOCK) == DATA[: 2 * BLOCK]
    assert entry.lend_stored(0, 2 * BLOCK) is not None
    assert entry.lend_stored(0, 2 * BLOCK + 1) is None
    assert await entry.read(BLOCK, 2 * BLOCK) is None
    assert entry.lend_stored(2 * BLOCK, BLOCK) is None
    cache.release(entry)
    cache.close()


@pytest.mark.promise("withdrawn-is-gone")
async def test_what_is_withdrawn_is_sent_no_further(tmp_path: Path):
    data = ramp(MIB)
    wanted = record("a", data)
    await stored(tmp_path, wanted, data)
    cache = open_cache(tmp_path)
    entry = cache.entry(wanted)
    assert await entry.read(0, MIB) == data
    lent = entry.lend_stored(0, MIB)
    assert lent is not None
    assert 0 < len(taken(lent, 1 << 16)) < MIB
    cache.forget(wanted.region, wanted.id)
    assert len(lent) > 0
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert lent.send(theirs.fileno()) is None
    cache.release(entry)
    cache.close()


@LOST
async def test_what_replaces_lost_blocks_is_not_sent_before_its_check(tmp_path: Path):
    """A client takes its bytes slowly, and meanwhile others come instead of some of them."""
    data = ramp(MIB)
    wanted = record("a", data)
    await stored(tmp_path, wanted, data)
    cache = open_cache(tmp_path)
    entry = cache.entry(wanted)
    assert await entry.read(0, MIB) == data
    lent = entry.lend_stored(0, MIB)
    assert lent is not None
    assert 0 < len(taken(lent, 1 << 16)) < MIB
    entry._lose(7, 8)
    entry.write(7 * BLOCK, bytes(BLOCK))
    assert entry.complete
    assert not entry.verified
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        assert lent.send(theirs.fileno()) is None
    cache.release(entry)
    cache.close()


async def test_what_would_wait_or_is_encrypted_is_not_sent_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = ramp(MIB)
    wanted = record("a", data)
    encrypted = AesGcmCodec(bytes(32))
    for codec in (None, encrypted):
        folder = tmp_path / str(codec is None)
        cache = Cache.open(folder, size_bytes=PLENTY, min_free_bytes=0, codec=codec)
        entry = cache.entry(wanted)
        entry.write(0, data)
        assert await entry.check()
        lent = entry.lend_stored(0, MIB)
        assert (lent is None) == (codec is encrypted)
        if lent is not None:
            monkeypatch.setattr(blockfile, "is_resident", lambda *_: False)
            monkeypatch.setattr(entry.stored.open(), "_in_ram", False)
            assert entry.lend_stored(0, MIB) is None
            assert lent.send(0) is None
            monkeypatch.undo()
        cache.release(entry)
        cache.close()


async def test_what_is_read_stays_whatever_is_lent_meanwhile(tmp_path: Path):
    """A copy is the reader's own; what is lent holds until more is lent, by any entry."""
    data, other = ramp(MIB), ramp(MIB, seed=7)
    await stored(tmp_path, record("a", data), data)
    await stored(tmp_path, record("b", other), other)
    cache = open_cache(tmp_path)
    first, second = cache.entry(record("a", data)), cache.entry(record("b", other))
    mine = first.read_now(0, MIB)
    lent = first.lend_now(0, MIB)
    assert mine == data
    assert lent == data
    assert isinstance(lent, memoryview)
    assert second.read_now(0, MIB) == other
    assert second.lend_now(0, MIB) == other
    assert lent == other, "it is the one buffer"
    assert mine == data
    assert isinstance(first.lend_now(0, 4096), bytes), "little is copied"
    cache.release(first)
    cache.release(second)
    cache.close()
