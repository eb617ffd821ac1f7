"""Content that is computed, not stored: a head, then a loop of bytes, up to a given size.

Pure. Every object of the fake service has one: a recording is a tag and a repeated clip, a note
is a head only, a test object is a ramp modulo a prime. Any part can be computed without the parts
before it, so an object of a gigabyte costs no memory.
"""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

CHUNK = 256 * 1024
"""Bytes in one piece of a body: large enough that system calls do not dominate the cost."""


@dataclass(frozen=True)
class Loop:
    """``unit``, repeated without end. An empty unit has no bytes."""

    unit: bytes

    @cached_property
    def _tile(self) -> memoryview:
        return memoryview(self.unit * (CHUNK // len(self.unit) + 2))

    def piece(self, start: int, size: int) -> memoryview:
        """Return ``size`` (at most ``CHUNK``) bytes from ``start`` on, without a copy."""
        phase = start % len(self.unit)
        return self._tile[phase : phase + size]


PRIME = 251
RAMP = Loop(bytes(range(PRIME)))
NOTHING = Loop(b"")


@dataclass(frozen=True)
class Content:
    """The bytes of one object: ``head``, then ``loop`` from its offset ``phase``; ``size`` in all.

    If ``loop`` is empty, ``size`` is the head's length.
    """

    head: bytes
    loop: Loop
    size: int
    phase: int = 0

    def pieces(self, start: int, stop: int, most: int = CHUNK) -> Iterator[bytes | memoryview]:
        """Yield the bytes ``[start, stop)`` in order, in pieces of at most ``most`` and CHUNK."""
        stop = min(stop, self.size)
        while start < stop:
            size = min(stop - start, most, CHUNK)
            if start < len(self.head):
                piece: bytes | memoryview = self.head[start : start + size]
            else:
                piece = self.loop.piece(start - len(self.head) + self.phase, size)
            yield piece
            start += len(piece)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes ``[start, stop)``, cut at the size."""
        return b"".join(self.pieces(max(start, 0), stop))

    @cached_property
    def md5(self) -> str:
        """MD5 of the whole content as 32 hex digits, computed on first use."""
        digest = hashlib.md5(usedforsecurity=False)
        for piece in self.pieces(0, self.size):
            digest.update(piece)
        return digest.hexdigest()

    def multipart(self, part: int) -> str:
        """Return the checksum of an upload in parts of ``part`` bytes: MD5 of the MD5s, ``-N``.

        Source: Amazon S3's ETag of a multipart upload.
        """
        sums = [
            hashlib.md5(self.read(start, start + part), usedforsecurity=False).digest()
            for start in range(0, max(1, self.size), part)
        ]
        whole = hashlib.md5(b"".join(sums), usedforsecurity=False)
        return f"{whole.hexdigest()}-{len(sums)}"


def plain(value: bytes) -> Content:
    """Return content that is exactly these bytes."""
    return Content(value, NOTHING, len(value))


def ramp(seed: str, size: int) -> Content:
    """Return content whose byte at ``i`` is ``(i + k) % 251``; ``seed`` determines ``k``.

    So a test notices a byte that comes from another offset or another object.
    """
    return Content(b"", RAMP, size, phase=zlib.crc32(seed.encode("utf-8", "replace")) % PRIME)
