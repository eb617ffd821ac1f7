"""The background task of the cache: saves, evicts ahead of need, tidies up, tries again.

What is slow (hashing, removing large files, syncing) is done in a thread; what changes state is
done on the event loop between two awaits. What is served is right without any of it: then rows are
saved at the end, and space is freed when it is needed.
"""

import contextlib
import logging
import sqlite3
from functools import partial

import trio

from phonofs.cache.backend import Disk
from phonofs.cache.cache import Cache
from phonofs.cache.index import checkpoint
from phonofs.errors import UsageError

log = logging.getLogger(__name__)

TICK_S = 5.0
"""How often it looks around when nobody wakes it."""

SAVE_BYTES = 256 << 20
SAVE_AFTER_S = 10.0
"""What a kill costs at most: bytes, or seconds, that are fetched again."""

CHECKPOINT_S = 30.0
"""How often the index's log is brought into the index, which syncs the disk."""

ORPHAN_DELAY_S = 30.0
ORPHAN_PAUSE_S = 0.1
"""Orphans are looked for when the mount has settled, a 256th of the cache at a time."""


COMPARE_STEP = 64
"""Rows compared with their files between two turns of the event loop: 2 ms."""


async def run(cache: Cache) -> None:
    """Look after the cache until cancelled."""
    async with trio.open_nursery() as nursery:
        if cache.backend.budget.cap:
            nursery.start_soon(_flushes, cache)
            nursery.start_soon(_remove_orphans_once, cache)
            nursery.start_soon(_checkpoints, cache)
        while True:
            await run_once(cache)
            await cache.backend.slept(TICK_S)


async def run_once(cache: Cache) -> None:
    """Do everything that is due now."""
    cache.close_released()
    cache.save(cache.due(trio.current_time() - SAVE_AFTER_S, SAVE_BYTES))
    await cache.evict_ahead()
    await _try_again(cache)
    await _tidy(cache)
    cache.backend.tell(lambda index: index.flush())
    await trio.lowlevel.checkpoint()


async def _flushes(cache: Cache) -> None:
    with cache.write_behind.open():
        while True:
            await cache.write_behind.wait()
            await cache.flush()


async def _try_again(cache: Cache) -> None:
    """Try a disk that was left alone for a while."""
    backend = cache.backend
    if not backend.breaker.due(trio.current_time()):
        return
    try:
        cache.open_again()
        disk = backend.disk
        if disk is None:
            return
        await backend.in_thread(disk.files.probe)
        if backend.index_damaged:
            backend.start_empty()
            await cache.empty_trash()
        disk.index.probe()
        cache.recount()
    except (OSError, sqlite3.Error, UsageError) as error:
        backend.breaker.still_bad(error, trio.current_time())
        return
    backend.breaker.worked()
    log.warning("the disk cache is on again")


async def _tidy(cache: Cache) -> None:
    """Compare files and rows if one of them could not be removed, once the disk works."""
    backend = cache.backend
    if backend.disk is None or not backend.untidy or not backend.breaker.on:
        return
    backend.tidied()
    try:
        await remove_orphans(cache, 0.0)
        cache.recount()
    except sqlite3.Error as error:
        backend.failed(error)


async def _checkpoints(cache: Cache) -> None:
    while True:
        await trio.sleep(CHECKPOINT_S)
        if cache.backend.disk is None:
            continue
        work = partial(checkpoint, cache.backend.disk.claim.content_fd)
        try:
            await cache.backend.in_thread(work)
        except sqlite3.Error as error:
            log.info("the index's log could not be brought in: %s", error)


async def _remove_orphans_once(cache: Cache) -> None:
    await trio.sleep(ORPHAN_DELAY_S)
    await remove_orphans(cache, ORPHAN_PAUSE_S)


async def remove_orphans(cache: Cache, pause_s: float) -> None:
    """Remove files without a row, and rows without a file; rows say what their files take."""
    disk = cache.backend.disk
    if disk is None:
        return
    try:
        for number in range(256):
            await _remove_orphans_of(cache, disk, number)
            await trio.sleep(pause_s)
        await cache.empty_trash()
    except (OSError, sqlite3.Error) as error:
        cache.backend.failed(error)


async def _remove_orphans_of(cache: Cache, disk: Disk, number: int) -> None:
    """List first, then ask the index: a file's row is there before the file is."""
    shard = f"{number:02x}"
    names = await cache.backend.in_thread(lambda: disk.files.names(shard))
    end = bytes([number + 1]) if number < 255 else b"\xff" * 17
    rows = dict(disk.index.keys_between(bytes([number]), end))
    found = {key: names.pop(key.hex(), 0) for key in rows}
    wrong = [key for key, size in found.items() if not size or size > rows[key]]
    for at in range(0, len(wrong), COMPARE_STEP):
        cache.compare(wrong[at : at + COMPARE_STEP])
        await trio.lowlevel.checkpoint()
    for done, name in enumerate(names):
        if done % COMPARE_STEP == COMPARE_STEP - 1:
            await trio.lowlevel.checkpoint()
        if not cache.is_open(name):
            with contextlib.suppress(FileNotFoundError):  # it was evicted meanwhile
                cache.backend.charge_trash(disk.files.move_name_to_trash(shard, name))
