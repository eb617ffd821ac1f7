"""Checks a whole object against the checksum of its record, step by step, in a thread.

Used by the object's entry. The task keeps the MD5 of the first ``position`` bytes, so that hashing
can begin while the rest is still being downloaded, and a cancelled check continues where it
stopped.
"""

import hashlib
from collections.abc import Awaitable, Callable

import trio

from phonofs.cache.blocks import BLOCK
from phonofs.cache.index import Row
from phonofs.checksum import PartsHash, expected, multipart_sizes
from phonofs.ranges import Ranges

HASH_NOW = BLOCK
"""Bytes hashed on the event loop: 200 µs, as much as handing them to a thread and waiting."""

HASH_STEP = 32 << 20
"""Bytes hashed per call in a thread; a check can be cancelled and continued between two calls."""

Read = Callable[[Callable[[memoryview], None], int, int], Awaitable[bool]]
"""Passes the bytes ``[start, stop)`` to a function; returns False if some are missing."""

Follow = Callable[[Callable[[memoryview], None], int], Awaitable[int | None]]
"""Passes what is there from an offset on, and what comes meanwhile, to a function; returns where it
ended, None if bytes were lost. Bytes that were lost may also show only in a wrong hash."""


class ChecksumTask:
    """The check of one object. Only one check runs at a time; other callers wait for it.

    verified    the whole object has the right checksum, or the right length if it has no checksum
    accepted    counts as verified in this run only, whatever its checksum
    unverified  complete in an earlier run but not verified then: no byte can be read yet
    position    bytes hashed so far: the start of a block, or the end of the object

    ``decided(right)`` is called with the result of each check of the whole.
    """

    def __init__(
        self,
        row: Row,
        present: Ranges,
        size: int,
        read: Read,
        follow: Follow,
        decided: Callable[[bool], None],
    ) -> None:
        self.verified = bool(row.verified)
        self.accepted = False
        self._checksum = row.checksum
        self._want = expected(row.checksum)
        self._present = present
        self._size = size
        self._read = read
        self._follow = follow
        self._decided = decided
        self._lock = trio.Lock()
        self.unverified = bool(present) and self._complete and not self.verified
        self._hashed_ahead = False
        self.restart()

    @property
    def _complete(self) -> bool:
        return self._present.covers(0, self._size)

    def restart(self) -> None:
        """Start again at the first byte: the bytes that were hashed have changed."""
        self.position = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._parts: list[PartsHash] = []

    def lost(self, size: int) -> None:
        """Note that bytes were lost, and how long the object is."""
        self._size = size
        self.verified = self.accepted = self.unverified = False
        self.restart()

    def accept(self) -> None:
        """Accept the content in this run if it is complete; see ``CacheEntry.accept``."""
        if self._complete:
            self.accepted = True
            self._passed()

    def _passed(self) -> None:
        self.verified = True
        self.unverified = False
        self._decided(True)

    async def whole(self) -> bool:
        """Return whether the complete content is right; see ``CacheEntry.check``."""
        if self.verified:
            return True
        async with self._lock:
            while not self.verified:
                if not self._complete:
                    return False
                if self._want is None and not self.unverified:
                    self._passed()
                elif self.position < self._size:
                    if not await self._step(self._size):
                        return False
                elif self._want is None or self._want.matches(self._md5.digest()):
                    self._passed()
                elif self._hashed_ahead:
                    self._hashed_ahead = False
                    self.restart()  # once more: is the content wrong, or what the disk gave back?
                else:
                    self.restart()
                    self._decided(False)
                    return False
        return True

    async def in_parts(self) -> bool:
        """Return whether the content has its multipart checksum with parts of a common size.

        See ``CacheEntry.check_parts``.
        """
        async with self._lock:
            self.restart()
            self._parts = [PartsHash(n) for n in multipart_sizes(self._checksum, self._size)]
            while self._complete and not self.verified and self._parts:
                if self.position < self._size:
                    if not await self._step(self._size):
                        return False
                elif any(parts.matches(self._checksum) for parts in self._parts):
                    self._passed()
                else:
                    self.restart()
        return self.verified

    def now(self, data: bytes) -> bool:
        """Return whether ``data``, the whole content of a small object, is right."""
        if self._lock.locked():
            return False
        if self._want is not None:
            md5 = hashlib.md5(data, usedforsecurity=False)
            if not self._want.matches(md5.digest()):
                return False
        self._passed()
        return True

    async def ahead(self) -> None:
        """Hash what is present after ``position`` and what comes meanwhile, unless one is running.

        Nothing is hashed of an object that cannot be checked.
        """
        done = self.verified or self.unverified or self._want is None
        if done or self._lock.locked():
            return
        async with self._lock:
            md5 = self._md5
            self._hashed_ahead = True
            try:
                stop = await self._follow(md5.update, self.position)
            except BaseException:
                self.restart()  # how much of it was hashed is not known
                raise
            if self._md5 is not md5:
                return  # it was restarted meanwhile
            if stop is None:
                self.restart()
            else:
                self.position = stop

    async def _step(self, stop: int) -> bool:
        """Hash one step towards ``stop``; return False if bytes turned out to be missing."""
        start = self.position
        stop = min(stop, start + HASH_STEP)
        if stop < self._size:
            stop -= stop % BLOCK
        if start >= stop:
            return True
        md5, parts = self._md5, self._parts

        def update(data: memoryview) -> None:
            md5.update(data)
            for each in parts:
                each.update(data)

        there = await self._read(update, start, stop)
        if self._md5 is not md5:  # it was restarted meanwhile
            return self._complete and not self.verified
        if not there:
            self.restart()
            return False
        self.position = stop
        return True
