"""The maintenance task: what it saves, evicts ahead and tidies; and what a kill leaves."""

import errno
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
import trio.testing

from phonofs.cache import maintenance
from phonofs.cache.backend import Backend
from phonofs.cache.blocks import BLOCK
from phonofs.cache.cache import Cache
from phonofs.cache.filestore import FileStore
from phonofs.cache.maintenance import remove_orphans, run_once
from tests.support.caching import (
    MIB,
    PLENTY,
    file_of,
    fill,
    on_disk,
    open_cache,
    ramp,
    record,
    stored,
)
from tests.support.descriptors import descriptors, settled_descriptors

DATA = ramp(3 * BLOCK)
RECORD = record("a", DATA)


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed to a thread is done at once: the fake clock does not wait for threads."""

    async def in_thread(self, work):
        await trio.lowlevel.checkpoint()
        done = work()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return done

    monkeypatch.setattr(Backend, "in_thread", in_thread)


async def test_it_lets_go_of_what_nobody_uses(tmp_path: Path):
    """Released, saved, closed; without being told to hurry."""
    cache = open_cache(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(maintenance.run, cache)
        fill(cache, RECORD, DATA)
        await trio.sleep(1)
        assert cache.statistics()["open"] == 0
        assert [row.bytes for row in cache.entries()] == [len(DATA)]
        nursery.cancel_scope.cancel()
    cache.close()


async def test_it_saves_what_grows(tmp_path: Path):
    """So that a kill in the middle of a long object does not cost all of it."""
    cache = open_cache(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(maintenance.run, cache)
        entry = cache.entry(RECORD)
        entry.write(0, DATA[: 2 * BLOCK + 1])
        await trio.sleep(maintenance.SAVE_AFTER_S + 2 * maintenance.TICK_S)
        assert [row.bytes for row in cache.entries()] == [2 * BLOCK]
        nursery.cancel_scope.cancel()
    cache.close()


async def test_somebody_who_takes_it_again_meanwhile_keeps_it(tmp_path: Path):
    """The entry is not closed under them."""
    cache = open_cache(tmp_path)
    fill(cache, RECORD, DATA)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_once, cache)
        await trio.lowlevel.checkpoint()
        entry = cache.entry(RECORD)
    assert entry.read_now(0, len(DATA)) == DATA
    assert cache.statistics()["pinned"] == 1
    cache.close()


async def test_a_file_in_use_by_a_thread_is_not_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is closed in a later round."""
    goes_on = trio.Event()

    async def slow_thread(self, work):
        await goes_on.wait()
        return work()

    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, DATA)
    monkeypatch.setattr(Backend, "in_thread", slow_thread)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(entry.check)
        await trio.testing.wait_all_tasks_blocked()
        cache.release(entry)
        await run_once(cache)
        assert cache.statistics()["open"] == 1
        goes_on.set()
    await run_once(cache)
    assert cache.statistics()["open"] == 0
    cache.close()


async def test_it_evicts_ahead_of_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A write then finds space at once, and no large file has to be removed for it."""
    cache = open_cache(tmp_path, 8 * MIB)
    for n in range(8):
        fill(cache, record(str(n), ramp(MIB, n)), ramp(MIB, n))
        await run_once(cache)
    assert cache.backend.budget.left >= cache.backend.budget.headroom
    assert on_disk(tmp_path) == cache.statistics()["disk_bytes"]
    monkeypatch.setattr(FileStore, "detach", None)
    entry = cache.entry(record("new", ramp(500_000)))
    entry.write(0, ramp(500_000))
    assert not entry.in_memory
    cache.close()


async def test_bytes_being_removed_are_charged_until_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The cap counts them until the thread that gives the space back is done."""
    charged: list[object] = []

    async def in_thread(self, work):
        charged.append((cache.statistics()["disk_bytes"], on_disk(tmp_path)))
        return work()

    await stored(tmp_path, RECORD, DATA)
    cache = open_cache(tmp_path, len(DATA))
    monkeypatch.setattr(Backend, "in_thread", in_thread)
    await cache.eviction.evict_ahead()
    assert charged == [(len(DATA), 0)]
    assert cache.statistics()["disk_bytes"] == on_disk(tmp_path) == 0
    assert cache.cached_bytes(RECORD) == 0
    cache.close()


async def test_orphans_are_removed_and_lost_files_forgotten(tmp_path: Path):
    """What is open, and what a row stands for, stays."""
    for n in range(3):
        await stored(tmp_path, record(str(n), DATA), DATA)
    file_of(tmp_path, record("1", DATA)).unlink()
    orphan = tmp_path / "content" / "ab" / ("0" * 30)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"x" * 9000)
    odd = tmp_path / "content" / "ab" / "odd name"
    odd.write_bytes(b"x")
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, DATA)
    await remove_orphans(cache, 0.0)
    assert not orphan.exists()
    assert not odd.exists()
    assert {row.id for row in cache.entries()} == {"0", "2", "a"}
    assert entry.read_now(0, 5) == DATA[:5]
    assert cache.statistics()["disk_bytes"] == on_disk(tmp_path) == 3 * len(DATA)
    cache.close()


@pytest.mark.promise("cap-is-hard")
async def test_what_a_file_costs_is_what_the_disk_says(tmp_path: Path):
    """A row that says less, after a power cut or damage, is put right; so is what is used."""
    for n in range(3):
        await stored(tmp_path, record(str(n), DATA), DATA)
    index = sqlite3.connect(tmp_path / "content" / "index.sqlite")
    with index:
        index.execute("UPDATE object SET charge = 1 WHERE id = '1'")
        index.execute("DELETE FROM object WHERE id = '2'")
    index.close()
    cache = open_cache(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(maintenance.run, cache)
        await trio.sleep(120)
        nursery.cancel_scope.cancel()
    assert cache.statistics()["disk_bytes"] == on_disk(tmp_path) == 2 * len(DATA)
    cache.close()
    cache = open_cache(tmp_path)
    assert cache.statistics()["disk_bytes"] == on_disk(tmp_path) == 2 * len(DATA)
    cache.close()


async def test_unknown_files_that_cannot_be_removed_at_first_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Until they are gone the whole cap is charged, and nothing is written."""
    for n in range(4):
        await stored(tmp_path, record(str(n), DATA), DATA)
    (tmp_path / "content" / "index.sqlite").unlink()
    monkeypatch.setattr("phonofs.cache.backend.EMPTY_AT_ONCE", 1)
    cache = open_cache(tmp_path)

    def fail(*args: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "remove_names", fail)
        await run_once(cache)
    fill(cache, RECORD, DATA)
    assert cache.statistics()["disk_bytes"] == PLENTY
    assert on_disk(tmp_path) == 3 * len(DATA)
    await run_once(cache)
    fill(cache, RECORD, DATA)
    assert cache.statistics()["disk_bytes"] == on_disk(tmp_path) == len(DATA)
    cache.close()


async def test_looking_for_orphans_does_not_hold_the_mount_up(tmp_path: Path):
    """It begins late, and takes its time."""
    cache = open_cache(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(maintenance.run, cache)
        await trio.sleep(60)
        fill(cache, RECORD, DATA)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert cache.cached_bytes(RECORD) == len(DATA)
    cache.close()


async def test_the_log_of_the_index_is_brought_in(tmp_path: Path):
    """Off the event loop; the index stays readable meanwhile."""
    cache = open_cache(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(maintenance.run, cache)
        for n in range(30):
            fill(cache, record(str(n), DATA), DATA)
            await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert len(list(cache.entries())) == 30
    cache.close()


@pytest.mark.expected_log("the disk cache is", "the index of the cache is damaged")
async def test_an_index_that_breaks_while_mounted_is_made_anew(tmp_path: Path):
    """At once, and after the pause if it breaks again; what is open is noted in it, the rest is
    removed.
    """
    cache = open_cache(tmp_path)
    entry = cache.entry(RECORD)
    entry.write(0, DATA)
    fill(cache, record("b", DATA), DATA)
    await run_once(cache)
    cache.backend.failed(sqlite3.DatabaseError("database disk image is malformed"))
    assert cache.statistics()["state"] == "on"
    assert cache.cached_bytes(record("b", DATA)) == 0
    fill(cache, record("c", DATA), DATA)
    await run_once(cache)
    for _ in range(2):
        cache.backend.failed(sqlite3.DatabaseError("database disk image is malformed"))
    assert cache.statistics()["state"] == "off"
    await trio.sleep(61)
    await run_once(cache)
    assert cache.statistics()["state"] == "on"
    assert cache.cached_bytes(record("c", DATA)) == 0
    assert cache.statistics()["disk_bytes"] == on_disk(tmp_path) == len(DATA)
    assert await entry.check()
    cache.close()
    cache = open_cache(tmp_path)
    assert cache.entry(RECORD).verified
    cache.close()


@pytest.mark.promise("disk-trouble-is-not-the-readers")
@pytest.mark.expected_log("the disk cache is")
async def test_a_disk_that_failed_at_the_start_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is read meanwhile is read through memory; afterwards the cap counts what is there."""
    for n in range(2):
        await stored(tmp_path, record(str(n), DATA), DATA)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    before = settled_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fchmod", fail)
        cache = open_cache(tmp_path)
    assert cache.statistics()["state"] == "off"
    entry = cache.entry(record("0", DATA))
    entry.write(0, DATA)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(maintenance.run, cache)
        await trio.sleep(70)
        assert cache.statistics()["state"] == "on"
        assert cache.statistics()["disk_bytes"] == on_disk(tmp_path) == len(DATA)
        assert entry.read_now(0, len(DATA)) == DATA
        cache.release(entry)
        for n in range(3):
            again = cache.entry(record(str(n), DATA))
            again.write(0, DATA)
            assert await again.check()
            cache.release(again)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert cache.statistics()["disk_bytes"] == on_disk(tmp_path) == 3 * len(DATA)
    cache.close()
    assert descriptors() == before
    cache = open_cache(tmp_path)
    assert [cache.entry(record(str(n), DATA)).verified for n in range(3)] == [True] * 3
    cache.close()


@pytest.mark.parametrize("at", range(0, 40, 3))
async def test_cancelled_anywhere_nothing_stays_held(tmp_path: Path, at: int):
    """No thread, no file, no charge; the next round does what is left."""
    cache = open_cache(tmp_path, 8 * MIB)
    for n in range(8):
        fill(cache, record(str(n), ramp(MIB, n)), ramp(MIB, n))
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(maintenance.run, cache)
            for _ in range(at):
                await trio.lowlevel.checkpoint()
            scope.cancel()
    await run_once(cache)
    await run_once(cache)
    assert cache.statistics()["open"] == 0
    assert cache.statistics()["disk_bytes"] == on_disk(tmp_path) > 0
    for n in range(8):
        wanted = record(str(n), ramp(MIB, n))
        entry = cache.entry(wanted)
        assert not entry.present or await entry.read(0, MIB) == ramp(MIB, n)
        cache.release(entry)
    cache.close()


# Killed

CAP = 4 * MIB
FILLER = """
import pathlib, random, sys, trio
from tests.support.caching import *
from phonofs.cache.backend import Backend
from phonofs.cache.maintenance import run_once

async def main(folder, seed):
    cache = open_cache(pathlib.Path(folder), {cap})
    chance = random.Random(seed)
    said = False
    entries = {{}}
    while True:
        n = chance.randrange(12)
        size = 1000 + n * 100_000
        data = ramp(size, n)
        wanted = record(str(n), data)
        entry = entries.get(n)
        if entry is None:
            entry = entries[n] = cache.entry(wanted)
        start = chance.randrange(size)
        stop = min(size, start + chance.randrange(400_000))
        entry.write(start, data[start:stop])
        if entry.complete:
            assert await entry.check()
        if len(entries) > 4:
            cache.release(entries.pop(chance.choice(list(entries))))
        if chance.random() < 0.3:
            await run_once(cache)
            if not said and any(row.bytes for row in cache.entries()):
                said = True
                print("stored", flush=True)

trio.run(main, sys.argv[1], int(sys.argv[2]))
"""


@pytest.mark.promise("nothing-unchecked-from-disk")
@pytest.mark.expected_log("")
@pytest.mark.parametrize("seed", range(4))
async def test_a_kill_costs_a_fetch_and_never_a_wrong_byte(tmp_path: Path, seed: int):
    """At any moment of filling and evicting; the cap holds for what it leaves, too."""
    served = kill_while_filling(tmp_path, seed)
    cache = open_cache(tmp_path, CAP)
    assert on_disk(tmp_path) <= cache.statistics()["disk_bytes"] <= CAP
    for n in range(12):
        served += await count_right(cache, n)
    assert served > 0, "nothing was at stake"
    await remove_orphans(cache, 0.0)
    await run_once(cache)
    assert on_disk(tmp_path) <= cache.statistics()["disk_bytes"]
    cache.close()


def kill_while_filling(folder: Path, seed: int) -> int:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    script = FILLER.format(cap=CAP)
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), str(seed)], env=env, stdout=subprocess.PIPE
    )
    assert child.stdout
    assert child.stdout.readline() == b"stored\n"
    time.sleep(random.Random(seed).uniform(0.05, 0.4))
    child.send_signal(signal.SIGKILL)
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    return 0


async def count_right(cache: Cache, n: int) -> int:
    data = ramp(1000 + n * 100_000, n)
    entry = cache.entry(record(str(n), data))
    served = 0
    for start in range(0, len(data), 50_000):
        length = min(50_000, len(data) - start)
        got = await entry.read(start, length)
        assert got is None or got == data[start : start + length]
        served += got is not None
    cache.release(entry)
    return served
