"""Chooses the blocks to put into the kernel's page cache around small random reads. Pure.

A random reader causes a request for every 4 KiB, which takes some 100 µs. Storing the block
around it costs as much again, once; after that the kernel serves reads of that block itself. A
single small read (a small file, a header) is not a random reader and gets no block. For a reader
that goes on, the stored ranges grow.
"""

BLOCK = 131072  # bytes; the size of the kernel's requests when it reads a sequence
LITTLE = 32768  # bytes; a larger read is part of a sequence
GROWS = 32  # stores of one length, after which the length is doubled
MOST_DOUBLINGS = 3  # to 1 MiB, the most that is read at once without a thread
AGAIN_S = 1.0
"""If a block is requested this long after it was stored, it has left the page cache."""

MOST = 8192  # blocks remembered (1 GiB); at the limit, those older than AGAIN_S are dropped


class PageCachePrefill:
    """The blocks of one file that were stored in the page cache, and when. All handles of the file
    share it and own it, because the page cache belongs to the inode."""

    __slots__ = ("__weakref__", "_stores", "_times")

    def __init__(self) -> None:
        self._times: dict[int, float] = {}
        self._stores = 0

    def wanted(self, offset: int, now: float) -> range | None:
        """Return the blocks to store for a small read at ``offset``, including its own block; None
        if that was stored less than ``AGAIN_S`` ago. ``now`` in seconds, monotonic."""
        block = offset // BLOCK
        if self._has(block, now):
            return None
        length = 1 << min(self._stores // GROWS, MOST_DOUBLINGS)
        least = block - block % length
        start = stop = block
        while start > least and not self._has(start - 1, now):
            start -= 1
        while stop < least + length and not self._has(stop, now):
            stop += 1
        return range(start, stop)

    def stored(self, blocks: range, now: float) -> None:
        """Record that these blocks were queued for the kernel."""
        if len(self._times) >= MOST:
            self._times = {at: since for at, since in self._times.items() if now - since < AGAIN_S}
        self._times.update(dict.fromkeys(blocks, now))
        self._stores += 1

    def _has(self, block: int, now: float) -> bool:
        time = self._times.get(block)
        return time is not None and now - time < AGAIN_S
