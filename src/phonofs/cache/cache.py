"""The cache: opens, pins, evicts and forgets the content of objects, under a hard cap.

Who uses it: the reader, for bytes; the vfs, for how much of a file is here; the commands. All
methods run on the event loop; ``run`` is the janitor.

The order of eviction is kept in the index and not in Python objects, because it has to outlive
the mount, and an index of a million objects must not be loaded; what cachetools bounds here are
the released blobs, whose blocks need no second check in the same run.
"""

import contextlib
import hashlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from cachetools import LRUCache

from phonofs.cache import audit, janitor
from phonofs.cache.accounts import SetAside
from phonofs.cache.blob import Blob
from phonofs.cache.blocks import bytes_of
from phonofs.cache.checking import seal_now
from phonofs.cache.folder import holds_cache
from phonofs.cache.ground import Disk, Ground
from phonofs.cache.health import describe
from phonofs.cache.holding import Holding
from phonofs.cache.index import Identity, Row
from phonofs.cache.sealed import Cipher
from phonofs.cache.stock import Stock
from phonofs.model import Record
from phonofs.ranges import Ranges

log = logging.getLogger(__name__)

RESTING = 256
"""Released blobs that are remembered, some kilobytes each, so that nothing is checked twice."""


def key_of(region: str, id: str, fingerprint: str) -> bytes:
    """The name of a content in the cache: nothing of the service makes a path."""
    text = "\0".join((region, id, fingerprint)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


class Cache:
    """All content that is here. Made by :meth:`open`.

    Owner of the blobs: ``_open`` has those that are pinned, ``leaving`` those of them that
    nobody uses any more but that are still to be saved, ``_resting`` closed ones.
    Invariants: an object has at most one blob; no object with a blob in ``_open`` is evicted;
    every file on disk has a row, which is there first.
    """

    def __init__(
        self,
        disk: Disk | None,
        *,
        size_bytes: int,
        min_free_bytes: int,
        set_aside: SetAside | None = None,
    ) -> None:
        self.set_aside = set_aside
        self.leaving: dict[bytes, Blob] = {}
        self.ground = Ground(
            disk, size_bytes=size_bytes, min_free_bytes=min_free_bytes, evict=self.evict
        )
        if set_aside is not None and disk is not None:
            self.ground.room.used += set_aside.bytes
        self._open: dict[bytes, Blob] = {}
        self._resting: LRUCache[bytes, Blob] = LRUCache(RESTING)
        self._evictions = 0

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        size_bytes: int,
        min_free_bytes: int,
        cipher: Cipher | None = None,
        set_aside: SetAside | None = None,
    ) -> "Cache":
        """Open the cache in ``folder``, which is made where it lacks.

        UsageError where it must not be used. With ``size_bytes`` 0 nothing is kept on disk, and
        what an earlier run left there is removed. Where the disk itself is in trouble, all goes
        to memory, and the log says so. With a ``cipher`` content is encrypted on disk; what was
        written with another one, or with none, is removed. ``set_aside``, which other accounts
        left on the same disk, counts too, and goes before anything of this cache.
        """
        if set_aside is not None:
            set_aside.protect(cipher.mark if cipher else 0, disk=bool(size_bytes))
        if not size_bytes and not holds_cache(folder):
            return cls(None, size_bytes=0, min_free_bytes=min_free_bytes)
        try:
            cache = cls(
                Disk.open(folder, cipher),
                size_bytes=size_bytes,
                min_free_bytes=min_free_bytes,
                set_aside=set_aside,
            )
            cache.keep_to(cipher)
        except (OSError, sqlite3.Error) as error:
            cache = cls(None, size_bytes=size_bytes, min_free_bytes=min_free_bytes)
            cache.ground.health.still_bad(error, cache.ground.now())
            log.warning("the disk cache is off: %s", describe(error))
        if not size_bytes:
            cache.clear()
            cache.close()
        return cache

    # Blobs

    def blob(self, record: Record) -> Blob:
        """The content of an object, pinned until :meth:`release`."""
        key = key_of(record.region, record.id, record.fingerprint)
        return self.pin(Identity(key, record.region, record.id, record.checksum), record.size)

    def pin(self, identity: Identity, size: int) -> Blob:
        """The same, of what has no record at hand."""
        key = identity.key
        blob = self._open.get(key)
        if blob is None:
            blob = self._resting.pop(key, None) or self._load(identity, size)
            self._open[key] = blob
        self.leaving.pop(key, None)
        stock = blob.stock
        if not stock.pinned:
            stock.in_memory = not self.ground.to_disk(stock.size)
        stock.pinned += 1
        return blob

    def release(self, blob: Blob) -> None:
        """One of those who asked for it does not use it any more."""
        stock = blob.stock
        stock.pinned -= 1
        if stock.pinned > 0:
            return
        if not stock.unsaved and not stock.busy:
            self.settle(blob)
            return
        self.leaving[stock.identity.key] = blob
        if stock.late:
            self.ground.late.can_go(stock)
        else:
            self.ground.wake.set()

    def settle(self, blob: Blob) -> None:
        """Close a blob that nobody uses; what of it is on disk stays."""
        stock, key = blob.stock, blob.stock.identity.key
        if self._open.get(key) is blob:
            del self._open[key]
        self.leaving.pop(key, None)
        stock.close()
        if stock.forgotten or stock.disk is None or self.ground.disk is None:
            return
        self.ground.disk.index.touch(key)
        if not stock.in_memory and not stock.passed_by:
            self._resting[key] = blob

    def cached_bytes(self, record: Record) -> int:
        """How many bytes of an object are on disk; what is in memory for the moment is not."""
        key = key_of(record.region, record.id, record.fingerprint)
        blob = self._open.get(key) or self._resting.get(key)
        if blob is not None:
            self.ground.put_now(blob.stock)  # so that what is said is so
            return blob.stock.disk.held.total() if blob.stock.disk else 0
        row = self.ground.asked(lambda index: index.row(key))
        return row.bytes if row else 0

    def _load(self, identity: Identity, size: int) -> Blob:
        found = self.ground.asked(lambda index: index.load(identity.key))
        if found is None or self.ground.disk is None:
            return Blob(Stock(self.ground, identity, size, in_memory=True))
        row, seals = found
        held = Ranges(bytes_of(first, last, row.size) for first, last in seals.known)
        stock = Stock(
            self.ground,
            identity,
            row.size if held else size,
            in_memory=True,  # until it is pinned
            disk=Holding(None, held, row.charge, self.ground.disk.spread),
            seals=seals,
            verified=row.verified,
        )
        return Blob(stock)

    # Eviction and forgetting

    def evict(self, n: int) -> int:
        """Remove unused objects of at least ``n`` bytes, the least recently used first; before
        them what other accounts left.
        """
        freed = self.set_aside.evict(n) if self.set_aside is not None else 0
        self.ground.give(freed)
        return freed + self._evict(n - freed, self._remove)

    def evict_aside(self, n: int) -> int:
        """The same, but only moved aside, which is quick; the janitor removes them then."""
        return self._evict(n, self._set_aside)

    def _evict(self, n: int, remove: Callable[[Disk, bytes, int], bool]) -> int:
        disk = self.ground.disk
        if disk is None or n <= 0:
            return 0
        freed, gone = 0, []
        try:
            for key, charge in disk.index.oldest():
                if key not in self._open and remove(disk, key, charge):
                    freed += charge
                    gone.append(key)
                if freed >= n or not self.ground.health.on:
                    break
            disk.index.delete(gone)
        except sqlite3.Error as error:
            self.ground.trouble(error)
        self._evictions += len(gone)
        return freed

    def _remove(self, disk: Disk, key: bytes, charge: int) -> bool:
        try:
            disk.shelf.remove(key)
        except OSError as error:
            self.ground.trouble(error)
            return False
        self._resting.pop(key, None)
        self.ground.give(charge)
        return True

    def _set_aside(self, disk: Disk, key: bytes, charge: int) -> bool:
        try:
            disk.shelf.set_aside(key)
        except OSError as error:
            self.ground.trouble(error)
            return False
        self._resting.pop(key, None)
        disk.gone_bytes += charge
        return True

    def forget(self, region: str, id: str, *, but: str = "") -> None:
        """Every content of an object goes, also one that is being read.

        ``but`` is a fingerprint to spare: that of the content it has now.
        """
        spared = key_of(region, id, but) if but else b""
        for blob in list(self._open.values()):
            identity = blob.stock.identity
            if identity[1:3] == (region, id) and identity.key != spared:
                self._forget_open(blob)
        disk = self.ground.disk
        if disk is not None:
            keys = self.ground.asked(lambda index: index.keys_of(region, id)) or []
            old = [(key, charge) for key, charge in keys if key != spared]
            gone = [key for key, charge in old if self._remove(disk, key, charge)]
            self.ground.asked(lambda index: index.delete(gone))

    def _forget_open(self, blob: Blob) -> None:
        stock, key = blob.stock, blob.stock.identity.key
        del self._open[key]
        self.leaving.pop(key, None)
        stock.forget()
        disk = self.ground.disk
        if disk is not None:
            self._remove(disk, key, stock.disk.charge if stock.disk else 0)
            self.ground.asked(lambda index: index.delete([key]))

    def clear(self) -> tuple[int, int]:
        """Remove all content, also what is being read (it is fetched again); objects, bytes."""
        objects, used = self._evictions, self.ground.room.used
        for blob in self._open.values():
            blob.reset()
        while self._evict(max(1, self.ground.room.used), self._remove):
            pass
        return self._evictions - objects, used - self.ground.room.used

    def keep_to(self, cipher: Cipher | None) -> None:
        """Have nothing on disk that was written with another cipher. sqlite3.Error."""
        mark = cipher.mark if cipher is not None else 0
        disk = self.ground.disk
        if disk is not None and disk.index.mark != mark:
            self.clear()
            disk.index.set_mark(mark)

    # For the janitor

    async def run(self) -> None:
        """The janitor: saves, evicts ahead of need, tidies up, tries a failed disk again."""
        await janitor.run(self)

    def let_go(self, stock: Stock) -> None:
        """Close it, where it was saved meanwhile and nobody uses it."""
        blob = self.leaving.get(stock.identity.key)
        if blob is not None and blob.stock is stock and not (stock.unsaved or stock.busy):
            self.settle(blob)

    def growing(self, since: float, n: int) -> list[Blob]:
        """The blobs with at least ``n`` unsaved bytes, or with some since before ``since``."""
        return [
            blob
            for blob in self._open.values()
            if blob.stock.unsaved_since is not None
            and (blob.stock.unsaved_since <= since or blob.stock.unsaved_bytes >= n)
        ]

    def is_open(self, name: str) -> bool:
        """Whether the file of that hex name is an open blob's."""
        return any(key.hex() == name for key in self._open)

    def drop_missing(self, key: bytes) -> None:
        """Forget the row of a file that is not there, if that is still so."""
        disk = self.ground.disk
        if disk is None or key in self._open or disk.shelf.charged(key) is not None:
            return
        row = disk.index.row(key)
        if row is not None:
            disk.index.delete([key])
            self._resting.pop(key, None)
            self.ground.give(row.charge)

    def recount(self) -> None:
        """After trouble with the index: charge for what its rows say and for what is open.

        Raises sqlite3.Error.
        """
        index = self.ground.disk.index if self.ground.disk else None
        if index is None:
            return
        self._resting.clear()
        _, used = index.totals()
        for key, blob in self._open.items():
            row, disk = index.row(key), blob.stock.disk
            used += (disk.charge if disk else 0) - (row.charge if row else 0)
            if disk is not None:
                blob.stock.changed()
        self.ground.room.used = used + (self.set_aside.bytes if self.set_aside else 0)

    # Looking

    @property
    def own_bytes(self) -> int | None:
        """What this cache takes on disk, without what is set aside; None where it has no disk."""
        if self.ground.disk is None:
            return None
        return self.ground.room.used - (self.set_aside.bytes if self.set_aside else 0)

    def entries(self) -> Iterator[Row]:
        """Every object on disk, the least recently used first; sqlite3.Error for a bad index."""
        if self.ground.disk is not None:
            yield from self.ground.disk.index.rows()

    async def verify(self) -> "list[audit.Finding]":
        """Check every block of every object on disk; what is wrong is removed, and reported."""
        return await audit.verify(self)

    def statistics(self) -> dict[str, object]:
        """Numbers for status and metrics: bytes and counts, and whether the disk is used."""
        ground = self.ground
        totals = ground.asked(lambda index: index.totals())
        return {
            "state": "on" if ground.disk and ground.health.on else "off",
            "reason": ground.health.reason or ("" if ground.room.cap else "cache_size is 0"),
            "objects": totals[0] if totals else 0,
            "disk_bytes": ground.room.used,
            "set_aside_bytes": self.set_aside.bytes if self.set_aside else 0,
            "cap_bytes": ground.room.cap,
            "memory_bytes": ground.memory_bytes,
            "open": len(self._open),
            "pinned": sum(1 for blob in self._open.values() if blob.stock.pinned > 0),
            "read_bytes": ground.counters.read_bytes,
            "written_bytes": ground.counters.written_bytes,
            "lost_bytes": ground.counters.lost_bytes,
            "refused_bytes": ground.counters.refused_bytes,
            "evictions": self._evictions,
            "errors": ground.health.failures,
        }

    # The end

    def close(self) -> None:
        """Save what is not saved yet, and let the folder go."""
        for blob in list(self._open.values()):
            blob.stock.pinned = 0
            if blob.stock.unsaved:
                with contextlib.suppress(MemoryError):  # what has no seal is fetched again
                    seal_now(blob.stock)
        self.ground.late.put_now(self.ground, [blob.stock for blob in self._open.values()])
        for blob in list(self._open.values()):
            if blob.stock.unsaved:
                self.ground.save(blob.stock)
            self.settle(blob)
        if self.ground.disk is not None:
            self.ground.disk.close()
            self.ground.disk = None
