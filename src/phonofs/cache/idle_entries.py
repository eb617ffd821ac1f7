"""The released cache entries that keep their file open. Used by :mod:`phonofs.cache.cache` only."""

import resource
from collections import OrderedDict, defaultdict

from phonofs.cache.entry import CacheEntry

IDLE = 2048
"""Released entries that keep their file open, and what their last user attached: neither has to be
made anew, and their blocks need not be checked again. At most a quarter of the
files that the process may have open. Each takes 5 to 11 KB of memory, besides blocks that did not
come whole."""

IDLE_BYTES = 128 << 20
"""The size of an object that counts as one of them; a larger one has more checksums in memory."""

IDLE_MEMORY = 32 << 20
"""The most bytes that all of them have in memory: of blocks that did not come whole. Whoever reads
the first bytes of many large files leaves one block of up to 128 KiB for each."""


class IdleEntries:
    """Released entries, by their keys; the least recently used is closed to make space.

    An entry counts as several if it is of a large object, or has blocks in memory. Each small GET
    takes one and puts it back, for which cachetools' LRUCache looks its key up several times.

    Invariant: ``_keys`` has the keys of exactly these entries, by region and id of their objects.
    """

    def __init__(self) -> None:
        most_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = IDLE if most_files == resource.RLIM_INFINITY else min(IDLE, most_files // 4)
        self._most, self._memory_of_one = most, IDLE_MEMORY // most
        self._entries: OrderedDict[bytes, tuple[CacheEntry, int]] = OrderedDict()
        self._count = 0
        self._keys: defaultdict[tuple[str, str], set[bytes]] = defaultdict(set)

    def put(self, entry: CacheEntry) -> None:
        """Add an entry that has no user; close those used longest ago if these are too many."""
        self.close(entry.key)
        counts = 1 + entry.size // IDLE_BYTES + entry.memory_bytes // self._memory_of_one
        self._entries[entry.key] = entry, counts
        self._keys[entry.row.region, entry.row.id].add(entry.key)
        self._count += counts
        while self._count > self._most and len(self._entries) > 1:
            self.close(next(iter(self._entries)))

    def get(self, key: bytes) -> CacheEntry | None:
        """Return the entry with this key; None if there is none."""
        found = self._entries.get(key)
        return found[0] if found else None

    def take(self, key: bytes) -> CacheEntry | None:
        """Return the entry with this key, which is then none of these; None if there is none."""
        found = self._entries.pop(key, None)
        if found is None:
            return None
        entry, counts = found
        self._count -= counts
        keys = self._keys[entry.row.region, entry.row.id]
        keys.discard(key)
        if not keys:
            del self._keys[entry.row.region, entry.row.id]
        return entry

    def close(self, key: bytes) -> None:
        """Close the entry with this key, if there is one."""
        entry = self.take(key)
        if entry is not None:
            entry.close()

    def close_all(self) -> None:
        """Close all of them."""
        for key in list(self._entries):
            self.close(key)

    def of(self, region: str, id: str) -> list[CacheEntry]:
        """Return the entries of an object; the others are not looked at."""
        return [self._entries[key][0] for key in self._keys.get((region, id), ())]
