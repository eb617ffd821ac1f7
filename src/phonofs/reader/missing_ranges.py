"""Which bytes to ask for: what is neither there nor on its way, in pieces. Pure."""

from collections.abc import Iterable, Iterator

from phonofs.ranges import Ranges

Interval = tuple[int, int]


def uncovered(present: Ranges, flying: Iterable[Interval], start: int, stop: int) -> list[Interval]:
    """The parts of ``[start, stop)`` that are neither present nor on their way, in order."""
    gaps = present.missing(start, stop)
    for head, end in flying:
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


def pieces(gaps: Iterable[Interval], download: int, open_end: int | None) -> Iterator[Interval]:
    """The gaps in pieces of about ``part`` bytes.

    A remainder below half a part goes with the piece before it. A short piece that ends at
    ``open_end`` is left out: the window will move on and make it longer.
    """
    for start, stop in gaps:
        while start < stop:
            end = stop if stop - start < download + download // 2 else start + download
            if end == open_end and end - start < download:
                break
            yield start, end
            start = end
