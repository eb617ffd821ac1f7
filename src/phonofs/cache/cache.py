"""The cache: opens, pins, evicts and forgets the content of objects, under a hard cap.

Who uses it: the reader, for bytes; the vfs, for how much of a file is here; the commands. All
methods run on the event loop; ``run`` is the janitor.

The order of eviction is kept in the index and not in Python objects, because it has to outlive
the mount and an index of a million objects must not be loaded; what cachetools bounds here are
the released blobs, whose blocks need not be checked a second time in the same run.
"""

import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio
from cachetools import LRUCache

from phonofs.cache import folder as folders
from phonofs.cache import janitor
from phonofs.cache.blob import Blob, Counters
from phonofs.cache.blocks import bytes_of
from phonofs.cache.folder import Claim
from phonofs.cache.health import Health, describe
from phonofs.cache.holding import Holding
from phonofs.cache.index import Identity, Index, Row
from phonofs.cache.room import Room
from phonofs.cache.shelf import Content, Memory, Shelf
from phonofs.model import Record
from phonofs.ranges import Ranges

log = logging.getLogger(__name__)

RESTING = 256
"""Released blobs that are remembered, a kilobyte each, so that nothing is checked twice."""

THREADS = 8
"""Threads that may wait for the cache's disk at once; more would only queue at the device."""

T = TypeVar("T")


def key_of(region: str, id: str, fingerprint: str) -> bytes:
    """The name of a content in the cache: nothing of the service makes a path."""
    text = "\0".join((region, id, fingerprint)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


@dataclass(slots=True)
class Disk:
    """What there is when content goes to disk at all.

    claim, shelf, index   the folder, its files, its index
    gone_bytes            bytes in ``gone/`` that are charged for until they are removed
    """

    claim: Claim
    shelf: Shelf
    index: Index
    gone_bytes: int = 0


class Cache:
    """All content that is here. Made by :meth:`open`.

    Owner of the open blobs (pinned while ``refs`` > 0 and until their row is saved), of the
    room and of the disk's health. Invariants: an object has at most one blob; only an object
    without a blob in ``_open`` is evicted; every file on disk has a row, which is there first.
    """

    def __init__(self, disk: Disk | None, *, size_bytes: int, min_free_bytes: int) -> None:
        self.counters = Counters()
        self.health = Health()
        self.disk = disk
        self.room = Room(
            size_bytes,
            min_free_bytes,
            used=_used(disk) if disk else 0,
            free_bytes=disk.shelf.free_bytes if disk else lambda: 0,
            evict=self.evict,
        )
        self.wake = trio.Event()
        self.leaving: dict[bytes, Blob] = {}
        self.index_damaged = False
        self._open: dict[bytes, Blob] = {}
        self._resting: LRUCache[bytes, Blob] = LRUCache(RESTING)
        self._memory = Memory()
        self._memory_bytes = 0
        self._evictions = 0
        self._nursery: trio.Nursery | None = None
        self._threads = trio.CapacityLimiter(THREADS)

    @classmethod
    def open(cls, folder: Path, *, size_bytes: int, min_free_bytes: int) -> "Cache":
        """Open the cache in ``folder``, which is made where it lacks.

        UsageError where it must not be used. With ``size_bytes`` 0 nothing is kept on disk, and
        what an earlier run left there is removed. Where the disk itself is in trouble, all goes
        to memory, and the log says so.
        """
        if not size_bytes and not folders.holds_cache(folder):
            return cls(None, size_bytes=0, min_free_bytes=min_free_bytes)
        try:
            disk = _open_disk(folder)
        except (OSError, sqlite3.Error) as error:
            log.warning("the disk cache is off: %s", describe(error))
            cache = cls(None, size_bytes=size_bytes, min_free_bytes=min_free_bytes)
            cache.health.failed(error, 0.0)
            cache.health.reason = describe(error)
            return cache
        cache = cls(disk, size_bytes=size_bytes, min_free_bytes=min_free_bytes)
        if not size_bytes:
            cache.clear()
            cache.close()
            cache.disk = None
        return cache

    # Blobs

    def blob(self, record: Record) -> Blob:
        """The content of an object, pinned until :meth:`release`."""
        key = key_of(record.region, record.id, record.fingerprint)
        identity = Identity(key, record.region, record.id, record.checksum)
        return self._pin(identity, record.size)

    def release(self, blob: Blob) -> None:
        """It is not used any more by one of those who asked for it."""
        blob.refs -= 1
        if blob.refs > 0:
            return
        if not blob.unsaved and not blob.busy:
            self.settle(blob)
        else:
            self.leaving[blob.identity.key] = blob
            self.wake.set()

    def cached_bytes(self, record: Record) -> int:
        """How many bytes of an object are here."""
        key = key_of(record.region, record.id, record.fingerprint)
        blob = self._open.get(key) or self._resting.get(key)
        if blob is not None:
            return blob.present.total()
        row = self._asked(lambda index: index.row(key))
        return row.bytes if row else 0

    def _pin(self, identity: Identity, size: int) -> Blob:
        key = identity.key
        blob = self._open.get(key)
        if blob is None:
            blob = self._resting.pop(key, None) or self._load(identity, size)
            self._open[key] = blob
        self.leaving.pop(key, None)
        if not blob.refs:
            blob.in_memory = not self._to_disk(blob.size)
        blob.refs += 1
        return blob

    def _load(self, identity: Identity, size: int) -> Blob:
        found = self._asked(lambda index: index.load(identity.key))
        if found is None:
            return Blob(self, identity, size, in_memory=not self._to_disk(size))
        row, seals = found
        held = Ranges(bytes_of(first, last, row.size) for first, last in seals.known)
        return Blob(
            self,
            identity,
            row.size if held else size,
            in_memory=not self._to_disk(row.size),
            disk=Holding(None, held, row.charge),
            seals=seals,
            verified=row.verified,
        )

    def _to_disk(self, size: int) -> bool:
        """Whether an object goes to disk: one that can never be there whole does not."""
        return self.disk is not None and self.health.on and size <= self.room.cap

    def settle(self, blob: Blob) -> None:
        """Close a blob that nobody uses; what of it is on disk stays."""
        key = blob.identity.key
        self._open.pop(key, None)
        self.leaving.pop(key, None)
        blob.close()
        if blob.forgotten or blob.disk is None:
            return
        if self.disk:
            self.disk.index.touch(key)
        if not blob.in_memory:
            self._resting[key] = blob

    # What a blob needs (its Host)

    def open_file(self, blob: Blob, *, create: bool) -> Content | None:
        """The blob's file, or None where the disk is in trouble or the file is not there."""
        if self.disk is None:
            return None
        key = blob.identity.key
        try:
            return self.disk.shelf.create(key) if create else self.disk.shelf.open(key)
        except FileNotFoundError as error:
            if create:
                self.trouble(error)
            return None
        except OSError as error:
            self.trouble(error)
            return None

    def open_memory(self) -> Content | None:
        """A place in memory, or None where there is none."""
        try:
            return self._memory.open()
        except OSError as error:
            log.error("no place in memory for content: %s", error.strerror)
            return None

    def declare(self, blob: Blob) -> bool:
        """Note that bytes of the blob are going to be on disk; False where that failed."""
        if not self._to_disk(blob.size):
            return False

        def write(index: Index) -> bool:
            index.declare(blob.identity, blob.size)
            return True

        return bool(self._asked(write))

    def take(self, n: int) -> bool:
        """Charge bytes that are about to be written; False where there is no room."""
        taken = self.room.take(n)
        if self.room.left < self.room.headroom // 2:
            self.wake.set()
        return taken

    def give(self, n: int) -> None:
        """Bytes charged for are no longer on disk."""
        self.room.give(n)

    def take_memory(self, n: int) -> None:
        """Count bytes in memory (negative: no longer)."""
        self._memory_bytes += n

    def trouble(self, error: Exception) -> None:
        """The disk failed: after a few times nothing new goes there for a while."""
        self.room.withdraw()
        if isinstance(error, sqlite3.DatabaseError) and type(error) is sqlite3.DatabaseError:
            self.index_damaged = True
        if self.health.failed(error, self.now()):
            log.warning("the disk cache is off: %s", self.health.reason)

    def save(self, blob: Blob) -> None:
        """Write the blob's row; its bytes are on disk already."""
        if blob.forgotten or self.disk is None:
            return
        row, blocks = blob.row()
        final = row.bytes == row.size or not blob.refs

        def write(index: Index) -> None:
            index.save(row, blob.seals, blocks, final=final)
            blob.saved(final=final)

        self._asked(write)

    def now(self) -> float:
        """Seconds, monotonic; the commands that look at a cache do so without a loop."""
        return trio.current_time() if trio.lowlevel.in_trio_run() else time.monotonic()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do what waits for the disk; cancelled only before it begins or after it ends."""
        return await trio.to_thread.run_sync(work, limiter=self._threads)

    def start_soon(self, work: Callable[[], object], /) -> bool:
        """Start an async function in the janitor's nursery; False where it does not run."""
        if self._nursery is None:
            return False
        self._nursery.start_soon(work)  # type: ignore[arg-type]
        return True

    def _asked(self, question: Callable[[Index], T]) -> T | None:
        """Ask the index; None where it does not answer, which counts as trouble."""
        if self.disk is None:
            return None
        try:
            return question(self.disk.index)
        except (sqlite3.Error, ValueError) as error:
            self.trouble(error)
            return None

    # Eviction and forgetting

    def evict(self, n: int) -> int:
        """Remove unused objects of at least ``n`` bytes, the least recently used first."""
        return self._evict(n, self._remove)

    def evict_aside(self, n: int) -> int:
        """The same, but only moved aside: quick; ``gone/`` is emptied in a thread later."""
        return self._evict(n, self._set_aside)

    def _evict(self, n: int, remove: Callable[[Disk, bytes, int], bool]) -> int:
        disk = self.disk
        if disk is None or n <= 0:
            return 0
        freed, gone = 0, []
        try:
            for key, charge in disk.index.oldest():
                if key not in self._open and remove(disk, key, charge):
                    freed += charge
                    gone.append(key)
                if freed >= n:
                    break
            disk.index.delete(gone)
        except sqlite3.Error as error:
            self.trouble(error)
        self._evictions += len(gone)
        return freed

    def _remove(self, disk: Disk, key: bytes, charge: int) -> bool:
        try:
            disk.shelf.remove(key)
        except OSError as error:
            self.trouble(error)
            return False
        self._resting.pop(key, None)
        self.room.give(charge)
        return True

    def _set_aside(self, disk: Disk, key: bytes, charge: int) -> bool:
        try:
            disk.shelf.set_aside(key)
        except OSError as error:
            self.trouble(error)
            return False
        self._resting.pop(key, None)
        disk.gone_bytes += charge
        return True

    def forget(self, region: str, id: str) -> None:
        """The object is withdrawn: every content of it goes, also one that is being read."""
        for blob in [b for b in self._open.values() if b.identity[1:3] == (region, id)]:
            self._forget_open(blob)
        disk = self.disk
        if disk is not None:
            keys = self._asked(lambda index: index.keys_of(region, id)) or []
            gone = [key for key, charge in keys if self._remove(disk, key, charge)]
            self._asked(lambda index: index.delete(gone))

    def _forget_open(self, blob: Blob) -> None:
        key = blob.identity.key
        del self._open[key]
        self.leaving.pop(key, None)
        charge = blob.disk.charge if blob.disk else 0
        blob.forget()
        if self.disk is not None and blob.disk is not None:
            self._remove(self.disk, key, charge)
            self._asked(lambda index: index.delete([key]))

    def clear(self) -> tuple[int, int]:
        """Remove all content, also what is being read (it is fetched again); objects, bytes."""
        objects, before = 0, self.room.used
        for blob in list(self._open.values()):
            blob.reset()
        disk = self.disk
        if disk is not None:
            objects = self._evictions
            self.evict(max(before, 1))
            while self.evict(1):
                pass
            objects = self._evictions - objects
        return objects, before - self.room.used

    # For the janitor

    async def run(self) -> None:
        """The janitor: saves, evicts ahead of need, tidies up, tries a failed disk again."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await janitor.run(self)
            finally:
                self._nursery = None

    def growing(self, since: float, n: int) -> list[Blob]:
        """The pinned blobs with more than ``n`` unsaved bytes, or with older than ``since``."""
        return [
            blob
            for blob in self._open.values()
            if blob.unsaved_since is not None
            and (blob.unsaved_since <= since or blob.unsaved_bytes >= n)
        ]

    def flush(self) -> None:
        """Write the order of use down."""
        self._asked(lambda index: index.flush())

    def is_open(self, name: str) -> bool:
        """Whether the file of that hex name is an open blob's."""
        return any(key.hex() == name for key in self._open)

    def drop_missing(self, key: bytes) -> None:
        """Forget the row of a file that is not there, if that is still so."""
        disk = self.disk
        if disk is None or key in self._open or disk.shelf.charged(key) is not None:
            return
        row = disk.index.row(key)
        if row is not None:
            disk.index.delete([key])
            self._resting.pop(key, None)
            self.room.give(row.charge)

    def recount(self) -> None:
        """The index was started anew: what is on disk now is what is open."""
        self._resting.clear()
        blobs = [blob for blob in self._open.values() if blob.disk is not None]
        self.room.used = sum(blob.disk.charge for blob in blobs if blob.disk)
        for blob in blobs:
            self.declare(blob)

    # Looking

    def entries(self) -> Iterator[Row]:
        """Every object on disk, the least recently used first."""
        if self.disk is not None:
            yield from self.disk.index.rows()

    def statistics(self) -> dict[str, object]:
        """Numbers for status and metrics: bytes and counts, and whether the disk is used."""
        objects = 0
        if self.disk is not None:
            objects, _ = self._asked(lambda index: index.totals()) or (0, 0)
        return {
            "state": "on" if self.disk and self.health.on else "off",
            "reason": self.health.reason or ("" if self.room.cap else "cache_size is 0"),
            "objects": objects,
            "disk_bytes": self.room.used,
            "cap_bytes": self.room.cap,
            "memory_bytes": self._memory_bytes,
            "open": len(self._open),
            "pinned": sum(1 for blob in self._open.values() if blob.refs > 0),
            "read_bytes": self.counters.read_bytes,
            "written_bytes": self.counters.written_bytes,
            "lost_bytes": self.counters.lost_bytes,
            "refused_bytes": self.counters.refused_bytes,
            "evictions": self._evictions,
            "errors": self.health.failures,
        }

    # The end

    def close(self) -> None:
        """Save what is not saved yet, and let the folder go."""
        for blob in list(self._open.values()):
            blob.refs = 0
            if blob.unsaved:
                blob.seal_now()
                self.save(blob)
            self.settle(blob)
        if self.disk is not None:
            try:
                self.disk.index.close()
            except sqlite3.Error as error:
                log.warning("the index of the cache could not be written: %s", error)
            self.disk.claim.drop()
            self.disk = None


def _open_disk(folder: Path) -> Disk:
    claim = folders.claim(folder)
    try:
        if claim.remote:
            log.warning("the cache folder lies on a network file system (%s)", claim.kind)
        shelf = Shelf(claim.content_fd, in_ram=claim.in_ram)
        return Disk(claim, shelf, Index.open(claim.content_fd))
    except BaseException:
        claim.drop()
        raise


def _used(disk: Disk) -> int:
    """What is on disk: the rows say it, but for objects that were open when a process died."""
    for key, charge in disk.index.left_open():
        found = disk.shelf.charged(key)
        if found is None:
            disk.index.delete([key])
        else:
            disk.index.settle(key, max(found, charge))
    return disk.index.totals()[1]
