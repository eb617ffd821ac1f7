"""Bounds what all open files together hold in memory, if there is no disk cache for it."""

from collections import OrderedDict
from typing import Protocol


class Holder(Protocol):
    """Something that holds bytes in memory and can give some back."""

    def shed(self) -> int:
        """Give back what no read waits for; return how many bytes are still held."""


class Memory:
    """Knows how many bytes each open content holds. Owned by the reader.

    Invariant: after :meth:`hold` all of them hold at most ``most_bytes`` and what reads wait for.
    The least recently read gives back first.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held: OrderedDict[Holder, int] = OrderedDict()
        self.total = 0

    def read(self, holder: Holder) -> None:
        """This one is read: it becomes the last that has to give bytes back."""
        if holder in self._held:
            self._held.move_to_end(holder)

    def hold(self, holder: Holder, count: int) -> None:
        """This one holds ``count`` bytes now; the least recently read give back the excess."""
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
