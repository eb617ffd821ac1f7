"""Checking all that lies in the cache, for ``phonofs cache verify``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from phonofs.cache.blocks import bytes_of

if TYPE_CHECKING:
    from phonofs.cache.blob import Blob
    from phonofs.cache.cache import Cache


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one object: ``bytes`` were there, ``bad_bytes`` of them were wrong."""

    region: str
    id: str
    bytes: int
    bad_bytes: int


async def verify(cache: Cache) -> list[Finding]:
    """Read every block on disk and compare its CRC; what is wrong is removed.

    A finding for every object, the good ones too. Objects that are read meanwhile stay usable.
    """
    findings = []
    for row in list(cache.entries()):
        blob = cache.pin(row.identity, row.size)
        try:
            bad = await _check_blocks(blob)
        finally:
            cache.release(blob)
        findings.append(Finding(row.identity.region, row.identity.id, row.bytes, bad))
    return findings


async def _check_blocks(blob: Blob) -> int:
    """Read each sealed block as if it were of an earlier run; how many bytes were lost."""
    stock = blob.stock
    before = stock.present.total()
    if stock.suspect and not await blob.check():
        return before
    for first, last in stock.seals.known:
        for block in range(first, last):
            start, stop = bytes_of(block, block + 1, stock.size)
            if stock.disk is not None and stock.disk.held.covers(start, stop):
                stock.trusted.remove(start, stop)
                await blob.read(start, stop - start)
    return before - stock.present.total()
