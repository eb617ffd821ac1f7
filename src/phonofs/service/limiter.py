"""Limits how many requests run at a time, and enforces the pauses that the service asks for.

Used by :class:`phonofs.service.session.Transport`, on the event loop only. A request acquires a
permit before it is sent and releases it when its body is closed. Acquiring may wait; releasing
never does. httpx's pool deadlocks if requests are cancelled while others wait for a connection
(httpcore #1093); because of the permits no request ever waits there.
"""

import random
from bisect import insort
from collections.abc import Hashable

import trio

from phonofs.priority import Priority

KEPT_FREE = 2
"""Permits that background requests leave to the requests that a reader waits for."""


class Permit:
    """Permission to send one request: waited for, then held until :meth:`release`.

    ``urgent`` says what the limiter counts it as: a reader waits for the request, or it runs in
    the background. A background permit is promoted when its priority rises. Permits that wait
    are ordered by ``number``, but those of an idle priority come after all others.
    """

    __slots__ = ("_granted", "_limiter", "_order", "_priority", "urgent")

    def __init__(self, limiter: "PriorityLimiter", number: int, priority: bool | Priority) -> None:
        self.urgent = bool(priority)
        self._limiter = limiter
        self._granted = trio.Event()
        self._priority = priority if isinstance(priority, Priority) else None
        idle = self._priority is not None and self._priority.idle and not self.urgent
        self._order = (idle, number)
        if self._priority is not None and not self.urgent:
            self._priority.on_rise(self._rise)

    def __lt__(self, other: "Permit") -> bool:
        return self._order < other._order

    @property
    def granted(self) -> bool:
        """Whether the limiter counts it among those in use."""
        return self._granted.is_set()

    def grant(self) -> None:
        """End the wait for it."""
        self._granted.set()

    async def wait(self) -> None:
        """Wait until it is granted. A checkpoint."""
        await self._granted.wait()

    def release(self) -> None:
        """Give it back, or stop waiting for it. To be called once."""
        if self._priority is not None:
            self._priority.on_rise(None)
        self._limiter.give_back(self)

    def _rise(self) -> None:
        if self.granted:
            self.urgent = self._limiter.promote_held()
        else:
            self._limiter.withdraw(self)
            self.urgent = True
            self._order = (False, self._order[1])
            self._limiter.enqueue(self)


class PriorityLimiter:
    """At most ``total`` requests at a time, of which at most ``ahead`` are background requests.

    ::

        permit = await limiter.acquire(priority)
        try:
            ...  # send the request, receive the response
        finally:
            permit.release()

    Owns the counts and the waiting permits. Invariants: ``0 <= in_use <= total``; ``0 <=
    ahead_in_use <= min(in_use, ahead)``; no permit waits while it could be granted. Urgent
    requests go first, idle ones last; requests of the same kind go in the order in which they
    came. A waiting request that becomes urgent takes its place among the urgent ones by the time it
    came.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.ahead = max(1, total - KEPT_FREE)
        self.in_use = 0
        self.ahead_in_use = 0
        self._came = 0
        self._urgent_queue: list[Permit] = []
        self._ahead_queue: list[Permit] = []

    async def acquire(self, priority: bool | Priority, *, first: bool = False) -> Permit:
        """Wait for a permit. A checkpoint; if it is cancelled, nothing stays acquired.

        A permit acquired with a :class:`Priority` is promoted when that rises, whether it still
        waits or is in use. ``first`` puts a request before all others that wait.
        """
        self._came += 1
        permit = Permit(self, 0 if first else self._came, priority)
        self.enqueue(permit)
        try:
            await permit.wait()
        except BaseException:
            permit.release()
            raise
        return permit

    def enqueue(self, permit: Permit) -> None:
        """Let a permit wait for its turn; it is granted at once if it can be."""
        insort(self._queue(permit.urgent), permit)
        self._grant_waiting()

    def withdraw(self, permit: Permit) -> None:
        """Take a waiting permit out of its queue."""
        self._queue(permit.urgent).remove(permit)

    def give_back(self, permit: Permit) -> None:
        """Take a permit out of the count, or out of its queue, and grant what can be granted."""
        if not permit.granted:
            self.withdraw(permit)
            return
        self.in_use -= 1
        self.ahead_in_use -= not permit.urgent
        assert 0 <= self.ahead_in_use <= self.in_use
        self._grant_waiting()

    def promote_held(self) -> bool:
        """Count a background permit in use as urgent; return whether that was possible.

        Another background request may then start. So it is done only if one permit stays free
        for the next urgent request.
        """
        if self.in_use + 1 >= self.total:
            return False
        self.ahead_in_use -= 1
        self._grant_waiting()
        return True

    def statistics(self) -> dict[str, int]:
        """Permits in all, in use, in use by background requests; requests that wait."""
        waiting = len(self._urgent_queue) + len(self._ahead_queue)
        return {
            "total": self.total,
            "in_use": self.in_use,
            "ahead_in_use": self.ahead_in_use,
            "waiting": waiting,
        }

    def _queue(self, urgent: bool) -> list[Permit]:
        return self._urgent_queue if urgent else self._ahead_queue

    def _grant_waiting(self) -> None:
        queue = self._urgent_queue
        while queue and self.in_use < self.total:
            self.in_use += 1
            queue.pop(0).grant()
        queue = self._ahead_queue
        while queue and self.in_use < self.total and self.ahead_in_use < self.ahead:
            self.in_use += 1
            self.ahead_in_use += 1
            queue.pop(0).grant()


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

    def closed_s(self, key: Hashable) -> float:
        """Seconds until the gate of ``key`` opens; 0 if it is open."""
        until, _ = self._pauses.get(key, (0.0, 0.0))
        return max(0.0, until - trio.current_time())

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
