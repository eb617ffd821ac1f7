"""What the tests of the cache share: content that shows a byte out of place, records, a folder."""

import hashlib
from pathlib import Path

from phonofs.cache.blocks import BLOCK
from phonofs.cache.cache import Cache, key_of
from phonofs.model import Record

MIB = 1 << 20
PLENTY = 64 * MIB


def ramp(size: int, seed: int = 0) -> bytes:
    """Bytes modulo a prime: no two pages of one object are alike, nor two objects."""
    period = bytes((i + seed) % 251 for i in range(251))
    return (period * (size // 251 + 1))[:size]


def md5(data: bytes) -> str:
    """The checksum the service would give."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def record(id: str, data: bytes = b"", *, checksum: str | None = None, size: int = -1) -> Record:
    """A record of that content."""
    return Record(
        id=id,
        region="us-east",
        type="callrecording",
        mime_type="audio/mpeg",
        object_name="x.mp3",
        size=len(data) if size < 0 else size,
        created_ms=0,
        updated_ms=1,
        state="AVAILABLE",
        checksum=md5(data) if checksum is None else checksum,
        tags={},
        source=b"",
    )


def open_cache(folder: Path, size: int = PLENTY, min_free: int = 0) -> Cache:
    """A cache in that folder."""
    return Cache.open(folder, size_bytes=size, min_free_bytes=min_free)


def file_of(folder: Path, wanted: Record) -> Path:
    """Where the content of an object lies."""
    name = key_of(wanted.region, wanted.id, wanted.fingerprint).hex()
    return folder / "content" / name[:2] / name[2:]


def on_disk(folder: Path) -> int:
    """The bytes that content takes on disk."""
    drawers = [p for p in (folder / "content").iterdir() if p.is_dir()]
    return sum(p.stat().st_blocks * 512 for drawer in drawers for p in drawer.iterdir())


def fill(cache: Cache, wanted: Record, data: bytes) -> None:
    """Put an object into the cache and let it go."""
    blob = cache.blob(wanted)
    for start in range(0, len(data), BLOCK):
        blob.write(start, data[start : start + BLOCK])
    cache.release(blob)


async def stored(folder: Path, wanted: Record, data: bytes, size: int = PLENTY) -> None:
    """A cache that was filled with one checked object, and closed."""
    cache = open_cache(folder, size)
    blob = cache.blob(wanted)
    blob.write(0, data)
    assert await blob.check()
    cache.release(blob)
    cache.close()
