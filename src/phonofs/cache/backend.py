"""The disk of the cache as its entries see it: files, index, budget, and whether it works.

Used by the entries, by write-behind and by the cache itself. Failures of the disk are noted here
and never raised: the caller continues in memory.
"""

import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

from phonofs.cache.blockfile import BlockFile
from phonofs.cache.breaker import PAUSE_S, CircuitBreaker, describe
from phonofs.cache.budget import DiskBudget
from phonofs.cache.codec import AesGcmCodec
from phonofs.cache.directory import Claim, claim
from phonofs.cache.filestore import FileStore
from phonofs.cache.index import Identity, Index, Saved
from phonofs.cache.index_file import is_damage, say_damaged

log = logging.getLogger(__name__)

EMPTY_AT_ONCE = 1000
"""Files removed while a cache is opened: about 50 ms. The rest is removed in the background."""

THREADS = 8
"""Threads that may wait for the disk at once; more would only queue at the device."""

SAY_AGAIN_S = 60.0
"""Without memory every waiting read keeps trying; this limits the log to one line a minute."""

T = TypeVar("T")


@dataclass(slots=True)
class Disk:
    """The opened parts of a cache directory.

    claim, files, index  the directory, its files, its index
    trash_bytes          bytes in ``trash/`` that stay charged until they are removed
    used_bytes           bytes on disk when it was opened, including those in ``trash/``
    """

    claim: Claim
    files: FileStore
    index: Index
    trash_bytes: int = 0
    used_bytes: int = 0

    @classmethod
    def open(cls, directory: Path, cap: int, codec: AesGcmCodec | None = None) -> "Disk":
        """Claim the directory and open its files and index.

        Files that the index does not know, that were written with another key, or that an earlier
        run had evicted are removed. If there are many, they stay in ``trash/`` until the
        maintenance task removes them, and the whole ``cap`` (bytes) is charged for them.

        Raises UsageError, OSError or sqlite3.Error.
        """
        claimed = claim(directory)
        try:
            if claimed.remote:
                log.warning("the cache folder is on a network file system (%s)", claimed.kind)
            files = FileStore(claimed.content_fd, in_ram=claimed.in_ram, codec=codec)
            disk = cls(claimed, files, Index.open(claimed.content_fd, files.move_all_to_trash))
            try:
                disk._begin(cap)
            except BaseException:
                disk.index.abandon()
                raise
        except BaseException:
            claimed.drop()
            raise
        return disk

    def _begin(self, cap: int) -> None:
        try:
            same_key = self.index.key_id == self.files.codec.key_id
            used = self._used() if same_key else None
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            say_damaged(error)
            self.start_empty(damaged=True)
            used = 0
        if used is None:
            self.start_empty()
            used = 0
        if not self.files.empty_trash(EMPTY_AT_ONCE):
            self.trash_bytes = cap
        self.used_bytes = used + self.trash_bytes

    def _used(self) -> int:
        """Return the bytes on disk: the sum of the rows, after checking those left open.

        A row is left open if the process died while it wrote the object.
        """
        self.compare(self.index.left_open())
        return self.index.totals()[1]

    def compare(self, charges: Iterable[tuple[bytes, int]]) -> tuple[list[bytes], int]:
        """Correct the charges in rows to what their files take; delete rows without a file.

        Takes keys and charges. Returns the deleted keys, and the change in the sum of all charges
        in bytes. Raises OSError or sqlite3.Error.
        """
        gone, known, change = [], [], 0
        for key, charge in charges:
            found = self.files.charged(key)
            if found is None:
                gone.append(key)
                change -= charge
            else:
                known.append((key, max(found, charge)))
                change += max(0, found - charge)
        self.index.delete(gone)
        self.index.settle(known)
        return gone, change

    def start_empty(self, spare: Collection[bytes] = (), *, damaged: bool = False) -> None:
        """Make a new index, and move all files to ``trash/`` except those of the ``spare`` keys.

        Raises OSError or sqlite3.Error.
        """
        self.index.abandon()
        fd = self.claim.content_fd
        self.index = Index.renew(fd, lambda: self.files.move_all_to_trash(spare), damaged=damaged)
        self.index.set_key_id(self.files.codec.key_id)

    def trashed(self, n: int) -> None:
        """Count bytes moved to the trash, or removed from it if negative."""
        self.trash_bytes += n

    def close(self) -> None:
        """Close the index and release the directory."""
        try:
            self.index.close()
        except sqlite3.Error as error:
            log.warning("the index of the cache could not be written: %s", error)
        self.claim.drop()


class Backend:
    """Shared services of all entries. Owns the disk, its budget and breaker, and the counters.

    disk           None if there is no disk: everything stays in memory
    counters       bytes in and out since the start, for statistics
    wake           set when the maintenance task has something to do
    index_damaged  the index is damaged and could not be rebuilt; rebuilding is tried again
    untidy         a file or its row could not be removed; files and rows are compared soon
    """

    def __init__(
        self,
        disk: Disk | None,
        *,
        size_bytes: int,
        min_free_bytes: int,
        evict: Callable[[int], object],
        start_empty: Callable[[], None],
    ) -> None:
        """``evict(n)`` frees space; ``start_empty()`` makes a new index and keeps open entries."""
        self.disk = disk
        self.breaker = CircuitBreaker()
        self.budget = DiskBudget(
            size_bytes,
            min_free_bytes,
            free_bytes=lambda: self.disk.files.free_bytes() if self.disk else 0,
            evict=evict,
        )
        self.counters: Counter[str] = Counter()
        self.index_damaged = False
        self.untidy = False
        self.wake = trio.Event()
        self._start_empty = start_empty
        self._started_empty = float("-inf")
        self._say_again = float("-inf")
        self._threads = trio.CapacityLimiter(THREADS)

    def use(self, disk: Disk) -> None:
        """Use this disk from now on; before, none could be opened."""
        self.disk = disk
        self.untidy = True

    def accepts(self, size: int) -> bool:
        """Return whether the disk is in use and an object of ``size`` bytes fits under the cap."""
        return self.disk is not None and self.breaker.on and size <= self.budget.cap

    def query(self, question: Callable[[Index], T]) -> T | None:
        """Return the index's answer; None if that fails, which counts as a failure of the disk."""
        answers: list[T] = []
        self.tell(lambda index: answers.append(question(index)))
        return answers[0] if answers else None

    def tell(self, change: Callable[[Index], object]) -> bool:
        """Change the index; return False if that fails, which counts as a failure of the disk."""
        if self.disk is None:
            return False
        try:
            change(self.disk.index)
        except (sqlite3.Error, ValueError) as error:
            self.failed(error)
            return False
        return True

    def declare(self, objects: Iterable[tuple[Identity, int]]) -> bool:
        """Record in the index that these objects, each with its size, are written to disk.

        Returns False if that fails.
        """
        return self.tell(lambda index: index.declare_all(objects))

    def save(self, rows: Iterable[Saved]) -> bool:
        """Write rows whose bytes are on disk; return False if that fails."""
        return self.tell(lambda index: index.save(rows))

    def create_file(self, identity: Identity) -> BlockFile | None:
        """Return a new file for the object, or None if the disk fails."""
        try:
            return self.disk.files.create(identity.key) if self.disk else None
        except OSError as error:
            self.failed(error)
            return None

    def open_file(self, identity: Identity) -> BlockFile | None:
        """Return the object's file, or None if the disk fails.

        Raises FileNotFoundError if the file does not exist.
        """
        try:
            return self.disk.files.open(identity.key) if self.disk else None
        except FileNotFoundError:
            raise
        except OSError as error:
            self.failed(error)
            return None

    def remove_file(self, identity: Identity) -> bool:
        """Remove the file of an object, then its row; return False if either remains."""
        return self.remove({identity.key: 0})

    def remove(self, charges: Mapping[bytes, int]) -> bool:
        """Remove files and rows; return whether all of them are gone.

        The charge of an object is released if both its file and its row are gone. A row is deleted
        even if its file cannot be removed, so that withdrawn content is never read again.
        """
        if self.disk is None or not charges:
            return False
        gone = []
        for key in charges:
            try:
                self.disk.files.remove(key)
                gone.append(key)
            except OSError as error:
                self.failed(error)
        deleted = self.tell(lambda index: index.delete(charges))
        if deleted:
            self.budget.release(sum(charges[key] for key in gone))
        self.untidy |= not deleted or len(gone) < len(charges)
        return deleted and len(gone) == len(charges)

    def charge_trash(self, n: int) -> None:
        """Charge for ``n`` bytes in ``trash/`` that were not charged before."""
        if self.disk is not None:
            self.disk.trashed(n)
            self.budget.recount(self.budget.used + n)

    def trash_removed(self, n: int) -> None:
        """Note that ``n`` bytes were removed from ``trash/``, and release their charge."""
        if self.disk is not None:
            n = min(n, self.disk.trash_bytes)
            self.disk.trashed(-n)
            self.budget.release(n)

    def reserved(self) -> None:
        """Note that space was reserved; wake the maintenance task if it should evict ahead."""
        if self.budget.left < self.budget.headroom // 2:
            self.wake.set()

    def failed(self, error: Exception) -> None:
        """Note a failure of the disk; after a few failures nothing is written there for a while.

        A damaged index is rebuilt at once. If that fails, or the index is damaged again within
        PAUSE_S, nothing is written to disk for PAUSE_S.
        """
        self.budget.revoke_grant()
        damaged = isinstance(error, sqlite3.Error) and is_damage(error)
        if damaged and not self.index_damaged:
            self._renew_index(error)
        if self.breaker.failed(error, self.now(), at_once=self.index_damaged):
            log.warning("the disk cache is off: %s", self.breaker.reason)

    def _renew_index(self, error: Exception) -> None:
        self.index_damaged = True
        if self.now() - self._started_empty < PAUSE_S:
            return
        say_damaged(error)
        try:
            self.start_empty()
        except (OSError, sqlite3.Error) as failure:
            log.warning("the index of the cache cannot be made anew: %s", describe(failure))

    def start_empty(self) -> None:
        """Make a new index; open entries stay, and the maintenance task removes the rest.

        Raises OSError or sqlite3.Error.
        """
        self._started_empty = self.now()
        self._start_empty()
        self.index_damaged = False
        self.wake.set()

    def tidied(self) -> None:
        """Note that files and rows are being compared."""
        self.untidy = False

    def no_memory(self, error: Exception) -> None:
        """Note that there is no memory for a block; write one line a minute to the log.

        The reader of the block gets EIO.
        """
        if self.now() >= self._say_again:
            self._say_again = self.now() + SAY_AGAIN_S
            log.error("no memory for content: %s", describe(error))

    def close(self) -> None:
        """Close the disk; everything stays in memory from now on."""
        if self.disk is not None:
            self.disk.close()
            self.disk = None

    async def slept(self, longest_s: float) -> None:
        """Wait until ``wake`` is set, at most ``longest_s`` seconds, and clear it."""
        with trio.move_on_after(longest_s):
            await self.wake.wait()
        self.wake = trio.Event()

    def now(self) -> float:
        """Return the monotonic time in seconds.

        Works without an event loop, because the commands use a cache without one.
        """
        return trio.current_time() if trio.lowlevel.in_trio_run() else time.monotonic()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a thread; it is cancelled only before it begins or after it ends."""
        return await trio.to_thread.run_sync(work, limiter=self._threads)
