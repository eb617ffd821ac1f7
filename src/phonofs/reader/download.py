"""One part of an object on its way, and those who wait for it."""

from heapq import heapify, heappop, heappush

import trio

from phonofs.priority import Priority
from phonofs.reader.limits import KIB

WORTH = 128 * KIB
"""What the kernel asks for at a time: a stream that brings less in a whole deadline is no use."""


class Download:
    """The bytes ``[head, stop)`` are still to come, in order; owned by its stream.

    head     the next byte; the stream writes bytes and then moves it
    stop     where the part ends; only ever moves down, but for a part that turned out ``whole``
    urgency  whether somebody waits for it, or did
    whole    its body began at 0, since the service gives no ranges
    answered whether its present request was answered
    error    why it ended, where that was a failure
    over     set once it ended
    Waiters are parked here by the offset they need, nearest first. Invariant: whoever is parked
    needs more than ``head`` and no more than ``stop``, and nobody is parked at an ended part.
    """

    __slots__ = (
        "_parked",
        "_tickets",
        "answered",
        "ended",
        "error",
        "head",
        "moved",
        "over",
        "priority",
        "scope",
        "stop",
        "whole",
    )  # fmt: skip

    def __init__(self, start: int, stop: int, *, urgent: bool, whole: bool = False) -> None:
        self.head = start
        self.stop = stop
        self.priority = Priority(urgent)
        self.whole = whole
        self.answered = False
        self.ended = False
        self.error: Exception | None = None
        self.scope = trio.CancelScope()
        self.moved = trio.Event()
        self.over = trio.Event()
        self._parked: list[tuple[int, int, trio.Event, float]] = []
        self._tickets = 0

    @property
    def waiting(self) -> int:
        """How many wait for bytes of this part."""
        return len(self._parked)

    @property
    def needed(self) -> int:
        """The furthest offset anybody waits for (0 where nobody does)."""
        return max((need for need, *_ in self._parked), default=0)

    @property
    def patience(self) -> float:
        """The latest deadline among the waiters; minus infinity where nobody waits."""
        return max((deadline for *_, deadline in self._parked), default=float("-inf"))

    def advance(self, head: int) -> None:
        """Every byte before ``head`` is there: wake those who needed no more."""
        self.head = head
        while self._parked and self._parked[0][0] <= head:
            heappop(self._parked)[2].set()

    def cut(self, stop: int) -> None:
        """End the part earlier; those who wait for bytes behind ``stop`` plan again."""
        self.stop = max(self.head, min(self.stop, stop))
        beyond = [waiter for waiter in self._parked if waiter[0] > self.stop]
        if beyond:
            self._parked = [waiter for waiter in self._parked if waiter[0] <= self.stop]
            heapify(self._parked)
            for waiter in beyond:
                waiter[2].set()

    def restart(self, head: int, stop: int) -> None:
        """The body began elsewhere than asked: it is a whole stream from there."""
        self.head, self.stop, self.whole = head, stop, True

    def end(self) -> None:
        """Nothing more comes: everyone left is woken, and told why."""
        self.ended = True
        for waiter in self._parked:
            waiter[2].set()
        self._parked.clear()
        self.moved.set()
        self.over.set()

    async def until(self, need: int, deadline: float) -> None:
        """Wait until all before ``need`` is there, or nothing is on its way for it any more.

        Raises the error that ended the part before it came so far. ``deadline`` is the caller's
        own; it only says how long trying again makes sense.
        """
        if not self.ended and self.head < need <= self.stop:
            await self._park(need, deadline)
        if self.error is not None and self.head < need:
            raise self.error.with_traceback(None)

    async def _park(self, need: int, deadline: float) -> None:
        self._tickets += 1
        waiter = (need, self._tickets, trio.Event(), deadline)
        began = self.head
        heappush(self._parked, waiter)
        self.moved.set()
        try:
            await waiter[2].wait()
        finally:
            if not waiter[2].is_set():
                self._parked.remove(waiter)
                heapify(self._parked)
                if trio.current_time() >= deadline:
                    self._waited_in_vain(began)

    def _waited_in_vain(self, began: int) -> None:
        """A waiter's deadline has passed since ``head`` was at ``began``: have the rest sent anew.

        A connection may be slow for ever beside others that are not. What came is kept; since a
        whole stream begins again at its first byte, one that gets anywhere goes on.
        """
        if self.answered and not (self.whole and self.head - began >= WORTH):
            self.scope.cancel()
