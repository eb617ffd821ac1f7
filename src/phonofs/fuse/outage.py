"""Logs an outage of the service once, however many operations fail in it. Pure."""

from phonofs.errors import Unavailable


class OutageLog:
    """Counts the operations that failed in the present outage.

    ``failed`` and ``worked`` return the line to log, or None.
    """

    def __init__(self) -> None:
        self._failures = 0

    def failed(self, error: Unavailable) -> str | None:
        """Count an operation that failed because the service is unavailable."""
        self._failures += 1
        if self._failures > 1:
            return None
        return f"{error}; what is cached goes on working, further failures are counted"

    def worked(self) -> str | None:
        """Note that an operation that needed the service succeeded."""
        failures, self._failures = self._failures, 0
        if not failures:
            return None
        return f"the service answers again; {failures} operations had failed"

    @property
    def failures(self) -> int:
        """How many operations failed in the present outage, 0 if there is none."""
        return self._failures
