"""How a handle reads, how far ahead of it to fetch, and in which ranges. Pure.

``Window`` follows the reads of one handle and says how many bytes to fetch beyond them. A handle
that reads in sequence gets a window of twice the sequence so far; one that keeps seeking gets
less and less on top of what it asks for. ``missing_ranges`` says which bytes of a window are
neither present nor being downloaded, and ``split`` cuts them into downloads.
``ThroughputEstimator`` measures a region, and says how many downloads to have at a time and how
large they may be.
"""

from collections.abc import Iterable, Iterator
from math import ceil

from phonofs.ranges import Ranges
from phonofs.reader.limits import (
    INITIAL_READAHEAD,
    KIB,
    LEAST_AHEAD,
    LEAST_PART,
    MIB,
    MOST_PARALLEL,
    MOST_PART,
    SLACK,
)

Interval = tuple[int, int]

GOAL_BYTES_S = 500_000_000
"""About what one process can receive, write and serve; more downloads at a time only cost."""

LEAST_PARALLEL = 2
"""One that receives and one that waits for its first byte: no gap between downloads."""

UNKNOWN_PARALLEL = 4
"""Downloads at a time in a region that was not measured yet."""

PART_S = 1.0
WEIGHT = 0.25


class Window:
    """How one handle reads; owned by it.

    next       the offset after the furthest byte of this sequence
    run_start  where the sequence began
    reads      requests in this sequence (a repeated one may be counted twice)
    seeks      short sequences in a row before this one
    Invariant: ``run_start <= next``. Reads have ``start <= stop``.
    """

    __slots__ = ("_counted", "next", "reads", "run_start", "seeks")

    def __init__(self) -> None:
        self.run_start = 0
        self.next = 0
        self.reads = 0
        self.seeks = 0
        self._counted = 0

    def note(self, start: int, stop: int) -> bool:
        """Record a read of ``[start, stop)``; return whether it was a seek."""
        if self.reads and self.next - SLACK <= start <= self.next + SLACK:
            if start == self.next - (stop - start) and stop == self.next:
                return False  # the same read once more
            self.reads += 1
            self._counted += stop - start
            self.run_start = min(self.run_start, start)
            self.next = max(self.next, stop)
            return False
        short = self.reads and self.sequential_bytes <= INITIAL_READAHEAD
        self.seeks = self.seeks + 1 if short else 0
        self.run_start, self.next, self.reads = start, stop, 1
        self._counted = stop - start
        return True

    @property
    def sequential_bytes(self) -> int:
        """Bytes read since the last seek; holes and repeated reads are not counted."""
        return min(self._counted, self.next - self.run_start)

    @property
    def is_sequential(self) -> bool:
        """Whether there was more than one read since the last seek."""
        return self.reads > 1

    def ahead(self, most: int) -> int:
        """How many bytes beyond ``next`` to fetch, at most ``most``."""
        if not self.is_sequential:
            return min(most, INITIAL_READAHEAD >> self.seeks)
        return max(min(2 * self.sequential_bytes, most), min(LEAST_AHEAD, most))


def download_size(ahead: int) -> int:
    """The size of a download in a window of ``ahead`` bytes: a quarter, so that several run."""
    return max(LEAST_PART, min(ahead // 4, MOST_PART))


def missing_ranges(
    present: Ranges, downloading: Iterable[Interval], start: int, stop: int
) -> list[Interval]:
    """The parts of ``[start, stop)`` that are neither present nor being downloaded, in order."""
    gaps = present.missing(start, stop)
    for head, end in downloading:
        gaps = [piece for gap in gaps for piece in _without(gap, head, end)]
    return gaps


def _without(gap: Interval, head: int, end: int) -> Iterator[Interval]:
    start, stop = gap
    if head >= end or end <= start or head >= stop:
        yield gap
        return
    if start < head:
        yield start, head
    if end < stop:
        yield end, stop


def split(gaps: Iterable[Interval], size: int, open_end: int | None) -> Iterator[Interval]:
    """The gaps in pieces of about ``size`` bytes.

    A remainder of less than half a piece goes with the piece before it. A short piece that ends
    at ``open_end`` is left out: the window will move on and make it longer.
    """
    for start, stop in gaps:
        while start < stop:
            end = stop if stop - start < size + size // 2 else start + size
            if end == open_end and end - start < size:
                break
            yield start, end
            start = end


class ThroughputEstimator:
    """Smoothed measurements of one region, fed by each download.

    latency_s  from a request to the first byte; None before the first response
    rate       bytes per second of one connection; None before the first long body
    """

    __slots__ = ("latency_s", "rate")

    def __init__(self) -> None:
        self.latency_s: float | None = None
        self.rate: float | None = None

    def answered(self, latency_s: float) -> None:
        """Record the time from a request to its response."""
        self.latency_s = _smooth(self.latency_s, latency_s)

    def received(self, count: int, seconds: float) -> None:
        """Record the bytes of one body and their time; short bodies say nothing."""
        if count >= 128 * KIB:
            self.rate = _smooth(self.rate, count / max(seconds, 1e-6))

    def parallelism(self, size: int) -> int:
        """How many downloads of this size to have at a time."""
        if self.latency_s is None or self.rate is None:
            return UNKNOWN_PARALLEL
        needed = GOAL_BYTES_S * (self.latency_s + size / self.rate) / size
        return max(LEAST_PARALLEL, min(MOST_PARALLEL, ceil(needed)))

    def largest_download(self) -> int:
        """The largest download: about a second, then its permit is free for others."""
        if self.rate is None:
            return MOST_PART
        return max(LEAST_PART, min(MOST_PART, int(self.rate * PART_S)))

    def join_distance(self) -> int:
        """How far ahead of a download it is quicker to wait for it than to send a request."""
        if self.latency_s is None or self.rate is None:
            return MIB
        return max(256 * KIB, min(4 * MIB, int(self.latency_s * self.rate)))


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else old + WEIGHT * (new - old)
