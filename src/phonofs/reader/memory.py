"""What all open files hold in memory, where there is no disk for it: bounded for all together."""

from collections import OrderedDict
from typing import Protocol


class Holder(Protocol):
    """What holds bytes in memory, and can do with fewer."""

    def shed(self) -> int:
        """Give back what no read waits for; how many bytes are still held."""


class Memory:
    """Which open contents hold how much. Owned by the reader.

    Invariant: after :meth:`hold` they hold at most ``most_bytes`` together, and what reads wait
    for just now. Those that were read from last keep theirs longest.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held: OrderedDict[Holder, int] = OrderedDict()
        self.total = 0

    def read(self, holder: Holder) -> None:
        """Bytes of this one are read: it is the last that has to give some back."""
        if holder in self._held:
            self._held.move_to_end(holder)

    def hold(self, holder: Holder, count: int) -> None:
        """This one holds so many bytes now; the least recently read give back what is too much."""
        self._note(holder, count)
        if self.total <= self._most_bytes:
            return
        for other in list(self._held):
            if self._held[other]:
                self._note(other, other.shed())
            if self.total <= self._most_bytes:
                break

    def leave(self, holder: Holder) -> None:
        """This one holds nothing any more."""
        self.total -= self._held.pop(holder, 0)

    def _note(self, holder: Holder, count: int) -> None:
        self.total += count - self._held.get(holder, 0)
        self._held[holder] = count
