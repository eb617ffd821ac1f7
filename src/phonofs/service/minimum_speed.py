"""Whether a body comes fast enough to go on waiting for it. Pure."""

LEAST_BYTES_S = 1024
"""A tenth of what the poorest recording plays at (8 kB/s): below it, waiting leads nowhere."""


class MinimumSpeed:
    """Counts bytes against the time spent waiting for them, in windows of ``window_s``.

    A byte every few seconds never meets a timeout between bytes, so it is the speed that counts.
    Only waiting counts: a reader that pauses does not make the service slow. Owns the present
    window: what came in it, and how long was waited for it.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._waited_s = 0.0
        self._bytes = 0

    def too_slow(self, waited_s: float, size: int) -> bool:
        """Count one chunk of ``size`` bytes that was waited for; True when it is to be given up."""
        self._waited_s += waited_s
        self._bytes += size
        if self._waited_s < self._window_s:
            return False
        slow = self._bytes < LEAST_BYTES_S * self._waited_s
        self._waited_s, self._bytes = 0.0, 0
        return slow
