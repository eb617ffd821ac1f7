"""Who may fetch ahead now: requests nobody waits for take turns, so that some slots stay free."""

from collections import deque
from typing import Protocol

import trio

from phonofs.priority import Priority


class Queued(Protocol):
    """What can wait for a turn."""

    priority: Priority


class BackgroundLimit:
    """At most ``capacity`` non-urgent parts under way; urgent ones need no turn.

    Owns who has a turn and who waits for one, first come first served. A part is in at most one
    of the two. Leaving is synchronous.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._under_way: set[Queued] = set()
        self._waiting: dict[Queued, trio.Event] = {}
        self._order: deque[Queued] = deque()

    def line_up(self, download: Queued) -> None:
        """Stand in line, or have a turn at once; a part that somebody waits for needs none.

        Plain, since tasks begin to run in any order and parts are to go in that of their start.
        """
        if download.priority or download in self._under_way or download in self._waiting:
            return
        if len(self._under_way) < self._capacity:
            self._under_way.add(download)
        else:
            self._waiting[download] = trio.Event()
            self._order.append(download)

    async def take(self, download: Queued) -> None:
        """Return when this part may go; at once where somebody waits for it."""
        self.line_up(download)
        event = self._waiting.get(download)
        if event is None:
            return
        try:
            await event.wait()
        finally:
            self._waiting.pop(download, None)

    def promote(self, download: Queued) -> None:
        """Somebody waits for this part now: it needs no turn, and goes at once if it was queued."""
        download.priority.rise()
        event = self._waiting.get(download)
        self.leave(download)
        if event is not None:
            event.set()

    def leave(self, download: Queued) -> None:
        """This part needs its turn no more (also where it had none)."""
        self._waiting.pop(download, None)
        if download in self._under_way:
            self._under_way.remove(download)
            self._next()

    def queued(self, download: Queued) -> bool:
        """Whether the part still waits for its turn."""
        return download in self._waiting

    def _next(self) -> None:
        while self._order and len(self._under_way) < self._capacity:
            download = self._order.popleft()
            event = self._waiting.pop(download, None)
            if event is not None:
                self._under_way.add(download)
                event.set()

    def statistics(self) -> dict[str, int]:
        """How many are under way and how many wait."""
        return {"ahead": len(self._under_way), "ahead_queued": len(self._waiting)}
