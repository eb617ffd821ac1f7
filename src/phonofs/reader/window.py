"""How one handle reads, and how far ahead of it to fetch. Pure.

A run is what is read in sequence since the last seek. Whoever reads on for long gets a window of
twice the run; whoever hops about gets ever less than the little that is brought on top.
"""

from phonofs.reader.limits import LEAST_AHEAD, LEAST_PART, LITTLE, MOST_PART, SLACK


class Window:
    """The reading of one handle; owned by it.

    next       the offset after the furthest byte read in this run
    run_start  where the run began
    reads      requests in this run (a repeated one may be counted twice)
    hops       short runs in a row before this one
    Invariant: ``run_start <= next``. Reads have ``start <= stop``.
    """

    __slots__ = ("_counted", "hops", "next", "reads", "run_start")

    def __init__(self) -> None:
        self.run_start = 0
        self.next = 0
        self.reads = 0
        self.hops = 0
        self._counted = 0

    def note(self, start: int, stop: int) -> bool:
        """Take a read of ``[start, stop)`` down; whether it was a seek."""
        if self.reads and self.next - SLACK <= start <= self.next + SLACK:
            if start == self.next - (stop - start) and stop == self.next:
                return False  # the same read once more
            self.reads += 1
            self._counted += stop - start
            self.run_start = min(self.run_start, start)
            self.next = max(self.next, stop)
            return False
        self.hops = self.hops + 1 if self.reads and self.run <= LITTLE else 0
        self.run_start, self.next, self.reads = start, stop, 1
        self._counted = stop - start
        return True

    @property
    def run(self) -> int:
        """Bytes read in sequence: what was asked for, holes and repetitions not counted."""
        return min(self._counted, self.next - self.run_start)

    @property
    def running(self) -> bool:
        """Whether there is a sequence: more than the one read after a seek."""
        return self.reads > 1

    def ahead(self, most: int) -> int:
        """How many bytes beyond ``next`` to have on their way, at most ``most``."""
        if not self.running:
            return min(most, LITTLE >> self.hops)
        return max(min(2 * self.run, most), min(LEAST_AHEAD, most))


def part_size(ahead: int) -> int:
    """How large the parts of a window are: a quarter of it, so that several come side by side."""
    return max(LEAST_PART, min(ahead // 4, MOST_PART))
