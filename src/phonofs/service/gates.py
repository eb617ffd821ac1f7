"""Enforces the pauses that the service and object stores ask for.

Used by :class:`phonofs.service.session.Transport`, on the event loop only.
"""

import random
from collections.abc import Hashable
from math import inf

import trio


class Gates:
    """Holds requests back during pauses that the service asked for (``Retry-After``).

    Each ``key`` has its own pause, so that the one of an origin delays no other. Owns the pauses
    under way: the end (trio's clock) and the length of each.
    """

    SPREAD = 0.1
    """Waiting requests continue spread over this share of the pause, not all at once."""

    def __init__(self) -> None:
        self._pauses: dict[Hashable, tuple[float, float]] = {}

    def close(self, key: Hashable, pause_s: float) -> None:
        """Let no request of ``key`` pass for ``pause_s`` seconds from now.

        A later, shorter pause does not end it earlier.
        """
        now = trio.current_time()
        self._pauses = {each: pause for each, pause in self._pauses.items() if pause[0] > now}
        pause = now + pause_s, pause_s
        self._pauses[key] = max(pause, self._pauses.get(key, pause))

    def opens_at(self, key: Hashable) -> float:
        """When the gate of ``key`` opens (trio's clock), or when it opened."""
        return self._pauses.get(key, (-inf, 0.0))[0]

    def closed_s(self, key: Hashable) -> float:
        """Seconds until the gate of ``key`` opens; 0 if it is open."""
        return max(0.0, self.opens_at(key) - trio.current_time())

    @property
    def longest_s(self) -> float:
        """Seconds until the last closed gate opens."""
        return max(map(self.closed_s, self._pauses), default=0.0)

    async def passed(self, key: Hashable) -> None:
        """Wait until the gate of ``key`` is open. A checkpoint only if it is closed."""
        while (closed_s := self.closed_s(key)) > 0:
            _, length_s = self._pauses[key]
            spread_s = min(1.0, length_s * self.SPREAD) * random.random()  # noqa: S311
            await trio.sleep(closed_s + spread_s)
