"""Blocks held in memory: those that are not whole yet, and those that cannot go to disk.

All entries share one pool with one limit. Above the limit the least recently used blocks are
dropped; dropped blocks are fetched again.
"""

from collections.abc import Callable

from cachetools import LRUCache


class BufferPool(LRUCache[tuple[Callable[[int], None], int], bytearray]):
    """The buffers of all entries; the sum of their sizes is limited.

    Keys consist of the entry's function to call when the buffer is dropped, and the index of the
    block, which is its argument.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit, getsizeof=len)

    def popitem(self) -> tuple[tuple[Callable[[int], None], int], bytearray]:
        """Drop the least recently used buffer."""
        (dropped, index), buffer = super().popitem()
        dropped(index)
        return (dropped, index), buffer
