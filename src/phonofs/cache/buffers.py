"""Blocks held in memory: those that are not whole yet, and those that cannot go to disk.

All entries share one pool with one limit. Above the limit the least recently used blocks are
dropped; dropped blocks are fetched again.
"""

from collections.abc import Callable

from cachetools import LRUCache

from phonofs.cache.blocks import Data
from phonofs.ranges import Ranges


class Buffer:
    """The bytes of one block that have arrived.

    data     the block; the last block of an object may be short
    filled   which bytes of the block were written
    dropped  called when the pool drops the buffer
    """

    __slots__ = ("data", "dropped", "filled")

    def __init__(self, length: int, dropped: Callable[[], None]) -> None:
        self.data = bytearray(length)
        self.filled = Ranges()
        self.dropped = dropped

    def put(self, at: int, piece: Data) -> None:
        """Write ``piece`` at ``at`` bytes from the start of the block."""
        self.data[at : at + len(piece)] = piece
        self.filled.add(at, at + len(piece))

    @property
    def whole(self) -> bool:
        """Whether every byte was written."""
        return self.filled.covers(0, len(self.data))


class BufferPool(LRUCache[tuple[object, int], Buffer]):
    """The buffers of all entries, by entry and index of the block. Their sizes are limited."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit, getsizeof=lambda buffer: len(buffer.data))

    def popitem(self) -> tuple[tuple[object, int], Buffer]:
        """Drop the least recently used buffer."""
        key, buffer = super().popitem()
        buffer.dropped()
        return key, buffer
