"""Decides when a failing disk is no longer used, and when it is tried again. Pure."""

import errno

AT_ONCE = frozenset({errno.EROFS, errno.EIO, errno.ENOTDIR, errno.ESTALE, errno.ENODEV})
"""Errors that the next try would meet too: the first of them turns the cache off."""

TRIES = 3
"""Other failures (a full disk, a quota, no descriptors) that turn the cache off, if each comes
within PAUSE_S of the one before."""

PAUSE_S = 60.0
"""How long the cache stays off before it is tried again."""


class CircuitBreaker:
    """Decides whether the disk is used for new content; nothing else does.

    reason    why the disk is not used, a few words for the user; empty while it is used
    failures  failures in all
    """

    def __init__(self) -> None:
        self.reason = ""
        self.failures = 0
        self._recent = 0
        self._last = -PAUSE_S
        self._retry_at = 0.0

    @property
    def on(self) -> bool:
        """Whether new content goes to disk."""
        return not self.reason

    def failed(self, error: Exception, now: float, *, at_once: bool = False) -> bool:
        """Count a failure at ``now`` (seconds, monotonic); return whether it turned the cache off.

        ``at_once``: the next try is known to fail too.
        """
        self.failures += 1
        self._recent = self._recent + 1 if now - self._last < PAUSE_S else 1
        self._last = now
        code = error.errno if isinstance(error, OSError) else None
        at_once = at_once or code in AT_ONCE
        if not self.on or (self._recent < TRIES and not at_once):
            return False
        self.reason = describe(error)
        self._retry_at = now + PAUSE_S
        return True

    def worked(self) -> None:
        """Note that a try succeeded: the disk is used again."""
        self._recent = 0
        self.reason = ""

    def still_bad(self, error: Exception, now: float) -> None:
        """Note that a try failed: the next one comes after PAUSE_S."""
        self.failures += 1
        self.reason = describe(error)
        self._retry_at = now + PAUSE_S

    def due(self, now: float) -> bool:
        """Return whether the cache is off and it is time to try it again."""
        return not self.on and now >= self._retry_at


def describe(error: Exception) -> str:
    """Return the failure in a few words, without a path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
