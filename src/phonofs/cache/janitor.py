"""The background task of the cache: saves, evicts ahead of need, tidies up, tries again.

What is slow (hashing, removing large files, syncing) is done in a thread; what changes state is
done on the event loop between two awaits. Nothing here has to happen for what is served to be
right: without a janitor rows are saved at the end, and room is made when it is needed.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from phonofs.cache.checking import seal
from phonofs.cache.index import checkpoint
from phonofs.cache.late import TOGETHER_S, Job, carry_out
from phonofs.errors import UsageError

if TYPE_CHECKING:
    from phonofs.cache.blob import Blob
    from phonofs.cache.cache import Cache
    from phonofs.cache.ground import Disk, Ground

log = logging.getLogger(__name__)

TICK_S = 5.0
"""How often it looks around when nobody wakes it."""

SAVE_BYTES = 256 << 20
SAVE_AFTER_S = 10.0
"""What a kill costs at most: bytes, or seconds, that are fetched again."""

CHECKPOINT_S = 30.0
"""How often the index's log is brought into the index, which syncs the disk."""

SWEEP_DELAY_S = 30.0
SWEEP_PAUSE_S = 0.1
"""Orphans are looked for when the mount has settled, a 256th of the cache at a time."""

EVICT_STEP = 64
SWEEP_STEP = 64
"""Objects moved aside, and rows compared, between two looks at what else is to be done: 2 ms."""

REMOVE_STEP = 256
"""Files removed per visit to a thread."""

ASIDE_STEP = 16 << 20
"""Bytes of other accounts removed per visit: a mount that ends waits for one of them at most."""


async def run(cache: Cache) -> None:
    """Look after the cache until cancelled."""
    async with trio.open_nursery() as nursery:
        if cache.ground.room.cap:
            nursery.start_soon(_put_down_late, cache)
            nursery.start_soon(_sweep_once, cache)
            nursery.start_soon(_checkpoints, cache)
        while True:
            await round_of(cache)
            with trio.move_on_after(TICK_S):
                await cache.ground.wake.wait()
            cache.ground.wake = trio.Event()


async def round_of(cache: Cache) -> None:
    """Everything that is due now, once."""
    for blob in [blob for blob in cache.leaving.values() if not blob.stock.late]:
        await _let_go(cache, blob)
    for blob in cache.growing(trio.current_time() - SAVE_AFTER_S, SAVE_BYTES):
        await seal(blob.stock)
        cache.ground.save(blob.stock)
    await _evict_ahead(cache)
    await _try_again(cache)
    await _tidy(cache)
    cache.ground.asked(lambda index: index.flush())
    await trio.lowlevel.checkpoint()


async def _let_go(cache: Cache, blob: Blob) -> None:
    """Save and close a released blob, unless somebody took it again meanwhile."""
    await seal(blob.stock)
    if cache.leaving.get(blob.stock.identity.key) is blob and not blob.stock.busy:
        cache.ground.save(blob.stock)
        cache.settle(blob)


async def _put_down_late(cache: Cache) -> None:
    late = cache.ground.late
    late.open = True
    try:
        while True:
            await late.ready.wait()
            with trio.move_on_after(TOGETHER_S):
                await late.many.wait()
            await put_down(cache)
    finally:
        late.open = False


async def put_down(cache: Cache) -> None:
    """Put on disk what waits for it and can be put there."""
    ground = cache.ground
    stocks = ground.late.take_ready()
    try:
        for stock in stocks:
            if stock.unsealed():
                await seal(stock)
        await _make_files(ground, ground.late.begin(ground, stocks))
    finally:
        for stock in stocks:
            ground.late.can_go(stock)  # where it still waits
    for stock in stocks:
        cache.let_go(stock)


async def _make_files(ground: Ground, jobs: Sequence[Job]) -> None:
    try:
        if jobs and ground.disk is not None:
            await ground.in_thread(partial(carry_out, ground.disk.shelf, jobs))
    finally:
        ground.late.finish(ground, jobs)


async def _evict_ahead(cache: Cache) -> None:
    """Have headroom, so that a write need not wait for a large file to be removed."""
    disk = cache.ground.disk
    if disk is None or not cache.ground.health.on:
        return
    lacking = cache.ground.room.lacking() - disk.gone_bytes
    aside, freed = cache.set_aside, lacking
    while aside is not None and aside.bytes and lacking > 0 and freed:
        freed = await cache.ground.in_thread(partial(aside.evict, min(lacking, ASIDE_STEP)))
        cache.ground.give(freed)
        lacking -= freed
    while cache.evict_aside(cache.ground.room.lacking() - disk.gone_bytes, EVICT_STEP):
        await trio.lowlevel.checkpoint()
    if disk.gone_bytes:
        await _empty_gone(cache.ground, disk)


async def _empty_gone(ground: Ground, disk: Disk) -> None:
    """Remove what was set aside, in steps: a mount that ends waits for one of them at most."""
    if ground.emptying:
        return
    ground.emptying, gone = True, disk.gone_bytes
    try:
        while not await ground.in_thread(partial(disk.shelf.empty_gone, REMOVE_STEP)):
            pass
    except OSError as error:
        ground.trouble(error)
        return
    finally:
        ground.emptying = False
    gone = min(gone, disk.gone_bytes)
    disk.gone_bytes -= gone
    ground.give(gone)


async def _try_again(cache: Cache) -> None:
    """Try a disk that was left alone for a while."""
    if not cache.ground.health.due(trio.current_time()):
        return
    try:
        cache.open_again()
        disk = cache.ground.disk
        if disk is None:
            return
        await cache.ground.in_thread(disk.shelf.probe)
        if cache.ground.index_damaged:
            cache.ground.start_empty()
            await _empty_gone(cache.ground, disk)
        disk.index.probe()
        cache.recount()
    except (OSError, sqlite3.Error, UsageError) as error:
        cache.ground.health.still_bad(error, trio.current_time())
        return
    cache.ground.health.worked()
    log.warning("the disk cache is on again")


async def _tidy(cache: Cache) -> None:
    """Compare files and rows where one of them could not be removed, once the disk works."""
    ground = cache.ground
    if ground.disk is None or not ground.untidy or not ground.health.on:
        return
    ground.untidy = False
    try:
        await sweep(cache, 0.0)
        cache.recount()
    except sqlite3.Error as error:
        ground.trouble(error)


async def _checkpoints(cache: Cache) -> None:
    while True:
        await trio.sleep(CHECKPOINT_S)
        if cache.ground.disk is None:
            continue
        work = partial(checkpoint, cache.ground.disk.claim.content_fd)
        try:
            await cache.ground.in_thread(work)
        except sqlite3.Error as error:
            log.info("the index's log could not be brought in: %s", error)


async def _sweep_once(cache: Cache) -> None:
    await trio.sleep(SWEEP_DELAY_S)
    await sweep(cache, SWEEP_PAUSE_S)


async def sweep(cache: Cache, pause_s: float) -> None:
    """Remove files that no row stands for, and rows whose file is not there."""
    disk = cache.ground.disk
    if disk is None:
        return
    try:
        for number in range(256):
            await _sweep_drawer(cache, disk, number)
            await trio.sleep(pause_s)
        await _empty_gone(cache.ground, disk)
    except (OSError, sqlite3.Error) as error:
        cache.ground.trouble(error)


async def _sweep_drawer(cache: Cache, disk: Disk, number: int) -> None:
    """List first, then ask the index: a file's row is there before the file is."""
    drawer = f"{number:02x}"
    names = await cache.ground.in_thread(lambda: disk.shelf.names(drawer))
    end = bytes([number + 1]) if number < 255 else b"\xff" * 17
    rows = dict(disk.index.keys_between(bytes([number]), end))
    found = {key: names.pop(key.hex(), 0) for key in rows}
    wrong = [key for key, size in found.items() if not size or size > rows[key]]
    for at in range(0, len(wrong), SWEEP_STEP):
        cache.compare(wrong[at : at + SWEEP_STEP])
        await trio.lowlevel.checkpoint()
    for done, name in enumerate(names):
        if done % SWEEP_STEP == SWEEP_STEP - 1:
            await trio.lowlevel.checkpoint()
        if not cache.is_open(name):
            with contextlib.suppress(FileNotFoundError):  # it was evicted meanwhile
                cache.ground.charge_gone(disk.shelf.set_name_aside(drawer, name))
