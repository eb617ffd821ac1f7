"""Who may send a request now: slots in front of the connections, and the gate before them.

Used by the transport, on the event loop only. httpx's pool jams for good when requests are
cancelled while it is contended (httpcore #1093); with a slot held until the body is closed it is
never contended. Taking a slot may wait, giving it back never does.
"""

import random

import trio

from phonofs.urgency import Urgency

KEPT_FREE = 2
"""Slots that requests nobody waits for leave to those somebody waits for."""


class Slots:
    """At most ``total`` requests at a time, of which at most ``ahead`` nobody waits for.

    Owns who holds and who waits. Invariants: ``0 <= in_use <= total``; ``0 <= ahead_in_use <=
    min(in_use, ahead)``; nobody is parked while there is a slot they may have. What a reader
    waits for goes first (two limiters one behind the other would let read-ahead queue up before
    it).
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.ahead = max(1, total - KEPT_FREE)
        self.in_use = 0
        self.ahead_in_use = 0
        self._urgent_line = trio.lowlevel.ParkingLot()
        self._ahead_line = trio.lowlevel.ParkingLot()

    async def acquire(self, *, urgent: bool) -> None:
        """Wait for a slot and take it; a cancelled wait takes none. A checkpoint."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._free(urgent=urgent):
            self._take(urgent=urgent)
            await self._checkpoint(urgent=urgent)
        else:
            await (self._urgent_line if urgent else self._ahead_line).park()

    def release(self, *, urgent: bool) -> None:
        """Give a slot back, and hand it on."""
        self.in_use -= 1
        self.ahead_in_use -= not urgent
        assert 0 <= self.ahead_in_use <= self.in_use
        self._hand_on()

    def _hand_on(self) -> None:
        while self._urgent_line and self._free(urgent=True):
            self._take(urgent=True)
            self._urgent_line.unpark()
        while self._ahead_line and self._free(urgent=False):
            self._take(urgent=False)
            self._ahead_line.unpark()

    async def take(self, urgent: bool | Urgency) -> "Hold":
        """The same as :meth:`acquire`, for a request that may become urgent while it runs."""
        as_urgent = bool(urgent)
        await self.acquire(urgent=as_urgent)
        return Hold(self, urgent, as_urgent)

    def promote(self) -> bool:
        """For one that holds a slot and was not urgent somebody waits now; whether it counts so.

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


class Hold:
    """One slot that is held; given back once, by :meth:`release`."""

    __slots__ = ("_slots", "_urgency", "urgent")

    def __init__(self, slots: Slots, urgency: bool | Urgency, urgent: bool) -> None:
        self._slots = slots
        self._urgency = urgency if isinstance(urgency, Urgency) else None
        self.urgent = urgent
        if urgent or self._urgency is None:
            return
        if self._urgency:
            self._rise()
        else:
            self._urgency.on_rise = self._rise

    def _rise(self) -> None:
        self.urgent = self._slots.promote()

    def release(self) -> None:
        """Give it back."""
        if self._urgency is not None:
            self._urgency.on_rise = None
        self._slots.release(urgent=self.urgent)


class Gate:
    """Closed while the service has asked for a pause; everything passes it before it is sent.

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
