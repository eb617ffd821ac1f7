"""Helpers for tests of the cache: content that shows a misplaced byte, records, a directory."""

import hashlib
from pathlib import Path

from phonofs.cache.blocks import BLOCK
from phonofs.cache.cache import Cache
from phonofs.cache.index import key_of
from phonofs.model import Record

MIB = 1 << 20
PLENTY = 64 * MIB


def ramp(size: int, seed: int = 0) -> bytes:
    """Make bytes modulo a prime: no two pages of an object are equal, and no two objects."""
    period = bytes((i + seed) % 251 for i in range(251))
    return (period * (size // 251 + 1))[:size]


def md5(data: bytes) -> str:
    """Return the checksum that the service would state."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def record(id: str, data: bytes = b"", *, checksum: str | None = None, size: int = -1) -> Record:
    """Make a record of this content."""
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
    """Open a cache in this directory."""
    return Cache.open(folder, size_bytes=size, min_free_bytes=min_free)


def file_of(folder: Path, wanted: Record) -> Path:
    """Return the path of an object's content."""
    name = key_of(wanted.region, wanted.id, wanted.fingerprint).hex()
    return folder / "content" / name[:2] / name[2:]


def on_disk(folder: Path) -> int:
    """Return the bytes that the content takes on disk."""
    shards = [p for p in (folder / "content").iterdir() if p.is_dir()]
    return sum(p.stat().st_blocks * 512 for shard in shards for p in shard.iterdir())


def fill(cache: Cache, wanted: Record, data: bytes) -> None:
    """Put an object into the cache and release it."""
    entry = cache.entry(wanted)
    for start in range(0, len(data), BLOCK):
        entry.write(start, data[start : start + BLOCK])
    cache.release(entry)


async def stored(folder: Path, wanted: Record, data: bytes, size: int = PLENTY) -> None:
    """Make a cache with one verified object, and close it."""
    cache = open_cache(folder, size)
    entry = cache.entry(wanted)
    entry.write(0, data)
    assert await entry.check()
    cache.release(entry)
    cache.close()
