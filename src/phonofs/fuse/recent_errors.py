"""Remembers reads that have just failed, so that the kernel's retry does not wait a second time.

Pure. If a read of the kernel's read-ahead fails, the kernel requests the page that the caller
needs once more (filemap_read in mm/filemap.c), and it does so for each reader of that page, one
after the other. All of them have waited for the first answer, so they get the same error.
"""

from phonofs.errors import Unavailable

FRESH_S = 1.0
"""How long an error is repeated. The kernel retries at once, but with 200 readers the last retry
comes 0.3 s later."""


class RecentErrors:
    """Reads that failed because the service is unavailable, by inode. Owns them for ``FRESH_S``."""

    def __init__(self) -> None:
        self._failed: dict[int, list[tuple[float, int, int, Unavailable]]] = {}

    def note(self, ino: int, start: int, stop: int, error: Unavailable, now: float) -> None:
        """Record a failed read of ``[start, stop)`` of a file; ``now`` in seconds, monotonic."""
        self._forget(now)
        self._failed.setdefault(ino, []).append((now + FRESH_S, start, stop, error))

    def check(self, ino: int, start: int, stop: int, now: float) -> None:
        """Raise the error again if a read of any of these bytes has just failed."""
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
