"""A set of integers kept as disjoint half-open intervals: bytes of an object, spans of time.

Pure. Used by the cache (which bytes are present), the reader (which are being downloaded) and the
catalogue (which spans of creation time were listed).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """A mutable set of integers as sorted, disjoint, non-adjacent ``[start, stop)`` intervals.

    Invariant: ``_starts[i] < _stops[i] < _starts[i + 1]``.
    """

    __slots__ = ("_starts", "_stops")

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in intervals:
            self.add(start, stop)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._stops, strict=True)))

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ranges):
            return NotImplemented
        return self._starts == other._starts and self._stops == other._stops

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Ranges({list(self)!r})"

    def total(self) -> int:
        """Return how many integers are in the set."""
        return sum(self._stops) - sum(self._starts)

    def add(self, start: int, stop: int) -> None:
        """Add ``[start, stop)``; an empty interval changes nothing."""
        if start >= stop:
            return
        first = bisect_left(self._stops, start)  # the first interval that reaches start
        last = bisect_right(self._starts, stop)  # one past the last that begins by stop
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def remove(self, start: int, stop: int) -> None:
        """Remove ``[start, stop)``; an empty interval changes nothing."""
        if start >= stop:
            return
        first = bisect_right(self._stops, start)
        last = bisect_left(self._starts, stop)
        if first >= last:
            return
        left, right = self._starts[first], self._stops[last - 1]
        keep = [(a, b) for a, b in ((left, start), (stop, right)) if a < b]
        self._starts[first:last] = [a for a, _ in keep]
        self._stops[first:last] = [b for _, b in keep]

    def covers(self, start: int, stop: int) -> bool:
        """Return whether all of ``[start, stop)`` is in the set (true for an empty interval)."""
        if start >= stop:
            return True
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and self._stops[index] >= stop

    def stop_of(self, start: int) -> int:
        """Return the end of the interval that contains ``start``, or ``start`` if none does."""
        index = bisect_right(self._starts, start) - 1
        return max(start, self._stops[index]) if index >= 0 else start

    def missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the parts of ``[start, stop)`` that are not in the set, in order."""
        gaps = []
        index = bisect_right(self._stops, start)
        while start < stop:
            if index == len(self._starts) or self._starts[index] >= stop:
                gaps.append((start, stop))
                break
            if start < self._starts[index]:
                gaps.append((start, self._starts[index]))
            start = self._stops[index]
            index += 1
        return gaps
