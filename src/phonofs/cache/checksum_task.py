"""Checks a whole object against the checksum of its record, step by step, in a thread.

Used by the object's entry. The task keeps the MD5 of the first ``position`` bytes, so that hashing
can begin while the rest is still being downloaded, and a cancelled check continues where it
stopped.
"""

import hashlib
from collections.abc import Callable
from typing import Protocol

import trio

from phonofs.cache.blocks import BLOCK
from phonofs.checksum import PartsHash, expected, multipart_sizes
from phonofs.ranges import Ranges

HASH_NOW = BLOCK
"""Bytes hashed on the event loop: 200 µs, as much as handing them to a thread and waiting."""

HASH_STEP = 32 << 20
"""Bytes hashed per call in a thread; a check can be cancelled and continued between two calls."""


class Content(Protocol):
    """What the task needs from its entry."""

    present: Ranges
    size: int
    verified: bool
    unverified: bool

    @property
    def checksum(self) -> str:
        """The checksum in the record."""
        ...

    @property
    def complete(self) -> bool:
        """Whether every byte is present."""
        ...

    async def hash_on(self, hashed: Callable[[memoryview], None], start: int, stop: int) -> bool:
        """Call ``hashed`` with the bytes; return False if some turned out to be missing."""
        ...

    def passed(self) -> None:
        """Note that the content matches its checksum."""

    def rejected(self) -> None:
        """Note that the content does not match its checksum."""


class ChecksumTask:
    """The check of one object. Only one check runs at a time; other callers wait for it.

    position  bytes hashed so far: the start of a block, or the end of the object
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self._lock = trio.Lock()
        self.restart()

    def restart(self) -> None:
        """Start again at the first byte: the bytes that were hashed have changed."""
        self.position = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._parts: list[PartsHash] = []

    async def whole(self) -> bool:
        """Return whether the complete content is right; see ``CacheEntry.check``."""
        content = self._content
        if content.verified:
            return True
        async with self._lock:
            want = expected(content.checksum)
            while not content.verified:
                if not content.complete:
                    return False
                if want is None and not content.unverified:
                    content.passed()
                elif self.position < content.size:
                    if not await self._step(content.size):
                        return False
                elif want is None or want.matches(self._md5.digest()):
                    content.passed()
                else:
                    self.restart()
                    content.rejected()
                    return False
        return True

    async def in_parts(self) -> bool:
        """Return whether the content has its multipart checksum with parts of a common size.

        See ``CacheEntry.check_parts``.
        """
        content = self._content
        async with self._lock:
            self.restart()
            sizes = multipart_sizes(content.checksum, content.size)
            self._parts = [PartsHash(size) for size in sizes]
            while content.complete and not content.verified and self._parts:
                if self.position < content.size:
                    if not await self._step(content.size):
                        return False
                elif any(parts.matches(content.checksum) for parts in self._parts):
                    content.passed()
                else:
                    self.restart()
        return content.verified

    def now(self, data: bytes) -> bool:
        """Return whether ``data``, the whole content of a small object, is right."""
        if self._lock.locked():
            return False
        want = expected(self._content.checksum)
        if want is not None:
            md5 = hashlib.md5(data, usedforsecurity=False)
            if not want.matches(md5.digest()):
                return False
        self._content.passed()
        return True

    async def ahead(self) -> None:
        """Hash one step of the bytes present after ``position``, unless a check is running."""
        content = self._content
        if content.verified or content.unverified or expected(content.checksum) is None:
            return
        if not self._lock.locked():
            async with self._lock:
                await self._step(content.present.stop_of(self.position))

    async def _step(self, stop: int) -> bool:
        """Hash one step towards ``stop``; return False if bytes turned out to be missing."""
        start = self.position
        stop = min(stop, start + HASH_STEP)
        if stop < self._content.size:
            stop -= stop % BLOCK
        if start >= stop:
            return True
        md5, parts = self._md5, self._parts

        def update(data: memoryview) -> None:
            md5.update(data)
            for each in parts:
                each.update(data)

        there = await self._content.hash_on(update, start, stop)
        if self._md5 is not md5:  # it was restarted meanwhile
            return self._content.complete and not self._content.verified
        if not there:
            self.restart()
            return False
        self.position = stop
        return True
