"""Lines that are to be written together, and who waits for that. Used by ``journal.py``."""

import time
from collections.abc import Sequence

import trio

from phonofs.errors import JournalError
from phonofs.journal.lines import Event, Line, Result, time_text


class Entry:
    """Lines that are to be written together.

    number  of the first line, 0 until it is written
    error   why they were not written
    given_up  whether nothing is opened by them any more, even if they are written
    """

    __slots__ = ("done", "error", "given_up", "lines", "number")

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = lines
        self.number = 0
        self.error: JournalError | None = None
        self.given_up = False
        self.done: trio.Event | None = None

    def settle(self, number: int, error: JournalError | None) -> None:
        """Set the outcome, and wake who waits for it."""
        self.number, self.error = number, error
        if self.done is not None:
            self.done.set()

    def give_up(self) -> list[Line]:
        """Open nothing by these lines; return what ends them, if they are written already."""
        self.given_up = True
        return self.ends() if self.number else []

    def ends(self) -> list[Line]:
        """Return the closes of what these lines granted."""
        numbered = enumerate(self.lines, self.number)
        return [
            Line(at=now_text(), event=Event.CLOSE, of=number, bytes_at_least=0)
            for number, line in numbered
            if line.result == Result.GRANTED
        ]

    async def wait(self, patience_s: float) -> bool:
        """Wait for the outcome for so long; return whether it came in time."""
        self.done = trio.Event()
        with trio.move_on_after(patience_s):
            await self.done.wait()
        return self.done.is_set()  # it may come as the patience ends


def all_lines(entries: Sequence[Entry]) -> list[Line]:
    """Return the lines of all entries, in order."""
    return [line for entry in entries for line in entry.lines]


def granted(entries: Sequence[Entry]) -> int:
    """Return how many of these lines tell of a file that is opened."""
    wanted = [entry for entry in entries if not entry.given_up]
    return sum(line.result == Result.GRANTED for line in all_lines(wanted))


def now_text() -> str:
    """Return the time as lines have it."""
    return time_text(time.time())
