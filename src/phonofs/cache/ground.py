"""What all blobs stand on: the folder with its files and index, the room in it, and memory."""

import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

from phonofs.cache.folder import Claim, claim
from phonofs.cache.health import PAUSE_S, Health, describe
from phonofs.cache.holding import Counters, Spread
from phonofs.cache.index import Identity, Index, Saved, is_damage, say_damaged
from phonofs.cache.late import Late
from phonofs.cache.room import Room
from phonofs.cache.sealed import Cipher, SealedContent, sealing
from phonofs.cache.shelf import Content, Memory, Shelf
from phonofs.cache.stock import Stock

log = logging.getLogger(__name__)

EMPTY_AT_ONCE = 1000
"""Files removed while a cache is opened: some 50 ms. What is more is removed in the background."""

THREADS = 8
"""Threads that may wait for the cache's disk at once; more would only queue at the device."""

SAY_AGAIN_S = 60.0
"""Every waiting read tries again and again where there is no memory: that is one line a minute."""

T = TypeVar("T")


@dataclass(slots=True)
class Disk:
    """What there is where content goes to disk at all.

    claim, shelf, index   the folder, its files, its index
    spread                how bytes of a content lie in its file
    mark                  that of the cipher, 0 for none
    gone_bytes            bytes in ``gone/`` that are charged for until they are removed
    used_bytes            bytes on disk when it was opened, those in ``gone/`` too
    """

    claim: Claim
    shelf: Shelf
    index: Index
    spread: Spread
    mark: int
    gone_bytes: int = 0
    used_bytes: int = 0

    @classmethod
    def open(cls, folder: Path, cap: int, cipher: Cipher | None = None) -> "Disk":
        """Claim the folder and open what is in it. UsageError, OSError or sqlite3.Error.

        Nothing is left in it that the index does not know, that was written with another cipher,
        or that an earlier run had evicted already; where that is much, it lies in ``gone/``, the
        whole ``cap`` (bytes) is charged for it, and the janitor removes it.
        """
        claimed = claim(folder)
        try:
            if claimed.remote:
                log.warning("the cache folder is on a network file system (%s)", claimed.kind)
            wrap = sealing(cipher) if cipher is not None else None
            shelf = Shelf(claimed.content_fd, in_ram=claimed.in_ram, wrap=wrap)
            spread = Content.spread if cipher is None else SealedContent.spread
            mark = cipher.mark if cipher is not None else 0
            index = Index.open(claimed.content_fd, shelf.set_all_aside)
            disk = cls(claimed, shelf, index, spread, mark)
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
            used = self._used() if self.index.mark == self.mark else None
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            say_damaged(error)
            self.start_empty()
            self.index.replaced = True
            used = 0
        if used is None:
            self.start_empty()
            used = 0
        if not self.shelf.empty_gone(EMPTY_AT_ONCE):
            self.gone_bytes = cap
        self.used_bytes = used + self.gone_bytes

    def _used(self) -> int:
        """What lies on disk: the rows say it, but for those left open when a process died."""
        gone, known = [], []
        for key, charge in self.index.left_open():
            found = self.shelf.charged(key)
            if found is None:
                gone.append(key)
            else:
                known.append((key, max(found, charge)))
        self.index.delete(gone)
        self.index.settle(known)
        return self.index.totals()[1]

    def start_empty(self, spare: Collection[bytes] = ()) -> None:
        """Make the index anew, and move all files to ``gone/`` but those of these keys.

        OSError or sqlite3.Error.
        """
        self.index.abandon()
        fd = self.claim.content_fd
        self.index = Index.renew(fd, lambda: self.shelf.set_all_aside(spare))
        self.index.set_mark(self.mark)

    def close(self) -> None:
        """Let go of it."""
        try:
            self.index.close()
        except sqlite3.Error as error:
            log.warning("the index of the cache could not be written: %s", error)
        self.claim.drop()


class Ground:
    """The host of all blobs. Owner of the disk, of its health and room, and of the counters.

    disk           None where there is none: all goes to memory
    index_damaged  the index is broken and could not be made anew: that is tried again
    untidy         a file could not be removed, or its row not: files and rows are compared soon
    emptying       what lies in ``gone/`` is being removed
    wake           set when the janitor has something to do
    memory_bytes   what all contents in memory take
    late           small contents on their way to disk
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
        self.disk = disk
        self.health = Health()
        self.index_damaged = False
        self.untidy = False
        self.emptying = False
        self._start_empty = start_empty
        self._started_empty = float("-inf")
        self.counters = Counters()
        self.memory_bytes = 0
        self.late = Late()
        self.wake = trio.Event()
        self.room = Room(
            size_bytes,
            min_free_bytes,
            used=disk.used_bytes if disk else 0,
            free_bytes=lambda: self.disk.shelf.free_bytes() if self.disk else 0,
            evict=evict,
        )
        self._memory = Memory()
        self._say_again = float("-inf")
        self._threads = trio.CapacityLimiter(THREADS)

    def use(self, disk: Disk) -> None:
        """From now on content goes to this disk, where none could be opened before."""
        self.disk = disk
        self.room.used = disk.used_bytes
        self.room.withdraw()
        self.untidy = True

    def to_disk(self, size: int) -> bool:
        """Whether an object goes to disk: one that can never be there whole does not."""
        return self.disk is not None and self.health.on and size <= self.room.cap

    def asked(self, question: Callable[[Index], T]) -> T | None:
        """Ask the index; None where it does not answer, which counts as trouble."""
        if self.disk is None:
            return None
        try:
            return question(self.disk.index)
        except (sqlite3.Error, ValueError) as error:
            self.trouble(error)
            return None

    # The host of the blobs

    def create_file(self, identity: Identity) -> Content | None:
        """A new file for the object, or None where the disk is in trouble."""
        try:
            return self.disk.shelf.create(identity.key) if self.disk else None
        except OSError as error:
            self.trouble(error)
            return None

    def open_file(self, identity: Identity) -> Content | None:
        """The object's file, or None where that fails now. FileNotFoundError: it is gone."""
        try:
            return self.disk.shelf.open(identity.key) if self.disk else None
        except FileNotFoundError:
            raise
        except OSError as error:
            self.trouble(error)
            return None

    def open_memory(self) -> Content | None:
        """A place in memory, or None where there is none."""
        try:
            return self._memory.open()
        except (OSError, MemoryError) as error:
            self.no_memory(error)
            return None

    def no_memory(self, error: Exception) -> None:
        """Neither disk nor memory took bytes: their readers get EIO, the log a line a minute."""
        if self.now() >= self._say_again:
            self._say_again = self.now() + SAY_AGAIN_S
            log.error("no memory for content: %s", describe(error))

    def place_late(self, stock: Stock) -> Content | None:
        """A place for a small new content that is put on disk with others, by the janitor."""
        if self.disk is None or not self.to_disk(stock.size):
            return None
        return self.late.place(stock, self.disk.spread)

    def left_late(self, stock: Stock) -> None:
        """It does not wait to be put on disk any more."""
        self.late.left(stock)

    def put_now(self, stock: Stock) -> None:
        """Put on disk what waits to be put there; nothing happens where it does not wait."""
        if stock.late:
            self.late.put_now(self, [stock])

    def declare(self, identity: Identity, size: int) -> bool:
        """Note that bytes of it are going to be on disk; False where they must not."""
        if not self.to_disk(size):
            return False

        def write(index: Index) -> bool:
            index.declare(identity, size)
            return True

        return bool(self.asked(write))

    def take(self, n: int) -> bool:
        """Charge bytes that are about to be written; False where there is no room."""
        taken = self.room.take(n)
        if self.room.left < self.room.headroom // 2:
            self.wake.set()
        return taken

    def give(self, n: int) -> None:
        """Bytes charged for are no longer on disk."""
        self.room.give(n)

    def charge_gone(self, n: int) -> None:
        """Bytes that nobody had charged for were found, and lie in ``gone/`` now."""
        if self.disk is not None:
            self.disk.gone_bytes += n
            self.room.used += n

    def take_memory(self, n: int) -> None:
        """Count bytes in memory (negative: no longer)."""
        self.memory_bytes += n

    def trouble(self, error: Exception) -> None:
        """The disk failed: after a few times nothing new goes there for a while.

        A damaged index is made anew at once; if that fails, or it is damaged again within the
        time that a failing disk is left alone, nothing goes to disk for that time.
        """
        self.room.withdraw()
        damaged = isinstance(error, sqlite3.Error) and is_damage(error)
        if damaged and not self.index_damaged:
            self._renew_index(error)
        if self.health.failed(error, self.now(), at_once=self.index_damaged):
            log.warning("the disk cache is off: %s", self.health.reason)

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
        """Make the index anew; what is open stays, and the janitor removes the rest.

        OSError or sqlite3.Error.
        """
        self._started_empty = self.now()
        self._start_empty()
        self.index_damaged = False
        self.wake.set()

    def save(self, stock: Stock) -> None:
        """Write its row; its bytes are on disk already, or else it is written with them."""
        if stock.late:
            self.late.can_go(stock)
        else:
            self.save_all([stock])

    def save_all(self, stocks: Iterable[Stock]) -> None:
        """Write the rows of those whose bytes are on disk, together."""
        saving: list[tuple[Stock, Saved]] = []
        for stock in stocks:
            if stock.forgotten or stock.passed_by or self.disk is None:
                continue
            if not stock.pinned:
                stock.finish()
            row, blocks = stock.row()
            final = row.bytes == row.size or not stock.pinned
            if final and not row.bytes:
                self._discard(stock)
            else:
                saving.append((stock, Saved(row, *stock.seals.pack(blocks), final)))

        def write(index: Index) -> None:
            index.save(saved for _, saved in saving)
            for stock, saved in saving:
                stock.saved(final=saved.final)

        if saving:
            self.asked(write)

    def remove_file(self, identity: Identity) -> None:
        """The file of an object, and its row, are not wanted any more."""
        if self.disk is None:
            return
        try:
            self.disk.shelf.remove(identity.key)
        except OSError as error:
            self.untidy = True
            self.trouble(error)
        else:
            self.asked(lambda index: index.delete([identity.key]))

    def _discard(self, stock: Stock) -> None:
        """Nothing of it is worth a row: not one whole block."""
        key = stock.identity.key
        if self.disk is None:
            return
        try:
            self.disk.shelf.remove(key)
        except OSError as error:
            self.trouble(error)
            return
        stock.abandon_disk()
        if not self.asked(lambda index: index.delete([key])):
            self.untidy = True

    def now(self) -> float:
        """Seconds, monotonic; the commands that look at a cache do so without a loop."""
        return trio.current_time() if trio.lowlevel.in_trio_run() else time.monotonic()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do what waits for the disk; cancelled only before it begins or after it ends."""
        return await trio.to_thread.run_sync(work, limiter=self._threads)
