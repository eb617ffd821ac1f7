"""Checks every block on disk, for ``phonofs cache verify``."""

from phonofs.cache.blocks import BLOCK
from phonofs.cache.cache import Cache
from phonofs.cache.index import Row


async def verify(cache: Cache) -> list[tuple[Row, int]]:
    """Read every block on disk and compare its CRC; remove blocks that are wrong.

    Call it for a cache that was just opened: blocks that were read before are not read again.
    Returns the row of every object, with the number of its bytes that were wrong.
    """
    findings = []
    for row in cache.entries():
        entry = cache.pin(row)
        before = entry.present.total()
        try:
            if entry.unverified:
                await entry.check()
            for start, stop in list(entry.present):
                for at in range(start, stop, BLOCK):
                    await entry.read(at, min(BLOCK, stop - at))
        finally:
            cache.release(entry)
        findings.append((row, before - entry.present.total()))
    return findings
