"""The budget of the cache: the hard cap, and the disk that is always left free."""

from collections.abc import Callable

STEP = 64 << 20
"""Bytes granted at once, so that the cap and the free disk are looked at once in that many."""


class Room:
    """What the content on disk may cost. Sole owner of ``used`` and of the grant.

    used   bytes charged to what is on disk, in whole pages
    spare  bytes granted for what is going to be written, looked after but not yet charged

    Invariant: after a :meth:`take` that said yes, ``used + spare <= cap``: room is made before
    writing. ``used`` alone may be above the cap when the cap was made smaller between two runs;
    then nothing is granted until enough was evicted.

    ``free_bytes()`` is what the disk has left, ``evict(n)`` throws out unused objects of at
    least ``n`` bytes in all if it can, calling :meth:`give` for each.
    """

    def __init__(
        self,
        cap: int,
        min_free: int,
        *,
        used: int = 0,
        free_bytes: Callable[[], int],
        evict: Callable[[int], object],
    ) -> None:
        self.cap = cap
        self.min_free = min_free
        self.used = used
        self.spare = 0
        self.headroom = min(4 * STEP, cap // 16)
        self._step = max(1, min(STEP, cap // 16))
        self._free_bytes = free_bytes
        self._evict = evict

    @property
    def left(self) -> int:
        """Bytes that may still be written before something has to be evicted (or less than 0)."""
        return self.cap - self.used

    def take(self, n: int) -> bool:
        """Charge ``n`` bytes that are about to be written; False where there is no room."""
        if n > self.spare and not self._grant(n):
            return False
        self.spare -= n
        self.used += n
        return True

    def give(self, n: int) -> None:
        """``n`` charged bytes are no longer on disk."""
        self.used -= n

    def withdraw(self) -> None:
        """Take the grant back, so that the next write looks at the disk again."""
        self.spare = 0

    def lacking(self) -> int:
        """Bytes to evict so that writing need not wait for it: headroom and free disk."""
        short_of_cap = self.headroom - self.left
        short_of_disk = self.min_free + self._step - self._free_bytes()
        return max(0, short_of_cap, min(short_of_disk, self.used))

    def _grant(self, n: int) -> bool:
        self.spare = 0
        if n > self.cap:
            return False
        want = max(n, self._step)
        if self._open() < want:
            self._evict(want - self._open())
        grant = min(want, self._open())
        if grant < n:
            return False
        self.spare = grant
        return True

    def _open(self) -> int:
        """What both limits leave, at this moment."""
        return min(self.left, self._free_bytes() - self.min_free)
