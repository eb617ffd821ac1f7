"""Blocks held in memory: those that are not whole yet, and those that cannot go to disk.

All entries share one pool with one limit. Above the limit the least recently used blocks are
dropped, unless their entries need them; dropped blocks are fetched again.
"""

from collections import OrderedDict
from typing import Protocol

from phonofs.cache.blocks import Data
from phonofs.ranges import Ranges


class Owner(Protocol):
    """An owner of buffers: it decides whether a buffer can be dropped, and forgets it."""

    def drop_buffer(self, index: int) -> bool:
        """Drop the buffer of a block; return False if it is needed."""


class Buffer:
    """The bytes of one block that have arrived.

    data    the block; the last block of an object may be short
    filled  which bytes of the block were written
    """

    __slots__ = ("data", "filled")

    def __init__(self, length: int) -> None:
        self.data = bytearray(length)
        self.filled = Ranges()

    def put(self, at: int, piece: Data) -> None:
        """Write ``piece`` at ``at`` bytes from the start of the block."""
        self.data[at : at + len(piece)] = piece
        self.filled.add(at, at + len(piece))

    @property
    def whole(self) -> bool:
        """Whether every byte was written."""
        return self.filled.covers(0, len(self.data))


class BufferPool:
    """Limits the memory of all buffers together.

    bytes  their total size
    limit  above it buffers are dropped, the least recently used first
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._order: OrderedDict[tuple[int, int], tuple[Owner, int]] = OrderedDict()

    def add(self, owner: Owner, index: int, length: int) -> Buffer:
        """Return a new buffer for a block of ``length`` bytes. Raises MemoryError."""
        buffer = Buffer(length)
        self._order[id(owner), index] = (owner, length)
        self.bytes += length
        if self.bytes > self.limit:
            self._drop_oldest((id(owner), index))
        return buffer

    def touch(self, owner: Owner, index: int) -> None:
        """Note that the block was read."""
        if (id(owner), index) in self._order:
            self._order.move_to_end((id(owner), index))

    def remove(self, owner: Owner, index: int) -> None:
        """Note that the owner released the buffer."""
        found = self._order.pop((id(owner), index), None)
        if found is not None:
            self.bytes -= found[1]

    def _drop_oldest(self, spared: tuple[int, int]) -> None:
        for key in list(self._order):
            if self.bytes <= self.limit:
                return
            if key != spared:
                owner, _ = self._order[key]
                owner.drop_buffer(key[1])
