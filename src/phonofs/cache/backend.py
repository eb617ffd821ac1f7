"""The disk of the cache as its entries see it: files, index, budget, and whether it works.

Used by the entries, by write-behind and by the cache itself. Failures of the disk are noted here
and never raised: the caller continues in memory.
"""

import logging
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import trio

from phonofs.cache.breaker import PAUSE_S, CircuitBreaker, describe
from phonofs.cache.budget import DiskBudget
from phonofs.cache.codec import AesGcmCodec
from phonofs.cache.directory import IN_MEMORY, REMOTE, claim, closed_on_error, file_system_of
from phonofs.cache.filestore import FileStore
from phonofs.cache.hash_threads import HashThreads
from phonofs.cache.index import Index
from phonofs.cache.index_file import is_damage, say_damaged

log = logging.getLogger(__name__)

EMPTY_AT_ONCE = 1000
"""Files removed while a cache is opened: about 50 ms. The rest is removed in the background."""

THREADS = 8
"""Threads that may wait for the disk at once; more would only queue at the device."""

SAY_AGAIN_S = 60.0
"""Without memory every waiting read keeps trying; this limits the log to one line a minute."""

T = TypeVar("T")


class Disk:
    """The opened parts of a cache directory.

    content_fd    the descriptor of ``content/``, which holds the lock
    files, index  its files, its index
    used_bytes    bytes on disk when it was opened
    settled       whether all files have a row, or belong to an open entry. If not, nothing is
                  written until the maintenance task has removed the others
    """

    def __init__(self, directory: Path, cap: int, codec: AesGcmCodec | None = None) -> None:
        """Claim the directory and open its files and index.

        Files that the index does not know because it is new, or that were written with another key,
        are removed. If there are many, the maintenance task removes them, and until then the whole
        ``cap`` (bytes) is charged for them.

        Raises UsageError, OSError or sqlite3.Error.
        """
        self.content_fd = claim(directory)
        with closed_on_error(self.content_fd):
            kind = file_system_of(self.content_fd)
            if kind in REMOTE:
                log.warning("the cache folder is on a network file system (%s)", kind)
            self.files = FileStore(self.content_fd, in_ram=kind in IN_MEMORY, codec=codec)
            self.index = Index.open(self.content_fd)
            self.settled = True
            try:
                self.used_bytes = self._used(cap)
            except BaseException:
                self.index.abandon()
                raise

    def _used(self, cap: int) -> int:
        """Return what is on disk: the sum of the rows, after checking those left open.

        A row is left open if the process died while it wrote the object.
        """
        damaged = self.index.replaced
        try:
            if self.index.key_id == self.files.key_id:
                self.compare(self.index.left_open())
                return self.index.totals()[1]
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            say_damaged(error)
            damaged = True
        self.start_empty(damaged=damaged)
        if not self.files.remove_all(EMPTY_AT_ONCE):
            return cap
        self.settle()
        return 0

    def compare(self, charges: Iterable[tuple[bytes, int]]) -> list[bytes]:
        """Correct the charges in rows to what their files take; delete rows without a file.

        Takes keys and charges; returns the deleted keys. Raises OSError or sqlite3.Error.
        """
        found = [(key, charge, self.files.charged(key)) for key, charge in charges]
        gone = [key for key, _, size in found if size is None]
        self.index.delete(gone)
        self.index.set_charges((key, max(size or 0, charge)) for key, charge, size in found)
        return gone

    def start_empty(self, *, damaged: bool) -> None:
        """Make a new index; it knows no file. Raises OSError or sqlite3.Error."""
        self.index.abandon()
        self.index = Index.renew(self.content_fd, damaged=damaged)
        self.settled = False

    def settle(self) -> None:
        """Note that all files have a row, or belong to an open entry. Raises sqlite3.Error."""
        self.index.set_key_id(self.files.key_id)
        self.settled = True

    def close(self) -> None:
        """Close the index and release the directory."""
        try:
            self.index.close()
        except sqlite3.Error as error:
            log.warning("the index of the cache could not be written: %s", error)
        finally:
            os.close(self.content_fd)


class Backend:
    """Shared services of all entries. Owns the disk, its budget and breaker, and the counters.

    disk           None if there is no disk: everything stays in memory
    counters       bytes in and out since the start, for statistics
    wake           set when the maintenance task has something to do
    hash_threads   hash objects while they come
    index_damaged  the index is damaged and could not be rebuilt; rebuilding is tried again
    untidy         files and rows may differ; they are compared soon
    """

    def __init__(
        self,
        *,
        size_bytes: int,
        min_free_bytes: int,
        evict: Callable[[int], object],
        start_empty: Callable[[], None],
    ) -> None:
        """``evict(n)`` frees space; ``start_empty()`` makes a new index and keeps open entries."""
        self.disk: Disk | None = None
        self.breaker = CircuitBreaker()
        self.budget = DiskBudget(
            size_bytes,
            min_free_bytes,
            free_bytes=lambda: self.disk.files.free_bytes() if self.disk else 0,
            evict=evict,
        )
        self.counters: Counter[str] = Counter()
        self.hash_threads = HashThreads()
        self.index_damaged = False
        self.untidy = False
        self.wake = trio.Event()
        self._start_empty = start_empty
        self._started_empty = float("-inf")
        self._say_again = float("-inf")
        self._threads = trio.CapacityLimiter(THREADS)

    def use(self, disk: Disk) -> None:
        """Use this disk from now on."""
        self.disk = disk
        self.untidy = not disk.settled

    def accepts(self, size: int) -> bool:
        """Return whether the disk is in use and an object of ``size`` bytes fits under the cap."""
        usable = self.disk is not None and self.disk.settled and self.breaker.on
        return usable and size <= self.budget.cap

    def query(self, question: Callable[[Disk], T]) -> T | None:
        """Return an answer of the disk; None if there is no disk, or it fails, which is noted."""
        if self.disk is not None:
            try:
                return question(self.disk)
            except (OSError, sqlite3.Error, ValueError) as error:
                self.failed(error)
        return None

    def attempt(self, work: Callable[[Disk], object]) -> bool:
        """Do something with the disk; return whether there is one and that did not fail."""
        return self.query(lambda disk: (work(disk),)) is not None

    def remove(self, charges: Mapping[bytes, int]) -> int:
        """Remove files and rows; return the bytes of the files that are gone.

        The charge of an object is released if both its file and its row are gone. A row is deleted
        even if its file cannot be removed, so that withdrawn content is never read again.
        """
        if self.disk is None or not charges:
            return 0
        gone = [key for key in charges if self._remove_file(key)]
        deleted = self.attempt(lambda disk: disk.index.delete(charges))
        freed = sum(charges[key] for key in gone)
        if deleted:
            self.budget.release(freed)
        self.untidy |= not deleted or len(gone) < len(charges)
        return freed

    def _remove_file(self, key: bytes) -> bool:
        return self.attempt(lambda disk: disk.files.remove(key))

    def reserve(self, n: int) -> bool:
        """Charge ``n`` bytes that are about to be written; return False if they do not fit."""
        if not self.budget.reserve(n):
            return False
        if self.budget.left < self.budget.headroom // 2:
            self.wake.set()  # so that the maintenance task evicts ahead
        return True

    def failed(self, error: Exception) -> None:
        """Note a failure of the disk; after a few failures nothing is written there for a while.

        A damaged index is rebuilt at once. If that fails, or the index is damaged again within
        PAUSE_S, nothing is written to disk for PAUSE_S.
        """
        self.budget.recount(self.budget.used)  # the next write checks both limits
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
        self.untidy = True
        self.wake.set()

    def works_again(self) -> None:
        """Note that the disk can be used again; files and rows may differ."""
        self.breaker.worked()
        self.untidy = True

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
        self.hash_threads.close()
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
