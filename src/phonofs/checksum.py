"""Checks content against the checksum in its record. Pure.

Used by the cache, which hashes content, by the reader, which decides what may be served, and by
lists for md5sum.
"""

import hashlib
import re
from dataclasses import dataclass, field

USUAL_PARTS_MIB = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128)
"""Part sizes of uploads to object stores: the smallest that S3 accepts and the defaults of its
tools (5, 8, 15, 16), the defaults of other clients, and round numbers."""

_PLAIN = re.compile(r"[0-9a-f]{32}")
_PARTS = re.compile(r"([0-9a-f]{32})-(\d+)")


@dataclass(frozen=True, slots=True)
class Expected:
    """The MD5 that a checksum demands.

    md5    the MD5 as hex digits
    parts  0 if it is the MD5 of the content; 1 if the checksum is a multipart ETag of one part,
           which S3 computes as the MD5 of the content's binary MD5
    """

    md5: str
    parts: int

    def matches(self, digest: bytes) -> bool:
        """Return whether content whose binary MD5 is ``digest`` has this checksum."""
        if self.parts:
            digest = hashlib.md5(digest, usedforsecurity=False).digest()
        return digest.hex() == self.md5


def expected(checksum: str) -> Expected | None:
    """Return what ``checksum`` demands; None if only the length can be checked.

    None for a multipart ETag of more than one part, because it does not give the size of the
    parts, and for an empty or unknown checksum.
    """
    text = checksum.strip().strip('"').lower()
    if _PLAIN.fullmatch(text):
        return Expected(text, 0)
    parts = _PARTS.fullmatch(text)
    if parts and int(parts[2]) == 1:
        return Expected(parts[1], 1)
    return None


def is_plain(checksum: str) -> bool:
    """Return whether a record's checksum is the MD5 of the content, as md5sum(1) computes it."""
    return _PLAIN.fullmatch(checksum) is not None


def of_nothing(checksum: str) -> bool:
    """Return whether it is the checksum of empty content."""
    want = expected(checksum)
    return want is not None and want.matches(_md5().digest())


def multipart_sizes(checksum: str, size: int) -> list[int]:
    """Return the possible part sizes, in bytes, of an upload of ``size`` bytes, by its ETag.

    These are the usual sizes and the even split, if they give as many parts as the ETag says.
    Empty unless ``checksum`` is a multipart ETag of more than one part.
    """
    parts = _PARTS.fullmatch(checksum.strip().strip('"').lower())
    count = int(parts[2]) if parts and len(parts[2]) <= 5 else 0
    if count < 2 or size <= 0:
        return []
    even = -(-size // count)
    sizes = {mib << 20 for mib in USUAL_PARTS_MIB} | {even, -(-even >> 20) << 20}
    return sorted(part for part in sizes if part > 0 and -(-size // part) == count)


def _md5() -> "hashlib._Hash":
    return hashlib.md5(usedforsecurity=False)


@dataclass(slots=True)
class PartsHash:
    """Computes the multipart ETag of content in parts of ``size`` bytes, as Amazon S3 does: the
    MD5 of the MD5s of the parts.
    """

    size: int
    filled: int = 0
    md5: "hashlib._Hash" = field(default_factory=_md5)
    digests: list[bytes] = field(default_factory=list)

    def update(self, data: memoryview) -> None:
        """Hash the next bytes."""
        while len(data):
            piece = data[: self.size - self.filled]
            self.md5.update(piece)
            self.filled += len(piece)
            data = data[len(piece) :]
            if self.filled == self.size:
                self.digests.append(self.md5.digest())
                self.filled, self.md5 = 0, _md5()

    def matches(self, checksum: str) -> bool:
        """Return whether the hashed content has this checksum."""
        digests = [*self.digests, *([self.md5.digest()] if self.filled else [])]
        whole = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
        return f"{whole}-{len(digests)}" == checksum.strip().strip('"').lower()
