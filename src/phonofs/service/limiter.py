"""Limits how many requests run at a time, and enforces the pauses that the service asks for.

Used by :class:`phonofs.service.session.Transport`, on the event loop only. A request acquires a
permit before it is sent and releases it when its body is closed. Acquiring may wait; releasing
never does. httpx's pool deadlocks if requests are cancelled while others wait for a connection
(httpcore #1093); because of the permits no request ever waits there.
"""

import random
from bisect import insort
from collections.abc import Callable, Hashable

import trio

from phonofs.priority import Place, Priority

FIRST: Place = (float("-inf"), 0)

KEPT_FREE = 2
"""Permits that background requests leave to the requests that a reader waits for."""


class Permit:
    """Permission to send one request: waited for, then held until :meth:`release`.

    ``urgent`` says what the limiter counts it as: a reader waits for the request, or it runs in
    the background. A background permit is promoted when its priority rises. Permits that wait
    are ordered by their place, but background permits of a priority that is ``last`` come last.

    A holder that can do without it says so with :meth:`on_want`. It is then told to give it back
    when another request waits for a permit: while it is ``idle``, because its request is paused;
    and if a reader waits for the other request but not for this one.
    """

    __slots__ = ("_give_up", "_granted", "_limiter", "_place", "_priority", "_released",
                 "idle", "urgent")  # fmt: skip

    def __init__(self, limiter: "PriorityLimiter", place: Place, priority: bool | Priority) -> None:
        self.urgent = bool(priority)
        self._limiter = limiter
        self._place = place
        self._granted = trio.Event()
        self._give_up: Callable[[], None] | None = None
        self._released = False
        self.idle = False
        self._priority = priority if isinstance(priority, Priority) else None
        if self._priority is not None and not self.urgent:
            self._priority.on_rise(self._rise)

    def __lt__(self, other: "Permit") -> bool:
        return (self._is_last, self._place) < (other._is_last, other._place)

    @property
    def _is_last(self) -> bool:
        return not self.urgent and self._priority is not None and self._priority.last

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

    def on_want(self, give_up: Callable[[], None] | None) -> None:
        """Set what is called, once, if another request needs the permit more; None: nothing."""
        if not self._released:
            self._give_up = give_up
            self._limiter.hold_loosely(self, give_up is not None)

    def pause(self) -> None:
        """Its request is paused."""
        self.idle = True
        self._limiter.reclaim()

    def resume(self) -> None:
        """Its request goes on."""
        self.idle = False

    @property
    def awaited(self) -> bool:
        """Whether a reader waits for its request, or did."""
        return self.urgent if self._priority is None else bool(self._priority)

    @property
    def wanted(self) -> bool:
        """Whether a request that a reader waits for waits for a permit."""
        return self._limiter.urgent_waiting

    def give_up(self) -> None:
        """Have its holder give it back."""
        if self._give_up is not None:
            self._give_up()

    def release(self) -> None:
        """Give it back, or stop waiting for it. To be called once."""
        if self._priority is not None:
            self._priority.on_rise(None)
        self._released = True
        self._limiter.give_back(self)

    def _rise(self) -> None:
        if self.granted:
            self.urgent = self._limiter.promote_held()
        else:
            self._limiter.withdraw(self)
            self.urgent = True
            self._limiter.enqueue_urgent(self)


class PriorityLimiter:
    """At most ``total`` requests at a time, of which at most ``ahead`` are background requests.

    ::

        permit = await limiter.acquire(priority)
        try:
            ...  # send the request, receive the response
        finally:
            permit.release()

    Owns the counts and the waiting permits. Invariants: ``0 <= in_use <= total``; ``0 <=
    ahead_in_use <= min(in_use, ahead)``; no permit waits while it could be granted, but for one
    checkpoint. Urgent requests go first; requests of the same kind go by their places: in the
    order in which they came, or were planned. A waiting request that becomes urgent keeps its
    place.

    ``_loose`` has the permits whose holders can do without them; ``_leaving`` those that were
    told to give theirs back, never more than requests wait.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.ahead = max(1, total - KEPT_FREE)
        self.in_use = 0
        self.ahead_in_use = 0
        self._came = 0
        self._urgent_queue: list[Permit] = []
        self._ahead_queue: list[Permit] = []
        self._loose: dict[Permit, None] = {}
        self._leaving: set[Permit] = set()

    async def acquire(self, priority: bool | Priority, *, first: bool = False) -> Permit:
        """Wait for a permit. A checkpoint; if it is cancelled, nothing stays acquired.

        A permit acquired with a :class:`Priority` is promoted when that rises, whether it still
        waits or is in use. ``first`` puts a request before all others that wait.
        """
        self._came += 1
        place = priority.place if isinstance(priority, Priority) else None
        place = FIRST if first else place or (trio.current_time(), self._came)
        permit = Permit(self, place, priority)
        try:
            if permit.urgent:
                self.enqueue_urgent(permit)
            else:
                insort(self._ahead_queue, permit)
                await trio.lowlevel.checkpoint()  # those planned before may come after it
                self._grant_waiting()
                self.reclaim()
            await permit.wait()
        except BaseException:
            permit.release()
            raise
        return permit

    def enqueue_urgent(self, permit: Permit) -> None:
        """Let an urgent permit wait for its turn; it is granted at once if it can be."""
        insort(self._urgent_queue, permit)
        self._grant_urgent()
        self.reclaim()

    def hold_loosely(self, permit: Permit, loosely: bool) -> None:
        """Note whether the holder of a permit can do without it."""
        self._loose.pop(permit, None)
        if loosely:
            self._loose[permit] = None
            self.reclaim()

    @property
    def urgent_waiting(self) -> bool:
        """Whether a request that a reader waits for waits for a permit."""
        return bool(self._urgent_queue)

    def reclaim(self) -> None:
        """Have permits given back for the requests that wait, if any holder can do without one."""
        while (permit := self._dispensable()) is not None:
            del self._loose[permit]
            self._leaving.add(permit)
            permit.give_up()

    def _dispensable(self) -> Permit | None:
        """The permit to give back next: a paused one, else for an urgent request a background one.

        A background request is not helped by an urgent permit while too many of its own kind run.
        """
        urgent, ahead = len(self._urgent_queue), len(self._ahead_queue)
        may_go_ahead = self.in_use < self.total and self.ahead_in_use < self.ahead
        if may_go_ahead or len(self._leaving) >= urgent + ahead:
            return None  # who still waits is about to be granted a permit
        any_helps = len(self._leaving) < urgent or self.ahead_in_use < self.ahead
        for permit in self._loose:
            if permit.idle and (any_helps or not permit.urgent):
                return permit
        if len(self._leaving) < urgent:
            return next((permit for permit in reversed(self._loose) if not permit.awaited), None)
        return None

    def withdraw(self, permit: Permit) -> None:
        """Take a waiting permit out of its queue."""
        self._queue(permit.urgent).remove(permit)

    def give_back(self, permit: Permit) -> None:
        """Take a permit out of the count, or out of its queue, and grant what can be granted."""
        if not permit.granted:
            self.withdraw(permit)
            return
        self._loose.pop(permit, None)
        self._leaving.discard(permit)
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

    def _grant_urgent(self) -> None:
        queue = self._urgent_queue
        while queue and self.in_use < self.total:
            self.in_use += 1
            queue.pop(0).grant()

    def _grant_waiting(self) -> None:
        self._grant_urgent()
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
