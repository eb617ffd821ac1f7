"""What the catalogue knows about a directory, and what to request next. Pure: no clock, no I/O.

The catalogue can be complete for a region only up to an *edge*. If the follower runs, the edge is
the watermark, and the follower adds what is newer; if not, it is the newest change ever seen.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from phonofs.ranges import Ranges
from phonofs.tree.layout import Calendar, Directory

RECENT_MS = 48 * 3_600_000
"""If nobody follows the changes, what is younger than this is checked again: uploads take minutes,
and a service may be behind."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class CoverageSnapshot:
    """What is known about one region when a decision is made. Times are epoch ms.

    listed     spans of creation time that were listed (UTC ms)
    edge_ms    the edge of the region; None if nothing was ever requested
    following  whether the follower adds what is newer
    now_ms     our clock
    since_ms   nothing created earlier is requested
    known      returns the directories directly below one that hold something
    """

    calendar: Calendar
    listed: Ranges
    edge_ms: int | None
    following: bool
    now_ms: int
    since_ms: int
    known: Callable[[Directory], Collection[Directory]]

    def span(self, directory: Directory) -> Span:
        """Return the span ``[start, stop)`` of a directory, cut at ``since``."""
        start_ms, stop_ms = self.calendar.span_ms(directory)
        return max(start_ms, self.since_ms), stop_ms

    def whole(self, directory: Directory) -> bool:
        """Return whether a directory can be shown: everything in it up to the edge is known."""
        if self.edge_ms is None:
            return False
        start_ms, stop_ms = self.span(directory)
        if directory.day:
            began = start_ms < self.edge_ms or start_ms >= stop_ms
            return began and self.listed.covers(start_ms, min(stop_ms, self.edge_ms))
        return not self.unsettled(directory)

    def unsettled(self, directory: Directory) -> list[Directory]:
        """Return the parts, up to the edge, that are not known to be empty or to hold anything."""
        start_ms, stop_ms = self.span(directory)
        known = self.known(directory)
        parts: dict[Directory, None] = {}
        for gap in self.listed.missing(start_ms, min(stop_ms, self.edge_ms or 0)):
            parts.update(dict.fromkeys(self.calendar.parts(directory, *gap)))
        return [part for part in parts if part not in known]

    def stale(self, directory: Directory) -> bool:
        """Return whether a directory that can be shown should be checked again first.

        That is only so if nobody follows the changes: for what is younger than RECENT_MS, by our
        clock or by the service's, and for what lies after the edge.
        """
        if self.following:
            return False
        return (
            self.span(directory)[1] > self._recent_ms
            if directory.day
            else bool(self.recent(directory))
        )

    @property
    def _recent_ms(self) -> int:
        return min(self.now_ms, self.edge_ms or 0) - RECENT_MS

    def recent(self, directory: Directory) -> list[Directory]:
        """Return the empty parts that may have got objects lately, as nobody follows changes."""
        start_ms, stop_ms = self.span(directory)
        stop_ms = min(stop_ms, max(self.now_ms, self.edge_ms or 0) + 1)
        parts = self.calendar.parts(directory, max(start_ms, self._recent_ms), stop_ms)
        known = self.known(directory)
        return [part for part in parts if part not in known]
