"""In which pieces to request an object over connections that start slowly. Pure.

Used by open objects. :class:`.readahead.ThroughputEstimator` knows whether a line is like that.
"""

from collections.abc import Iterable

from phonofs.reader.limits import FIRST_WINDOW, LEAST_PART, MOST_PART
from phonofs.reader.readahead import Interval


def starting_pieces(
    gaps: Iterable[Interval], connections: int, most_window: float
) -> list[Interval]:
    """The gaps in pieces, one for each of so many connections, all of which start slowly.

    Together they need some round trips for all of it; ``most_window`` is what one brings in a trip
    at most. The first pieces are as long as what one brings before the last trip, the others are
    longer. So most of what comes before that trip is without a gap from the start on, and can be
    hashed meanwhile.
    """
    gaps = list(gaps)
    rest = sum(stop - start for start, stop in gaps)
    pieces: list[Interval] = []
    for start, stop in gaps:
        while start < stop and len(pieces) < connections:
            size = _starting_size(rest, connections - len(pieces), int(most_window))
            end = min(stop, start + size)
            pieces.append((start, end))
            rest -= end - start
            start = end
    return pieces


def _starting_size(rest: int, connections: int, most_window: int) -> int:
    brought, window = 0, FIRST_WINDOW
    while connections * (brought + window) < rest:
        brought += window
        window = max(FIRST_WINDOW, min(2 * window, most_window))
    others = (connections - 1) * min(brought + window, MOST_PART)
    size = brought if rest - brought <= others else -(-rest // connections)
    return max(LEAST_PART, min(size, MOST_PART))
