"""Limits the downloads nobody waits for, so that connections stay free for those of readers."""

from collections import deque
from typing import Protocol

import trio

from phonofs.priority import Priority


class Queued(Protocol):
    """What is limited: a download."""

    priority: Priority


class BackgroundLimit:
    """At most ``capacity`` downloads that nobody waits for run at a time; others are not limited.

    The rest queue in the order of their start. A download is running, or queued, or neither.
    Leaving is synchronous.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._under_way: set[Queued] = set()
        self._waiting: dict[Queued, trio.Event] = {}
        self._order: deque[Queued] = deque()

    def line_up(self, download: Queued) -> None:
        """Admit a download, or queue it; one that a reader waits for needs neither.

        Synchronous, because tasks begin to run in any order, and downloads must queue in the
        order of their start.
        """
        if download.priority or download in self._under_way or download in self._waiting:
            return
        if len(self._under_way) < self._capacity:
            self._under_way.add(download)
        else:
            self._waiting[download] = trio.Event()
            self._order.append(download)

    async def take(self, download: Queued) -> None:
        """Wait until this download may run; at once if a reader waits for it."""
        self.line_up(download)
        event = self._waiting.get(download)
        if event is None:
            return
        try:
            await event.wait()
        finally:
            self._waiting.pop(download, None)

    def promote(self, download: Queued) -> None:
        """A reader waits for this download now: it is not limited, and runs if it was queued."""
        download.priority.rise()
        event = self._waiting.get(download)
        self.leave(download)
        if event is not None:
            event.set()

    def leave(self, download: Queued) -> None:
        """This download is no longer limited, whether it was admitted or not."""
        self._waiting.pop(download, None)
        if download in self._under_way:
            self._under_way.remove(download)
            self._next()

    def queued(self, download: Queued) -> bool:
        """Whether the download still waits to be admitted."""
        return download in self._waiting

    def _next(self) -> None:
        while self._order and len(self._under_way) < self._capacity:
            download = self._order.popleft()
            event = self._waiting.pop(download, None)
            if event is not None:
                self._under_way.add(download)
                event.set()

    def statistics(self) -> dict[str, int]:
        """How many run and how many are queued."""
        return {"ahead": len(self._under_way), "ahead_queued": len(self._waiting)}
