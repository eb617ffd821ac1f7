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
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from cachetools import LRUCache

from phonofs.cache import audit, janitor
from phonofs.cache.accounts import SetAside
from phonofs.cache.blob import Blob
from phonofs.cache.blocks import bytes_of
from phonofs.cache.checking import seal_now
from phonofs.cache.folder import claim, holds_cache
from phonofs.cache.ground import Disk, Ground
from phonofs.cache.health import describe
from phonofs.cache.holding import Holding
from phonofs.cache.index import Identity, Row
from phonofs.cache.index import remove as remove_index
from phonofs.cache.sealed import Cipher
from phonofs.cache.shelf import Removed, empty_content
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


def _storable(text: str) -> str:
    """The text as SQLite takes it, which refuses the lone surrogates that JSON may hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def remove_content(folder: Path) -> Removed:
    """Remove all content from a cache folder that nobody uses, by what lies in it.

    It needs neither the index nor the key of an encrypted cache. UsageError if the folder is in
    use or is not a cache; OSError if something cannot be removed.
    """
    claimed = claim(folder)
    try:
        remove_index(claimed.content_fd)
        return empty_content(claimed.content_fd)
    finally:
        claimed.drop()


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
            disk,
            size_bytes=size_bytes,
            min_free_bytes=min_free_bytes,
            evict=self.evict,
            start_empty=self._start_empty,
        )
        if disk is not None:
            self.ground.room.used += self._aside_bytes
        self._open: dict[bytes, Blob] = {}
        self._resting: LRUCache[bytes, Blob] = LRUCache(RESTING)
        self._evictions = 0
        self._again: Callable[[], Disk] | None = None

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
        written with another one, or with none, is removed. So is everything if the index is
        damaged or lost. ``set_aside``, which other accounts left on the same disk, counts too, and
        goes before anything of this cache.
        """
        if set_aside is not None:
            set_aside.protect(cipher.mark if cipher else 0, disk=bool(size_bytes))
        disk, failure = None, None
        try:
            if size_bytes:
                disk = Disk.open(folder, size_bytes, cipher)
            elif holds_cache(folder):
                remove_content(folder)
        except (OSError, sqlite3.Error) as error:
            failure = error
        cache = cls(disk, size_bytes=size_bytes, min_free_bytes=min_free_bytes, set_aside=set_aside)
        if failure is not None:
            cache._again = partial(Disk.open, folder, size_bytes, cipher) if size_bytes else None
            cache.ground.health.still_bad(failure, cache.ground.now())
            what = "the disk cache is off" if size_bytes else f"content is left in {folder}"
            log.warning("%s: %s", what, describe(failure))
        return cache

    # Blobs

    def blob(self, record: Record) -> Blob:
        """The content of an object, pinned until :meth:`release`."""
        key = key_of(record.region, record.id, record.fingerprint)
        texts = map(_storable, (record.region, record.id, record.checksum))
        return self.pin(Identity(key, *texts), record.size)

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
        if not stock.close():
            self.ground.save(stock)
        if stock.forgotten or stock.disk is None or self.ground.disk is None:
            return
        self.ground.disk.index.touch(key)
        if not stock.in_memory and not stock.passed_by:
            self._resting[key] = blob

    def cached_bytes(self, record: Record) -> int:
        """How many bytes of an object are on disk, or are on their way there; what is read through
        memory is not counted.
        """
        key = key_of(record.region, record.id, record.fingerprint)
        blob = self._open.get(key) or self._resting.get(key)
        if blob is not None:
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
        them what other accounts left. Nothing while ``gone/`` takes the whole cap: then no
        eviction makes room, but the janitor does.
        """
        disk = self.ground.disk
        if disk is not None and disk.gone_bytes >= self.ground.room.cap:
            self.ground.wake.set()
            return 0
        aside = self.set_aside.evict(n) if self.set_aside is not None else 0
        freed = aside + self._evict(n - aside, sys.maxsize, aside=False)
        self.ground.give(freed)
        return freed

    def evict_aside(self, n: int, most: int = sys.maxsize) -> int:
        """The same of at most so many objects, but they are only moved aside, which is quick; the
        janitor removes them then.
        """
        freed = self._evict(n, most, aside=True)
        if self.ground.disk is not None:
            self.ground.disk.gone_bytes += freed
        return freed

    def _evict(self, n: int, most: int, *, aside: bool) -> int:
        """The charges of the objects that have neither file nor row any more."""
        disk = self.ground.disk
        if disk is None or n <= 0:
            return 0
        remove = disk.shelf.set_aside if aside else disk.shelf.remove
        freed, gone = 0, []
        try:
            for key, charge in disk.index.oldest():
                if key not in self._open and self._removed(key, remove):
                    freed += charge
                    gone.append(key)
                if freed >= n or len(gone) >= most or not self.ground.health.on:
                    break
            disk.index.delete(gone)
        except sqlite3.Error as error:
            # The rows are still there, and their charges with them, to be given back when the rows
            # go; what lies in gone/ is charged for by itself.
            if aside:
                self.ground.charge_gone(freed)
            self.ground.trouble(error)
            return 0
        self._evictions += len(gone)
        return freed

    def _removed(self, key: bytes, remove: Callable[[bytes], None]) -> bool:
        try:
            remove(key)
        except OSError as error:
            self.ground.trouble(error)
            return False
        self._resting.pop(key, None)
        return True

    def forget(self, region: str, id: str, *, but: str = "") -> None:
        """Every content of an object goes, also one that is being read.

        ``but`` is a fingerprint to spare: that of the content it has now.
        """
        spared = key_of(region, id, but) if but else b""
        region, id = _storable(region), _storable(id)
        for blob in list(self._open.values()):
            identity = blob.stock.identity
            if identity[1:3] == (region, id) and identity.key != spared:
                self._forget_open(blob)
        keys = self.ground.asked(lambda index: index.keys_of(region, id)) or []
        self._drop({key: charge for key, charge in keys if key != spared})

    def _forget_open(self, blob: Blob) -> None:
        stock, key = blob.stock, blob.stock.identity.key
        del self._open[key]
        self.leaving.pop(key, None)
        stock.forget()
        self._drop({key: stock.disk.release() if stock.disk else 0})

    def _drop(self, charges: Mapping[bytes, int]) -> None:
        """Remove files and rows; what they cost is given back where both are gone.

        A row goes even if its file cannot be removed: what is withdrawn is not given out.
        """
        disk = self.ground.disk
        if disk is None or not charges:
            return
        gone = [key for key in charges if self._removed(key, disk.shelf.remove)]
        deleted = self.ground.asked(lambda index: index.delete(charges))
        if deleted:
            self.ground.give(sum(charges[key] for key in gone))
        self.ground.untidy |= not deleted or len(gone) < len(charges)

    def clear(self) -> tuple[int, int]:
        """Remove all content, also what is being read (it is fetched again); objects, bytes.

        It goes by what lies in the folder, whatever the index says.
        """
        disk = self.ground.disk
        if disk is None:
            return 0, 0
        open_bytes = sum(blob.stock.disk.charge for blob in self._open.values() if blob.stock.disk)
        for blob in self._open.values():
            blob.reset()
        try:
            self.ground.start_empty()
        except (OSError, sqlite3.Error) as error:
            self.ground.trouble(error)
            return 0, 0
        removed = self.remove_evicted()
        return removed.files, removed.bytes + open_bytes

    def remove_evicted(self) -> Removed:
        """Remove what was evicted and still lies on disk, where no janitor does. Takes its time."""
        disk = self.ground.disk
        if disk is None:
            return Removed()
        try:
            removed = disk.shelf.clear_gone()
        except OSError as error:
            self.ground.trouble(error)
            return Removed()
        self.ground.give(disk.gone_bytes)
        disk.gone_bytes = 0
        return removed

    def check_index(self) -> bool:
        """Look at every page of the index. False if it is damaged, or was when it was opened: then
        it was made anew, and the cache is empty. Takes its time.
        """
        if self.ground.disk is None:
            return True
        whole = self.ground.asked(lambda index: index.check())
        return bool(whole) and not self.ground.disk.index.replaced

    def _start_empty(self) -> None:
        """Make the index anew; files that are open stay, and all others go. OSError, sqlite3.Error.

        What the files cost that go is charged for until they are removed.
        """
        disk = self.ground.disk
        if disk is None:
            return
        kept = {key: blob.stock for key, blob in self._open.items() if blob.stock.disk is not None}
        disk.start_empty(kept)
        self._resting.clear()
        disk.index.declare_all(
            (stock.identity, stock.size) for stock in kept.values() if not stock.late
        )
        for stock in kept.values():
            stock.changed()
        charged = sum(stock.disk.charge for stock in kept.values() if stock.disk)
        disk.gone_bytes = max(0, self.ground.room.used - charged - self._aside_bytes)
        self.ground.room.used = charged + disk.gone_bytes + self._aside_bytes

    # For the janitor

    def open_again(self) -> None:
        """Open a disk that could not be opened. UsageError, OSError or sqlite3.Error."""
        if self._again is None or self.ground.disk is not None:
            return
        self.ground.use(self._again())
        self.ground.room.used += self._aside_bytes
        self._again = None
        for key in self._open:  # they are in memory; what an earlier run left of them is not
            row = self.ground.asked(lambda index, key=key: index.row(key))  # type: ignore[misc]
            if row is not None:
                self._drop({key: row.charge})

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
        try:
            return bytes.fromhex(name) in self._open
        except ValueError:
            return False

    def compare(self, keys: Iterable[bytes]) -> None:
        """Have the rows of these objects say what their files cost; without a file, a row goes.

        What is open is left alone. Raises OSError and sqlite3.Error.
        """
        disk = self.ground.disk
        if disk is None:
            return
        gone, known, used = [], [], 0
        for key in keys:
            row = disk.index.row(key) if key not in self._open else None
            if row is None:
                continue
            charge = disk.shelf.charged(key)
            if charge is None:
                gone.append(key)
                used -= row.charge
                self._resting.pop(key, None)
            elif charge > row.charge:
                known.append((key, charge))
                used += charge - row.charge
        disk.index.delete(gone)
        disk.index.settle(known)
        self.ground.room.used += used

    def recount(self) -> None:
        """After trouble with the index: charge for what its rows say and for what is open.

        Raises sqlite3.Error.
        """
        disk = self.ground.disk
        if disk is None:
            return
        index = disk.index
        self._resting.clear()
        _, used = index.totals()
        for key, blob in self._open.items():
            row, held = index.row(key), blob.stock.disk
            used += (held.charge if held else 0) - (row.charge if row else 0)
            if held is not None:
                blob.stock.changed()
        self.ground.room.used = used + disk.gone_bytes + self._aside_bytes

    # Looking

    @property
    def own_bytes(self) -> int | None:
        """What this cache takes on disk, without what is set aside; None where it has no disk."""
        if self.ground.disk is None:
            return None
        return self.ground.room.used - self._aside_bytes

    @property
    def _aside_bytes(self) -> int:
        """What other accounts left."""
        return self.set_aside.bytes if self.set_aside is not None else 0

    def entries(self) -> Iterator[Row]:
        """Every object on disk, the least recently used first; fewer if the index is damaged."""
        if self.ground.disk is None:
            return
        try:
            yield from self.ground.disk.index.rows()
        except sqlite3.Error as error:
            self.ground.trouble(error)

    async def verify(self) -> "list[audit.Finding]":
        """Check every block of every object on disk; what is wrong is removed, and reported."""
        return await audit.verify(self)

    def statistics(self) -> dict[str, object]:
        """Numbers for status and metrics: bytes and counts, and whether the disk is used."""
        ground = self.ground
        return {
            "state": "on" if ground.disk and ground.health.on else "off",
            "reason": ground.health.reason or ("" if ground.room.cap else "cache_size is 0"),
            "objects": ground.disk.index.count if ground.disk else 0,
            "disk_bytes": ground.room.used,
            "set_aside_bytes": self._aside_bytes,
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
