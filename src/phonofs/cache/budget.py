"""The disk budget of the cache: the hard cap, and the free space that always remains. Pure.

Used by the cache's entries, which reserve space before they write, and by eviction.
"""

from collections.abc import Callable

STEP = 64 << 20
"""Bytes per grant: the cap and the free space are checked once per grant, not once per write."""


class DiskBudget:
    """Limits the disk space of the content. Only this class changes ``used`` and ``granted``.

    used     bytes charged to what is on disk, in whole pages
    granted  bytes that may be written without checking the limits again, not yet charged

    Invariant: after :meth:`reserve` returned True, ``used + granted <= cap``. ``used`` alone can
    exceed the cap if the cap was lowered between two mounts; then nothing is granted until enough
    was evicted.

    ``free_bytes()`` returns the free space of the file system. ``evict(n)`` removes unused objects
    of at least ``n`` bytes in all, if it can, and calls :meth:`release` for them.
    """

    def __init__(
        self,
        cap: int,
        min_free: int,
        *,
        free_bytes: Callable[[], int],
        evict: Callable[[int], object],
    ) -> None:
        self.cap = cap
        self.min_free = min_free
        self.used = 0
        self.granted = 0
        self.headroom = min(4 * STEP, cap // 16)
        self._step = max(1, min(STEP, cap // 16))
        self._free_bytes = free_bytes
        self._evict = evict

    @property
    def left(self) -> int:
        """Bytes until ``used`` reaches the cap; negative above the cap."""
        return self.cap - self.used

    def reserve(self, n: int) -> bool:
        """Charge ``n`` bytes that are about to be written; return False if they do not fit."""
        if n > self.granted and not self._grant(n):
            return False
        self.granted -= n
        self.used += n
        return True

    def release(self, n: int) -> None:
        """Subtract ``n`` bytes from ``used``: they are no longer on disk."""
        self.used -= n

    def recount(self, used: int) -> None:
        """Set ``used``; the next write checks both limits again."""
        self.used = used
        self.granted = 0

    def deficit(self) -> int:
        """Return how many bytes to evict so that a write need not wait for eviction.

        On a nearly full disk the headroom is a fraction of the cached bytes, so that not
        everything is evicted for it.
        """
        short_of_cap = self.headroom - self.left
        short_of_disk = self.min_free + min(self._step, self.used // 16) - self._free_bytes()
        return max(0, short_of_cap, min(short_of_disk, self.used))

    def _grant(self, n: int) -> bool:
        self.granted = 0
        if n > self.cap:
            return False
        want = max(n, self._step)
        if self._available() < want:
            self._evict(want - self._available())
        grant = min(want, self._available())
        if grant < n:
            return False
        self.granted = grant
        return True

    def _available(self) -> int:
        return min(self.left, self._free_bytes() - self.min_free)
