"""Who may send a request now: slots in front of the connections, and the gate before them.

Used by the transport, on the event loop only. httpx's pool jams for good when requests are
cancelled while it is contended (httpcore #1093); with a slot held until the body is closed it is
never contended. Taking a slot may wait, giving it back never does.
"""

import random

import trio

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
        while self._urgent_line and self._free(urgent=True):
            self._take(urgent=True)
            self._urgent_line.unpark()
        while self._ahead_line and self._free(urgent=False):
            self._take(urgent=False)
            self._ahead_line.unpark()

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
