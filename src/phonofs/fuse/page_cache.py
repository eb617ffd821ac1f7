"""What is given to the kernel around what a random reader asks for. Pure.

A random reader gets a request for every 4 KiB, at some 100 µs each. The block around what it
asked for costs as much again, once, and then the kernel answers for it by itself. Whoever reads
little once (a small file, a header) is no random reader; of whom goes on, the blocks grow.
"""

BLOCK = 131072  # bytes; what the kernel asks for at once where it sees a sequence
LITTLE = 32768  # bytes; a read of more is part of a sequence
GROWS = 32  # so many gifts of one length, and the next ones are twice as long
MOST_DOUBLINGS = 3  # to 1 MiB, the most that is read at once without a thread
AGAIN_S = 1.0
"""A block that is asked for so long after it was given has left the page cache."""

MOST = 8192  # blocks remembered before those given longer ago are forgotten: 1 GiB


class PageCachePrefill:
    """The blocks of one file that the kernel was given, and when; its page cache is the file's,
    whoever has it open. Owned by those that have it open."""

    __slots__ = ("__weakref__", "_gifts", "_given")

    def __init__(self) -> None:
        self._given: dict[int, float] = {}
        self._gifts = 0

    def wanted(self, offset: int, now: float) -> range | None:
        """The blocks to give for a little read at ``offset``, that one among them; None where it
        was given a moment ago. ``now`` in seconds, monotonic."""
        block = offset // BLOCK
        if self._has(block, now):
            return None
        length = 1 << min(self._gifts // GROWS, MOST_DOUBLINGS)
        least = block - block % length
        start = stop = block
        while start > least and not self._has(start - 1, now):
            start -= 1
        while stop < least + length and not self._has(stop, now):
            stop += 1
        return range(start, stop)

    def gave(self, blocks: range, now: float) -> None:
        """They are on their way to the kernel."""
        if len(self._given) >= MOST:
            self._given = {at: since for at, since in self._given.items() if now - since < AGAIN_S}
        self._given.update(dict.fromkeys(blocks, now))
        self._gifts += 1

    def _has(self, block: int, now: float) -> bool:
        given = self._given.get(block)
        return given is not None and now - given < AGAIN_S
