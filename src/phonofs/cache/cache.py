"""The disk cache: opens, pins, saves and forgets the content of objects.

Used by the reader, for bytes; by the file system, to learn how much of a file is cached; and by the
commands. All methods run on the event loop; :mod:`phonofs.cache.maintenance` is the background
task.

:mod:`phonofs.cache.idle_entries` has the released entries that keep their file open;
:mod:`phonofs.cache.eviction` says what leaves the disk.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from phonofs.cache import write_behind
from phonofs.cache.backend import Backend, Disk
from phonofs.cache.breaker import describe
from phonofs.cache.buffers import BufferPool
from phonofs.cache.codec import AesGcmCodec
from phonofs.cache.directory import has_cache
from phonofs.cache.entry import CacheEntry
from phonofs.cache.eviction import Eviction
from phonofs.cache.filestore import remove_content
from phonofs.cache.idle_entries import IdleEntries
from phonofs.cache.index import Row, key_of, storable
from phonofs.cache.set_aside import SetAside
from phonofs.cache.write_behind import WriteBehind
from phonofs.model import Record

log = logging.getLogger(__name__)

MEMORY_BYTES = 64 << 20
"""Limit for the buffers of all entries, without the small new objects that wait for a flush. The
reader limits what it reads without a disk to half of it; this limit is the safety net."""


class Cache:
    """All cached content. Made by :meth:`open`.

    Owns the entries. ``_open`` holds the entries that are in use or must still be saved, ``_idle``
    the others that keep their file open.
    Invariants: an object has at most one entry; no object with an entry in ``_open`` is evicted;
    every file on disk has a row, which is written before the file.
    """

    def __init__(
        self,
        *,
        size_bytes: int,
        min_free_bytes: int,
        set_aside: SetAside | None = None,
        open_disk: Callable[[], Disk] | None = None,
    ) -> None:
        """``open_disk`` opens the disk, now or later; None if there is none."""
        self.backend = Backend(
            size_bytes=size_bytes,
            min_free_bytes=min_free_bytes,
            evict=lambda n: self.eviction.evict(n),
            start_empty=self._start_empty,
        )
        self.write_behind = WriteBehind()
        self._pool = BufferPool(MEMORY_BYTES + write_behind.CAPACITY_BYTES)
        self._open: dict[bytes, CacheEntry] = {}
        self._idle = IdleEntries()
        self.eviction = Eviction(self.backend, set_aside, self._open.keys(), self._idle.close)
        self._open_disk = open_disk

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        size_bytes: int,
        min_free_bytes: int,
        codec: AesGcmCodec | None = None,
        set_aside: SetAside | None = None,
    ) -> "Cache":
        """Open the cache in ``directory``, which is created if it does not exist.

        Raises UsageError if the directory must not be used. If ``size_bytes`` is 0, nothing is
        kept on disk, and content that an earlier run left there is removed. If the disk fails,
        everything stays in memory, and the log says so. If ``codec`` is given, content is
        encrypted on disk; content written with another key, or with none, is removed. All content
        is removed if the index is damaged or lost. ``set_aside``, the content that other accounts
        left on the same disk, counts too, and is evicted before the content of this cache.
        """
        if set_aside is not None:
            set_aside.protect(codec.key_id if codec else 0, disk=bool(size_bytes))
        cache = cls(
            size_bytes=size_bytes,
            min_free_bytes=min_free_bytes,
            set_aside=set_aside,
            open_disk=partial(Disk, directory, size_bytes, codec) if size_bytes else None,
        )
        try:
            cache.open_disk()
            if not size_bytes and has_cache(directory):
                remove_content(directory)
        except (OSError, sqlite3.Error) as error:
            cache.backend.breaker.still_bad(error, cache.backend.now())
            what = "the disk cache is off" if size_bytes else f"content is left in {directory}"
            log.warning("%s: %s", what, describe(error))
        return cache

    def open_disk(self) -> None:
        """Open the disk if there is one that is not open yet.

        Raises UsageError, OSError or sqlite3.Error.
        """
        if self._open_disk is None:
            return
        disk = self._open_disk()
        self._open_disk = None
        self.backend.use(disk)
        self.backend.budget.recount(disk.used_bytes + self.eviction.set_aside_bytes)
        for key in self._open:  # these entries do not know the files an earlier run left
            row = disk.index.row(key)
            if row is not None:
                self.backend.remove({key: row.charge})

    # Entries

    def entry(self, record: Record) -> CacheEntry:
        """Return the entry of an object, pinned until :meth:`release`."""
        key = key_of(record.region, record.id, record.fingerprint)
        return self._pinned(key, partial(Row.of, record))

    def pin(self, row: Row) -> CacheEntry:
        """Return the entry of an object, pinned until :meth:`release`.

        ``row`` says what is known of the object if the index does not know it.
        """
        return self._pinned(row.key, lambda: row)

    def _pinned(self, key: bytes, row: Callable[[], Row]) -> CacheEntry:
        entry = self._open.get(key)
        if entry is None:
            entry = self._idle.take(key)
            if entry is None:
                known = self.backend.query(lambda disk: disk.index.row(key))
                entry = CacheEntry(self.backend, self._pool, row(), known)
            self._open[key] = entry
        entry.pin()
        if entry.deferrable:
            self.write_behind.admit(entry)
        return entry

    def release(self, entry: CacheEntry) -> None:
        """Unpin the entry; put it away if it has no pins left and nothing to save."""
        if not entry.unpin():
            return
        if self._open.get(entry.key) is not entry:  # it was withdrawn meanwhile
            entry.close()
        elif entry.deferred:
            self.write_behind.mark_ready(entry)
        elif entry.stored.unsaved or entry.stored.busy:
            self.backend.wake.set()
        else:
            self._retire(entry)

    def _retire(self, entry: CacheEntry) -> None:
        """Put away an entry that is no longer in use; its blocks on disk stay."""
        self._open.pop(entry.key, None)
        self.write_behind.discard(entry)
        if entry.reusable:
            self._idle.put(entry)
        else:
            entry.close()
        if self.backend.disk is not None and entry.stored.has_file and not entry.withdrawn:
            self.backend.disk.index.touch(entry.key)

    def cached_bytes(self, record: Record) -> int:
        """Return how many bytes of an object are on disk or about to be."""
        key = key_of(record.region, record.id, record.fingerprint)
        entry = self._open.get(key) or self._idle.get(key)
        if entry is not None:
            return entry.cached_bytes
        row = self.backend.query(lambda disk: disk.index.row(key))
        return row.bytes if row else 0

    # Saving and flushing

    def save(self, entries: Iterable[CacheEntry]) -> None:
        """Write the rows of these entries in one transaction."""
        saving = []
        for entry in entries:
            row = entry.saving()
            if row is not None:
                saving.append((entry, row))
            elif entry.worthless:
                self.backend.remove({entry.key: entry.stored.disown_file()})
        rows = [row for _, row in saving]
        if rows and self.backend.attempt(lambda disk: disk.index.save(rows)):
            for entry, row in saving:
                entry.stored.saved(final=not row.open)

    def put_away(self, since: float) -> None:
        """Save and put away the released entries, except those that a thread still reads.

        Also saves other entries that have something unsaved since before ``since``.
        """
        released = [
            entry
            for entry in self._open.values()
            if not (entry.pins or entry.deferred or entry.stored.busy)
        ]
        due = [entry for entry in self._open.values() if entry.stored.unsaved_since <= since]
        self.save(dict.fromkeys([*released, *due]))
        for entry in released:
            self._retire(entry)

    async def flush(self, entries: list[CacheEntry]) -> None:
        """Create the files of deferred entries, in a thread."""
        with self._flushing(entries) as write:
            await self.backend.in_thread(write)

    @contextmanager
    def _flushing(self, entries: list[CacheEntry]) -> Iterator[Callable[[], None]]:
        """Reserve space, declare the rows, have the caller write the files, save the rows."""
        jobs = write_behind.begin(self.backend, entries)
        try:
            yield partial(write_behind.write_files, self.backend.disk, jobs)
        finally:
            write_behind.finish(self.backend, jobs)
            self.save(job.entry for job in jobs)
            for entry in entries:
                if entry.deferred and entry.present:  # its bytes changed after the flush began
                    self.write_behind.mark_ready(entry)
                    continue
                self.write_behind.discard(entry)
                if not entry.pins and self._open.get(entry.key) is entry:
                    self._retire(entry)

    # Forgetting

    def forget(self, region: str, id: str, *, but: str = "") -> int:
        """Remove every content of an object, even if it is being read; return the bytes freed.

        ``but`` is the fingerprint of a content to keep: the current one.
        """
        spared = key_of(region, id, but) if but else b""
        region, id = storable(region), storable(id)
        charges = dict(self.backend.query(lambda disk: list(disk.index.keys_of(region, id))) or ())
        charges.pop(spared, None)
        for entry in [*self._open.values(), *self._idle.of(region, id)]:
            if (entry.row.region, entry.row.id) == (region, id) and entry.key != spared:
                self._open.pop(entry.key, None)
                self._idle.take(entry.key)
                self.write_behind.discard(entry)
                entry.withdraw()
                charges[entry.key] = entry.stored.disown_file()
                if not entry.pins:
                    entry.close()
        return self.backend.remove(charges)

    def check_index(self) -> bool:
        """Check every page of the index; return False if it is damaged, or was when opened.

        A damaged index was rebuilt, and the cache is empty. Slow.
        """
        if self.backend.disk is None:
            return True
        sound = self.backend.attempt(lambda disk: disk.index.check())
        return sound and not self.backend.disk.index.replaced

    def _start_empty(self) -> None:
        """Make a new index; open files stay, all others are removed by the maintenance task.

        The whole cap is charged until then. Raises OSError or sqlite3.Error.
        """
        disk = self.backend.disk
        if disk is None:
            return
        disk.start_empty(damaged=True)
        disk.index.declare_all(entry.row for entry in self._open.values() if entry.stored.has_file)
        self.recount()

    # For maintenance

    @property
    def open_names(self) -> set[str]:
        """The hex names of the files that may belong to open entries."""
        return {key.hex() for key in self._open}

    def compare(self, charges: Iterable[tuple[bytes, int]]) -> None:
        """Correct the charges of these objects to what their files take.

        Takes keys and charges. A row without a file is deleted. Open entries are left alone. Raises
        OSError and sqlite3.Error.
        """
        if self.backend.disk is not None:
            closed = [(key, charge) for key, charge in charges if key not in self._open]
            for key in self.backend.disk.compare(closed):
                self._idle.close(key)

    def recount(self) -> None:
        """Set the budget to the charges in the index and of open entries. Raises sqlite3.Error.

        While there may be unknown files, the whole cap is charged.
        """
        disk, budget = self.backend.disk, self.backend.budget
        if disk is None:
            return
        self._idle.close_all()
        _, used = disk.index.totals()
        for key, entry in self._open.items():
            row = disk.index.row(key)
            used += entry.stored.charged - (row.charge if row else 0)
            entry.stored.changed()
        budget.recount((used if disk.settled else budget.cap) + self.eviction.set_aside_bytes)

    # Inspection

    @property
    def own_bytes(self) -> int | None:
        """Bytes this cache takes on disk, without those set aside; None if it has no disk."""
        if self.backend.disk is None:
            return None
        return self.backend.budget.used - self.eviction.set_aside_bytes

    def entries(self) -> list[Row]:
        """Return the rows of all objects on disk, the least recently used first."""
        return self.backend.query(lambda disk: list(disk.index.rows())) or []

    def statistics(self) -> dict[str, object]:
        """Return numbers for status and metrics: bytes, counts, and whether the disk is used."""
        backend, counters = self.backend, self.backend.counters
        return {
            "state": "on" if backend.disk and backend.breaker.on else "off",
            "reason": backend.breaker.reason or ("" if backend.budget.cap else "cache_size is 0"),
            "objects": backend.disk.index.count if backend.disk else 0,
            "disk_bytes": backend.budget.used,
            "set_aside_bytes": self.eviction.set_aside_bytes,
            "cap_bytes": backend.budget.cap,
            "memory_bytes": self._pool.currsize,
            "open": len(self._open),
            "pinned": sum(1 for entry in self._open.values() if entry.pins > 0),
            "read_bytes": counters["read_bytes"],
            "written_bytes": counters["written_bytes"],
            "lost_bytes": counters["lost_bytes"],
            "refused_bytes": counters["refused_bytes"],
            "evictions": self.eviction.count,
            "errors": backend.breaker.failures,
        }

    # The end

    def close(self) -> None:
        """Flush and save what is not saved yet, and release the directory in any case."""
        with ExitStack() as closing:
            closing.callback(self.backend.close)
            closing.callback(self._idle.close_all)
            closing.callback(self._retire_all)
            entries = list(self._open.values())
            for entry in entries:
                while not entry.unpin():
                    pass
            with self._flushing([entry for entry in entries if entry.deferred]) as write:
                write()
            self.put_away(float("-inf"))

    def _retire_all(self) -> None:
        for entry in list(self._open.values()):
            self._retire(entry)
