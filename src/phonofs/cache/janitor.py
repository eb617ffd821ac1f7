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
from phonofs.cache.index import Index, checkpoint
from phonofs.cache.late import TOGETHER_S, Job, carry_out

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


async def run(cache: Cache) -> None:
    """Look after the cache until cancelled."""
    async with trio.open_nursery() as nursery:
        if cache.ground.disk is not None:
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
    lacking = cache.ground.room.lacking()
    if lacking and cache.set_aside is not None and cache.set_aside.bytes:
        freed = await cache.ground.in_thread(partial(cache.set_aside.evict, lacking))
        cache.ground.give(freed)
    cache.evict_aside(cache.ground.room.lacking())
    gone = disk.gone_bytes
    if not gone:
        return
    try:
        await cache.ground.in_thread(disk.shelf.empty_gone)
    except OSError as error:
        cache.ground.trouble(error)
        return
    disk.gone_bytes -= gone
    cache.ground.give(gone)


async def _try_again(cache: Cache) -> None:
    """Try a disk that was left alone for a while."""
    disk = cache.ground.disk
    if disk is None or not cache.ground.health.due(trio.current_time()):
        return
    try:
        await cache.ground.in_thread(disk.shelf.probe)
        if cache.ground.index_damaged:
            disk.index.abandon()
            disk.index = Index.renew(disk.claim.content_fd)
            cache.ground.index_damaged = False
            await sweep(cache, 0.0)
        disk.index.probe()
        cache.recount()
    except (OSError, sqlite3.Error) as error:
        cache.ground.health.still_bad(error, trio.current_time())
        return
    cache.ground.health.worked()
    log.warning("the disk cache is on again")


async def _checkpoints(cache: Cache) -> None:
    while cache.ground.disk is not None:
        await trio.sleep(CHECKPOINT_S)
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
        await cache.ground.in_thread(disk.shelf.empty_gone)
    except (OSError, sqlite3.Error) as error:
        cache.ground.trouble(error)


async def _sweep_drawer(cache: Cache, disk: Disk, number: int) -> None:
    """List first, then ask the index: a file's row is there before the file is."""
    drawer = f"{number:02x}"
    names = set(await cache.ground.in_thread(lambda: disk.shelf.names(drawer)))
    end = bytes([number + 1]) if number < 255 else b"\xff" * 17
    rows = dict(disk.index.keys_between(bytes([number]), end))
    for key in {key for key in rows if key.hex() not in names}:
        cache.drop_missing(key)
    for name in names - {key.hex() for key in rows}:
        if not cache.is_open(name):
            with contextlib.suppress(FileNotFoundError):  # it was evicted meanwhile
                disk.shelf.set_name_aside(drawer, name)
