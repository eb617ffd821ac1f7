"""What a checksum of the service says, and hashing content against it. Pure but for the reads."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from phonofs.buffers import page_aligned
from phonofs.cache.blocks import BLOCK, crcs_of

STEP = 1 << 20
"""Bytes hashed per read: a whole number of blocks, and the interpreter's lock is let go."""

_PLAIN = re.compile(r"[0-9a-f]{32}")
_PARTS = re.compile(r"([0-9a-f]{32})-(\d+)")


@dataclass(frozen=True, slots=True)
class Expected:
    """What a checksum demands of the MD5 of the content.

    md5    the MD5 as hex digits
    parts  0 for the MD5 of the content; 1 for a multipart ETag of one part, the MD5 of its
           binary MD5 (which is how S3 makes them)
    """

    md5: str
    parts: int

    def matches(self, digest: bytes) -> bool:
        """Whether content whose binary MD5 is ``digest`` has this checksum."""
        if self.parts:
            digest = hashlib.md5(digest, usedforsecurity=False).digest()
        return digest.hex() == self.md5


def expected(checksum: str) -> Expected | None:
    """What ``checksum`` demands; None where only the length can be checked.

    That is so for multipart ETags of more than one part, because the size of a part is not
    given, and for an empty or unknown form.
    """
    text = checksum.strip().strip('"').lower()
    if _PLAIN.fullmatch(text):
        return Expected(text, 0)
    parts = _PARTS.fullmatch(text)
    if parts and int(parts[2]) == 1:
        return Expected(parts[1], 1)
    return None


@dataclass(slots=True)
class Hash:
    """The MD5 of the first ``position`` bytes; ``position`` is the start of a block, or the end."""

    position: int = 0
    md5: "hashlib._Hash" = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))


def hash_stretch(
    read_into: Callable[[int, memoryview], int], hashed: Hash | None, start: int, stop: int
) -> list[int] | None:
    """The CRCs of the blocks of ``[start, stop)``, in a thread; ``hashed`` is moved on, if given.

    ``start`` is the start of a block, and ``hashed.position``. None, and ``hashed`` is of no
    more use, where the bytes cannot be read in full.
    """
    buffer = page_aligned(min(STEP, max(stop - start, 0)))
    crcs: list[int] = []
    while start < stop:
        piece = buffer[: min(STEP, stop - start)]
        if read_into(start, piece) < len(piece):
            return None
        if hashed is not None:
            hashed.md5.update(piece)
        crcs += crcs_of(piece)
        start += len(piece)
    if hashed is not None:
        hashed.position = stop
    return crcs


assert STEP % BLOCK == 0
