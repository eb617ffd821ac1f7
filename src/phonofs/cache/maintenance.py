"""The background task of the cache: saves rows, evicts ahead, tidies up, retries a failed disk.

Slow work (removing files, syncing) runs in a thread; state changes only on the event loop, between
two awaits. Reads are correct without this task: then rows are saved at the end, and space is freed
when a write needs it.
"""

import contextlib
import logging
import sqlite3
from functools import partial

import trio

from phonofs.cache import index_file
from phonofs.cache.backend import Disk
from phonofs.cache.cache import Cache
from phonofs.errors import UsageError
from phonofs.sqlite_file import checkpoint

log = logging.getLogger(__name__)

TICK_S = 5.0
"""How often the task runs if nothing wakes it."""

SAVE_AFTER_S = 5.0
"""After a kill at most the bytes of this many seconds, and of one tick, are fetched again."""

CHECKPOINT_S = 30.0
"""How often the write-ahead log of the index is checkpointed, which syncs the disk."""

ORPHAN_DELAY_S = 30.0
ORPHAN_PAUSE_S = 0.1
"""The search for orphans begins this long after the start, and pauses after each 256th of the
cache."""

COMPARE_STEP = 64
"""Rows compared with their files between two turns of the event loop: 2 ms."""


async def run(cache: Cache) -> None:
    """Maintain the cache until cancelled."""
    async with trio.open_nursery() as nursery:
        if cache.backend.budget.cap:
            nursery.start_soon(cache.write_behind.run, cache.flush)
            nursery.start_soon(_remove_orphans_once, cache)
            nursery.start_soon(_checkpoints, cache)
        while True:
            await run_once(cache)
            await cache.backend.slept(TICK_S)


async def run_once(cache: Cache) -> None:
    """Do all work that is due now."""
    cache.put_away(trio.current_time() - SAVE_AFTER_S)
    await cache.eviction.evict_ahead()
    await _try_again(cache)
    await tidy(cache)
    cache.backend.attempt(lambda disk: disk.index.flush())
    await trio.lowlevel.checkpoint()


async def _try_again(cache: Cache) -> None:
    """Try the disk again if its pause has ended."""
    backend = cache.backend
    if not backend.breaker.due(trio.current_time()):
        return
    try:
        cache.open_disk()
        disk = backend.disk
        if disk is None:
            return
        await backend.in_thread(disk.files.probe)
        if backend.index_damaged:
            backend.start_empty()
        disk.index.probe()
    except (OSError, sqlite3.Error, UsageError) as error:
        backend.breaker.still_bad(error, trio.current_time())
        return
    backend.works_again()
    log.warning("the disk cache is on again")


async def tidy(cache: Cache) -> None:
    """Compare files and rows if they may differ, once the disk works."""
    backend = cache.backend
    wanted = backend.untidy or (backend.disk is not None and not backend.disk.settled)
    if wanted and backend.breaker.on:
        await remove_orphans(cache, 0.0)


async def _checkpoints(cache: Cache) -> None:
    while True:
        await trio.sleep(CHECKPOINT_S)
        if cache.backend.disk is None:
            continue
        work = partial(checkpoint, index_file.path(cache.backend.disk.content_fd))
        with contextlib.suppress(sqlite3.Error):  # it is tried again
            await cache.backend.in_thread(work)


async def _remove_orphans_once(cache: Cache) -> None:
    await trio.sleep(ORPHAN_DELAY_S)
    await remove_orphans(cache, ORPHAN_PAUSE_S)


async def remove_orphans(cache: Cache, pause_s: float) -> None:
    """Remove files without a row and rows without a file; correct the charges in the rows."""
    disk = cache.backend.disk
    if disk is None:
        return
    cache.backend.tidied()
    index = disk.index
    try:
        for number in range(256):
            await _remove_orphans_of(cache, disk, number)
            await trio.sleep(pause_s)
        if disk.index is index:  # else it was found damaged meanwhile
            disk.settle()
            cache.recount()
    except (OSError, sqlite3.Error) as error:
        cache.backend.failed(error)


async def _remove_orphans_of(cache: Cache, disk: Disk, number: int) -> None:
    """List the files first, then query the index, because a row is written before its file.

    An object that is opened while a thread removes its orphaned file is fetched again later.
    """
    shard = f"{number:02x}"
    names = await cache.backend.in_thread(partial(disk.files.names, shard))
    end = bytes([number + 1]) if number < 255 else b"\xff" * 17
    wrong = []
    for key, charge in disk.index.keys_between(bytes([number]), end):
        size = names.pop(key.hex(), 0)
        if not size or size > charge:
            wrong.append((key, charge))
    for at in range(0, len(wrong), COMPARE_STEP):
        cache.compare(wrong[at : at + COMPARE_STEP])
        await trio.lowlevel.checkpoint()
    orphans = names.keys() - cache.open_names
    await cache.backend.in_thread(partial(disk.files.remove_names, shard, orphans))
