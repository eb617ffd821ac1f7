"""What could not be read just now, so that the kernel's second try is not a second deadline.

Pure. Where a read of the page cache's read-ahead fails, the kernel asks once more for the page
that the caller needs (filemap_read in mm/filemap.c), and each reader of that page does so after
the other. All of them have waited for the first answer, and get it.
"""

from phonofs.errors import Unavailable

FRESH_S = 1.0
"""The kernel asks again at once, but with 200 readers the last of them asks 0.3 s later."""


class RecentErrors:
    """Reads that failed for want of the service, by inode. Owns them until they are not fresh."""

    def __init__(self) -> None:
        self._failed: dict[int, list[tuple[float, int, int, Unavailable]]] = {}

    def note(self, ino: int, start: int, stop: int, error: Unavailable, now: float) -> None:
        """``[start, stop)`` of a file could not be read; ``now`` in seconds, monotonic."""
        self._forget(now)
        self._failed.setdefault(ino, []).append((now + FRESH_S, start, stop, error))

    def check(self, ino: int, start: int, stop: int, now: float) -> None:
        """Raise the error again where bytes of this read have just failed."""
        if not self._failed:
            return
        for until, first, last, error in self._failed.get(ino, ()):
            if now < until and first < stop and start < last:
                raise error.with_traceback(None)

    def _forget(self, now: float) -> None:
        for ino, failures in list(self._failed.items()):
            if failures[-1][0] <= now:
                del self._failed[ino]
            elif failures[0][0] <= now:
                self._failed[ino] = [failure for failure in failures if failure[0] > now]
