"""The released cache entries that keep their file open. Used by :mod:`phonofs.cache.cache` only.

cachetools limits how many there are.
"""

import resource
from collections import defaultdict

from cachetools import LRUCache

from phonofs.cache.entry import CacheEntry

IDLE = 2048
"""Released entries that keep their file open, so that a GET of 50 KB takes 340 instead of 490 µs
(measured on a busy machine), and their blocks need not be checked again. At most a quarter of the
files that the process may have open. Each takes 4 KB of memory, besides blocks that did not come
whole."""

IDLE_BYTES = 128 << 20
"""The size of an object that counts as one of them; a larger one has more checksums in memory."""

IDLE_MEMORY = 32 << 20
"""The most bytes that all of them have in memory: of blocks that did not come whole. Whoever reads
the first bytes of many large files leaves one block of up to 128 KiB for each."""


class IdleEntries(LRUCache[bytes, CacheEntry]):
    """Released entries, by their keys; the least recently used is closed to make space.

    Invariant: ``_keys`` has the keys of exactly these entries, by region and id of their objects.
    """

    def __init__(self) -> None:
        most_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = IDLE if most_files == resource.RLIM_INFINITY else min(IDLE, most_files // 4)
        memory_of_one = IDLE_MEMORY // most
        super().__init__(
            most,
            lambda entry: min(
                1 + entry.size // IDLE_BYTES + entry.memory_bytes // memory_of_one, most
            ),
        )
        self._keys: defaultdict[tuple[str, str], set[bytes]] = defaultdict(set)

    def __setitem__(self, key: bytes, entry: CacheEntry) -> None:
        super().__setitem__(key, entry)
        self._keys[entry.row.region, entry.row.id].add(key)

    def __delitem__(self, key: bytes) -> None:
        row = self[key].row
        super().__delitem__(key)
        keys = self._keys[row.region, row.id]
        keys.discard(key)
        if not keys:
            del self._keys[row.region, row.id]

    def popitem(self) -> tuple[bytes, CacheEntry]:
        """Close the least recently used entry."""
        key, entry = super().popitem()
        entry.close()
        return key, entry

    def close(self, key: bytes) -> None:
        """Close the entry with this key, if there is one."""
        entry = self.pop(key, None)
        if entry is not None:
            entry.close()

    def close_all(self) -> None:
        """Close all of them."""
        while self:
            self.popitem()

    def of(self, region: str, id: str) -> list[CacheEntry]:
        """Return the entries of an object; the others are not looked at."""
        return [self[key] for key in self._keys.get((region, id), ())]
