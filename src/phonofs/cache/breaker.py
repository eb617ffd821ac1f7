"""When a failing disk is left alone, and when it is tried again. Pure."""

import errno

AT_ONCE = frozenset({errno.EROFS, errno.EIO, errno.ENOTDIR, errno.ESTALE, errno.ENODEV})
"""Failures that the next try will meet too: the cache goes off at the first of them."""

TRIES = 3
"""Failures of any other kind (a full disk, a quota, no descriptors) within a pause it takes."""

PAUSE_S = 60.0
"""How long a cache that went off stays off before it is tried again."""


class CircuitBreaker:
    """Whether the disk is used for new content. Sole owner of that decision.

    reason   why it is not, a few words for a person; empty while it is
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
        """Count a failure at ``now`` (seconds, monotonic); True when it turned the cache off.

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
        """A try succeeded: the disk is used again."""
        self._recent = 0
        self.reason = ""

    def still_bad(self, error: Exception, now: float) -> None:
        """A try failed: the next one comes a pause later."""
        self.failures += 1
        self.reason = describe(error)
        self._retry_at = now + PAUSE_S

    def due(self, now: float) -> bool:
        """Whether it is time to try a cache that is off."""
        return not self.on and now >= self._retry_at


def describe(error: Exception) -> str:
    """The failure in a few words, without a path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
