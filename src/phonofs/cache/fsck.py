"""Checks every block on disk, for ``phonofs cache verify``."""

from dataclasses import dataclass

from phonofs.cache.blocks import bytes_of
from phonofs.cache.cache import Cache
from phonofs.cache.entry import CacheEntry


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one object: ``bytes`` were on disk, ``bad_bytes`` of them were wrong."""

    region: str
    id: str
    bytes: int
    bad_bytes: int


async def verify(cache: Cache) -> list[Finding]:
    """Read every block on disk and compare its CRC; remove blocks that are wrong.

    Returns a finding for every object, including intact ones. Objects can be read meanwhile.
    """
    findings = []
    for row in list(cache.entries()):
        entry = cache.pin(row.identity, row.size)
        try:
            bad = await _check_blocks(entry)
        finally:
            cache.release(entry)
        findings.append(Finding(row.identity.region, row.identity.id, row.bytes, bad))
    return findings


async def _check_blocks(entry: CacheEntry) -> int:
    """Read each block as if it came from an earlier run; return how many bytes were lost."""
    before = entry.present.total()
    if entry.unverified and not await entry.check():
        return before
    for index in entry.stored_blocks():
        entry.distrust(index)
        start, stop = bytes_of(index, index + 1, entry.size)
        await entry.read(start, stop - start)
    return before - entry.present.total()
