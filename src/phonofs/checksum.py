"""What a checksum in a record demands of the content. Pure.

Used by the cache, which hashes content, and by the reader, which decides what may be given out.
"""

import hashlib
import re
from dataclasses import dataclass, field

USUAL_PARTS_MIB = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128)
"""Part sizes of uploads to object stores: the least that S3 takes and its tools' defaults (5, 8,
15, 16), those of other clients, and round ones."""

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
    """Return what ``checksum`` demands; None if only the length can be checked.

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


def of_nothing(checksum: str) -> bool:
    """Whether it is the checksum of a content without a byte."""
    want = expected(checksum)
    return want is not None and want.matches(_md5().digest())


def multipart_sizes(checksum: str, size: int) -> list[int]:
    """How large the parts of an upload of ``size`` bytes may have been, by its multipart ETag.

    Those sizes that are usual and give as many parts as it says, and the even split. Empty if
    it is no such ETag of more than one part.
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
    """The multipart ETag of content in parts of ``size`` bytes: MD5 of the MD5s (Amazon S3)."""

    size: int
    filled: int = 0
    md5: "hashlib._Hash" = field(default_factory=_md5)
    digests: list[bytes] = field(default_factory=list)

    def update(self, data: memoryview) -> None:
        """The next bytes."""
        while len(data):
            piece = data[: self.size - self.filled]
            self.md5.update(piece)
            self.filled += len(piece)
            data = data[len(piece) :]
            if self.filled == self.size:
                self.digests.append(self.md5.digest())
                self.filled, self.md5 = 0, _md5()

    def matches(self, checksum: str) -> bool:
        """Whether what was hashed has this checksum."""
        digests = [*self.digests, *([self.md5.digest()] if self.filled else [])]
        whole = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
        return f"{whole}-{len(digests)}" == checksum.strip().strip('"').lower()
