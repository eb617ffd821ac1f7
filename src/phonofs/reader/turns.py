"""Who may fetch ahead now: requests nobody waits for take turns, so that some slots stay free."""

from collections import deque
from typing import Protocol

import trio

from phonofs.urgency import Urgency


class Queued(Protocol):
    """What can wait for a turn."""

    urgency: Urgency


class Turns:
    """At most ``capacity`` non-urgent parts under way; urgent ones need no turn.

    Owns who has a turn and who waits for one, first come first served. A part is in at most one
    of the two. Leaving is synchronous.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._under_way: set[Queued] = set()
        self._waiting: dict[Queued, trio.Event] = {}
        self._order: deque[Queued] = deque()

    def line_up(self, part: Queued) -> None:
        """Stand in line, or have a turn at once; a part that somebody waits for needs none.

        Plain, since tasks begin to run in any order and parts are to go in that of their start.
        """
        if part.urgency or part in self._under_way or part in self._waiting:
            return
        if len(self._under_way) < self._capacity:
            self._under_way.add(part)
        else:
            self._waiting[part] = trio.Event()
            self._order.append(part)

    async def take(self, part: Queued) -> None:
        """Return when this part may go; at once where somebody waits for it."""
        self.line_up(part)
        event = self._waiting.get(part)
        if event is None:
            return
        try:
            await event.wait()
        finally:
            self._waiting.pop(part, None)

    def promote(self, part: Queued) -> None:
        """Somebody waits for this part now: it needs no turn, and goes at once if it was queued."""
        part.urgency.rise()
        event = self._waiting.get(part)
        self.leave(part)
        if event is not None:
            event.set()

    def leave(self, part: Queued) -> None:
        """This part needs its turn no more (also where it had none)."""
        self._waiting.pop(part, None)
        if part in self._under_way:
            self._under_way.remove(part)
            self._next()

    def queued(self, part: Queued) -> bool:
        """Whether the part still waits for its turn."""
        return part in self._waiting

    def _next(self) -> None:
        while self._order and len(self._under_way) < self._capacity:
            part = self._order.popleft()
            event = self._waiting.pop(part, None)
            if event is not None:
                self._under_way.add(part)
                event.set()

    def statistics(self) -> dict[str, int]:
        """How many are under way and how many wait."""
        return {"ahead": len(self._under_way), "ahead_queued": len(self._waiting)}
