"""Limits the requests that run at a time, and keeps to the pauses that the service asks for.

Used by the transport, on the event loop only. httpx's pool jams for good when requests are
cancelled while it is contended (httpcore #1093); with a slot held until the body is closed it is
never contended. Taking a slot may wait, giving it back never does.
"""

import random
from bisect import insort
from collections.abc import Hashable

import trio

from phonofs.priority import Priority

KEPT_FREE = 2
"""Slots that requests nobody waits for leave to those somebody waits for."""


class _Waiter:
    """A request that waits for a slot: since when, as what, and whether it has one."""

    __slots__ = ("event", "number", "urgent")

    def __init__(self, number: int, urgent: bool) -> None:
        self.number = number
        self.urgent = urgent
        self.event = trio.Event()

    def __lt__(self, other: "_Waiter") -> bool:
        return self.number < other.number


class PriorityLimiter:
    """At most ``total`` requests at a time, of which at most ``ahead`` nobody waits for.

    Owns who holds and who waits. Invariants: ``0 <= in_use <= total``; ``0 <= ahead_in_use <=
    min(in_use, ahead)``; nobody waits while there is a slot they may have. Requests that a reader
    waits for go first, each kind in the order in which they came. A request that a reader begins
    to wait for while it waits itself changes over, and keeps its place by the time it came.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.ahead = max(1, total - KEPT_FREE)
        self.in_use = 0
        self.ahead_in_use = 0
        self._came = 0
        self._urgent_line: list[_Waiter] = []
        self._ahead_line: list[_Waiter] = []

    async def acquire(self, *, urgent: bool) -> None:
        """Wait for a slot and take it; a cancelled wait takes none. A checkpoint."""
        await self._acquire(urgent)

    async def _acquire(self, priority: bool | Priority, first: bool = False) -> bool:
        """As :meth:`acquire`; whether the slot counts as one that somebody waits for."""
        await trio.lowlevel.checkpoint_if_cancelled()
        urgent = bool(priority)
        if self._free(urgent=urgent):
            self._take(urgent=urgent)
            await self._checkpoint(urgent=urgent)
            return urgent
        self._came += 1
        waiter = _Waiter(0 if first else self._came, urgent)
        insort(self._line(urgent), waiter)
        if isinstance(priority, Priority) and not urgent:
            priority.on_rise = lambda: self._change_over(waiter)
        try:
            await waiter.event.wait()
        except BaseException:
            if waiter.event.is_set():
                self.release(urgent=waiter.urgent)
            else:
                self._line(waiter.urgent).remove(waiter)
            raise
        finally:
            if isinstance(priority, Priority):
                priority.on_rise = None
        return waiter.urgent

    def _line(self, urgent: bool) -> list[_Waiter]:
        return self._urgent_line if urgent else self._ahead_line

    def _change_over(self, waiter: _Waiter) -> None:
        """Somebody begins to wait for a request that waits for its slot, or has just got one."""
        if waiter.event.is_set():
            waiter.urgent = self.promote()
            return
        self._ahead_line.remove(waiter)
        waiter.urgent = True
        insort(self._urgent_line, waiter)
        self._hand_on()

    def release(self, *, urgent: bool) -> None:
        """Give a slot back, and hand it on."""
        self.in_use -= 1
        self.ahead_in_use -= not urgent
        assert 0 <= self.ahead_in_use <= self.in_use
        self._hand_on()

    def _hand_on(self) -> None:
        for line, urgent in ((self._urgent_line, True), (self._ahead_line, False)):
            while line and self._free(urgent=urgent):
                self._take(urgent=urgent)
                line.pop(0).event.set()

    async def take(self, urgent: bool | Priority, *, first: bool = False) -> "Permit":
        """The same as :meth:`acquire`, for a request that may become urgent at any time.

        ``first``: before all others, for what all others will need.
        """
        return Permit(self, urgent, await self._acquire(urgent, first))

    def promote(self) -> bool:
        """Have a slot that was taken ahead count as one that somebody waits for; whether it does.

        Another may go ahead in its place while that leaves a slot free for who comes next.
        """
        if self.in_use + 1 >= self.total:
            return False
        self.ahead_in_use -= 1
        self._hand_on()
        return True

    def statistics(self) -> dict[str, int]:
        """Slots in all, in use, in use ahead, and how many wait."""
        waiting = len(self._urgent_line) + len(self._ahead_line)
        return {
            "total": self.total,
            "in_use": self.in_use,
            "ahead_in_use": self.ahead_in_use,
            "waiting": waiting,
        }

    def _free(self, *, urgent: bool) -> bool:
        return self.in_use < self.total and (urgent or self.ahead_in_use < self.ahead)

    def _take(self, *, urgent: bool) -> None:
        self.in_use += 1
        self.ahead_in_use += not urgent

    async def _checkpoint(self, *, urgent: bool) -> None:
        try:
            await trio.lowlevel.checkpoint()
        except BaseException:
            self.release(urgent=urgent)
            raise


class Permit:
    """One slot that is held; given back once, by :meth:`release`."""

    __slots__ = ("_priority", "_slots", "urgent")

    def __init__(self, slots: PriorityLimiter, priority: bool | Priority, urgent: bool) -> None:
        self._slots = slots
        self._priority = priority if isinstance(priority, Priority) else None
        self.urgent = urgent
        if urgent or self._priority is None:
            return
        if self._priority:
            self._rise()
        else:
            self._priority.on_rise = self._rise

    def _rise(self) -> None:
        self.urgent = self._slots.promote()

    def release(self) -> None:
        """Give it back."""
        if self._priority is not None:
            self._priority.on_rise = None
        self._slots.release(urgent=self.urgent)


class Gate:
    """Closed while a pause lasts that the service asked for; requests pass it before they are sent.

    Owns until when (trio's clock). A later and shorter wish does not open it earlier.
    """

    SPREAD = 0.1
    """Share of the pause over which those who waited come back, so that they do not all at once."""

    def __init__(self) -> None:
        self._until = 0.0
        self._length_s = 0.0

    def close(self, pause_s: float) -> None:
        """Nothing passes for ``pause_s`` seconds from now."""
        until = trio.current_time() + pause_s
        if until > self._until:
            self._until, self._length_s = until, pause_s

    @property
    def closed_s(self) -> float:
        """For how many more seconds it is closed; 0 while it is open."""
        return max(0.0, self._until - trio.current_time())

    async def passed(self) -> None:
        """Wait until it is open; a checkpoint only when it is not."""
        while (closed_s := self.closed_s) > 0:
            spread_s = min(1.0, self._length_s * self.SPREAD) * random.random()  # noqa: S311
            await trio.sleep(closed_s + spread_s)


class Gates:
    """A gate for each ``key``, so that one origin's pause is no other's.

    Owns those that are closed.
    """

    def __init__(self) -> None:
        self._closed: dict[Hashable, Gate] = {}

    def close(self, key: Hashable, pause_s: float) -> None:
        """Nothing of ``key`` passes for ``pause_s`` seconds from now."""
        self._closed = {each: gate for each, gate in self._closed.items() if gate.closed_s}
        self._closed.setdefault(key, Gate()).close(pause_s)

    def closed_s(self, key: Hashable) -> float:
        """For how many more seconds the gate of ``key`` is closed; 0 while it is open."""
        gate = self._closed.get(key)
        return gate.closed_s if gate is not None else 0.0

    @property
    def longest_s(self) -> float:
        """The longest of all pauses that are left, in seconds."""
        return max((gate.closed_s for gate in self._closed.values()), default=0.0)

    async def passed(self, key: Hashable) -> None:
        """Wait until the gate of ``key`` is open; a checkpoint only when it is not."""
        gate = self._closed.get(key)
        if gate is not None:
            await gate.passed()
