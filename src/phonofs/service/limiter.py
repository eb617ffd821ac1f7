"""Limits how many requests run at a time, and how often they are sent.

Used by :class:`phonofs.service.session.Transport`, on the event loop only. A request acquires a
permit before it is sent and releases it when its body is closed. Acquiring may wait; releasing
never does. httpx's pool deadlocks if requests are cancelled while others wait for a connection
(httpcore #1093); because of the permits no request ever waits there.
"""

from bisect import insort
from collections.abc import Callable
from math import inf

import trio

from phonofs.priority import Place, Priority
from phonofs.service.rate_limit import RateLimit
from phonofs.units import Rate

FIRST: Place = (-inf, 0)

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

    A ``metered`` permit is charged to the rate when it is granted. If it is released without
    having been used, ``refund`` says by how much it was charged.

    granted   whether the limiter counts it among those in use
    """

    __slots__ = ("_alarm", "_alarm_at", "_event", "_give_up", "_limiter", "_place", "_priority",
                 "_released", "granted", "idle", "metered", "refund", "urgent")  # fmt: skip

    def __init__(
        self,
        limiter: "PriorityLimiter",
        place: Place,
        priority: bool | Priority,
        *,
        metered: bool = False,
    ) -> None:
        self.urgent = bool(priority)
        self.metered = metered
        self._alarm: trio.CancelScope | None = None
        self._alarm_at = inf
        self.refund = 0.0
        self._limiter = limiter
        self._place = place
        self.granted = False
        self._event = trio.Event()
        self._give_up: Callable[[], None] | None = None
        self._released = False
        self.idle = False
        self._priority = priority if isinstance(priority, Priority) else None
        if self._priority is not None and not self.urgent:
            if self._priority.due and limiter.rate.limited:
                self.urgent = True
            else:
                self._priority.on_rise(self._rise)

    def __lt__(self, other: "Permit") -> bool:
        return (self._is_last, self._place) < (other._is_last, other._place)

    @property
    def _is_last(self) -> bool:
        return not self.urgent and self._priority is not None and self._priority.last

    def grant(self) -> None:
        """End the wait for it."""
        self.granted = True
        self._event.set()

    async def wait(self) -> None:
        """Wait until it is granted, or woken up by :meth:`wake_at`. A checkpoint."""
        if self._alarm_at == inf:
            await self._event.wait()
        else:
            with trio.CancelScope(deadline=self._alarm_at) as self._alarm:
                await self._event.wait()
            self._alarm = None
        if not self.granted:
            self._event = trio.Event()

    def wake_at(self, at: float) -> None:
        """Set the time (trio's clock) until which :meth:`wait` waits at most.

        If it waits without such a time, it is woken up once, to wait with one: most waits end
        without, and to be ready for it would take longer than all the rest of them.
        """
        without = self._alarm_at == inf
        self._alarm_at = at
        if self._alarm is not None:
            self._alarm.deadline = at
        elif without:
            self._event.set()

    def charge(self, interval_s: float) -> None:
        """It is charged to the rate."""
        self.refund = interval_s

    def use(self, now: float) -> None:
        """Its request is sent now."""
        self.refund = 0.0
        if self.metered:
            self._limiter.rate.sent(now)

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
        """Whether a request that a reader waits for would be sent if it had the permit."""
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

    Those that are ``metered`` are sent no more often than the ``rate`` allows.

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
    place. While a metered urgent request waits for the rate, no metered background request goes.

    ``_loose`` has the permits whose holders can do without them; ``_leaving`` those that were
    told to give theirs back, never more than requests wait. ``_timekeeper`` is the one waiting
    permit whose task wakes up when the rate allows the next request: only one does.
    """

    def __init__(self, total: int, rate: Rate | None = None) -> None:
        self.total = total
        self.rate = RateLimit(rate, fast_per_s=total)
        self.ahead = max(1, total - KEPT_FREE)
        self.in_use = 0
        self.ahead_in_use = 0
        self._came = 0
        self._urgent_queue: list[Permit] = []
        self._ahead_queue: list[Permit] = []
        self._loose: dict[Permit, None] = {}
        self._leaving: set[Permit] = set()
        self._timekeeper: Permit | None = None

    async def acquire(
        self, priority: bool | Priority, *, first: bool = False, metered: bool = False
    ) -> Permit:
        """Wait for a permit. A checkpoint; if it is cancelled, nothing stays acquired.

        A permit acquired with a :class:`Priority` is promoted when that rises, whether it still
        waits or is in use. ``first`` puts a request before all others that wait.
        """
        self._came += 1
        place = priority.place if isinstance(priority, Priority) else None
        place = FIRST if first else place or (trio.current_time(), self._came)
        permit = Permit(self, place, priority, metered=metered)
        try:
            if permit.urgent:
                self.enqueue_urgent(permit)
            else:
                insort(self._ahead_queue, permit)
                await trio.lowlevel.checkpoint()  # those planned before may come after it
                self._grant_waiting()
                self.reclaim()
            await permit.wait()
            while not permit.granted:
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
        if self.rate.limited:
            self._set_alarm()
        self.reclaim()

    def hold_loosely(self, permit: Permit, loosely: bool) -> None:
        """Note whether the holder of a permit can do without it."""
        self._loose.pop(permit, None)
        if loosely:
            self._loose[permit] = None
            self.reclaim()

    @property
    def urgent_waiting(self) -> bool:
        """Whether a request that a reader waits for waits for a permit, and not for the rate."""
        return bool(self._urgent_queue) and self._sendable(urgent=True) > 0

    def set_rate(self, rate: Rate | None) -> None:
        """Allow another rate from now on."""
        self.rate.set_most(rate, trio.current_time())
        self._grant_waiting()
        self.reclaim()

    def note_429(self, sent_at: float, until: float) -> float | None:
        """A metered request was answered with 429; it was sent at ``sent_at``.

        Until the end of the pause that it asks for (trio's clock), nothing metered is granted.
        Return the new rate, in requests a second; None if it stays as it was.
        """
        per_s = self.rate.note_429(sent_at, until, trio.current_time())
        self._set_alarm()
        return per_s

    def reclaim(self) -> None:
        """Have permits given back for the requests that wait, if any holder can do without one."""
        while self._loose and (permit := self._dispensable()) is not None:
            del self._loose[permit]
            self._leaving.add(permit)
            permit.give_up()

    def _dispensable(self) -> Permit | None:
        """The permit to give back next: a paused one, else for an urgent request a background one.

        A background request is not helped by an urgent permit while too many of its own kind run.
        """
        urgent, ahead = self._sendable(urgent=True), self._sendable(urgent=False)
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
            self._grant_waiting()
            return
        if permit.refund:
            self.rate.put_back(permit.refund)
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

    def rate_statistics(self) -> dict[str, float | int | None]:
        """As :meth:`RateLimit.statistics`, and how many requests wait for the rate."""
        now = trio.current_time()
        waiting = 0
        for urgent in (True, False):
            if self.rate.ready_at(now, urgent=urgent) > now and self.rate.limited:
                waiting += sum(permit.metered for permit in self._queue(urgent))
        return {**self.rate.statistics(now), "waiting": waiting}

    def _queue(self, urgent: bool) -> list[Permit]:
        return self._urgent_queue if urgent else self._ahead_queue

    def _grant_urgent(self) -> None:
        while self.in_use < self.total and (permit := self._next(urgent=True)):
            self.in_use += 1
            permit.grant()

    def _grant_waiting(self) -> None:
        self._grant_urgent()
        while (
            self.in_use < self.total
            and self.ahead_in_use < self.ahead
            and (permit := self._next(urgent=False))
        ):
            self.in_use += 1
            self.ahead_in_use += 1
            permit.grant()
        if self.rate.limited or self._timekeeper:
            self._set_alarm()

    def _next(self, *, urgent: bool) -> Permit | None:
        """Take the first permit out of a queue that the rate allows; None if there is none."""
        queue = self._queue(urgent)
        if not self.rate.limited:
            return queue.pop(0) if queue else None
        now = trio.current_time()
        ready = self.rate.ready_at(now, urgent=urgent) <= now
        for index, permit in enumerate(queue):
            if ready and permit.metered:
                permit.charge(self.rate.take(now))
            if ready or not permit.metered:
                return queue.pop(index)
        return None

    def _sendable(self, *, urgent: bool) -> int:
        """Return how many waiting requests would be sent if they had a permit."""
        queue = self._queue(urgent)
        if not queue or not self.rate.limited:
            return len(queue)
        now = trio.current_time()
        metered = sum(permit.metered for permit in queue)
        allowed = self.rate.ready_at(now, urgent=urgent) <= now
        return len(queue) - metered + (allowed and metered > 0)

    def _set_alarm(self) -> None:
        """Have the task of one waiting permit wake up when the rate allows the next request."""
        at = self._next_at() if self.rate.limited else inf
        keeper = next(iter(self._urgent_queue or self._ahead_queue), None) if at < inf else None
        if self._timekeeper is not None and self._timekeeper is not keeper:
            self._timekeeper.wake_at(inf)
        if keeper is not None:
            keeper.wake_at(at)
        self._timekeeper = keeper

    def _next_at(self) -> float:
        """Return when the rate allows the next request; infinity if none waits for the rate.

        That time may have come already, if the one whose task was to wake up was cancelled.
        """
        for urgent in (True, False):
            if any(permit.metered for permit in self._queue(urgent)):
                now = trio.current_time()
                at = self.rate.ready_at(now, urgent=urgent)
                free = self.in_use < self.total and (urgent or self.ahead_in_use < self.ahead)
                return at if at > now or free else inf  # else it waits for a permit
        return inf
