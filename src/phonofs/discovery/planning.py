"""What the catalogue knows of a folder, and what to ask next. Pure: no clock, no I/O.

The catalogue can speak for a region up to an *edge*: with the follower at work that is the
watermark (what is newer, the follower brings); without, the newest change ever seen.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from phonofs.ranges import Ranges
from phonofs.tree.layout import Calendar, Folder

RECENT_MS = 48 * 3_600_000
"""Uploads take minutes, and a service may be behind: what is younger than this is looked at
again when nobody follows the changes."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class CoverageSnapshot:
    """What is known of one region, for a decision.

    listed     spans of creation time that were listed (UTC ms)
    edge_ms    up to when the catalogue speaks for the region; None: nothing was ever asked
    following  whether the follower brings what is newer
    now_ms     our clock
    since_ms   nothing older is asked for
    known      the folders below one that hold something
    """

    calendar: Calendar
    listed: Ranges
    edge_ms: int | None
    following: bool
    now_ms: int
    since_ms: int
    known: Callable[[Folder], Collection[Folder]]

    def span(self, of: Folder) -> Span:
        """``[start, stop)`` of a folder, without what lies before ``since``."""
        start_ms, stop_ms = self.calendar.span_ms(of)
        return max(start_ms, self.since_ms), stop_ms

    def whole(self, of: Folder) -> bool:
        """Whether a folder can be shown: all of it up to the edge is known."""
        if self.edge_ms is None:
            return False
        start_ms, stop_ms = self.span(of)
        if of.day:
            began = start_ms < self.edge_ms or start_ms >= stop_ms
            return began and self.listed.covers(start_ms, min(stop_ms, self.edge_ms))
        return not self.unsettled(of)

    def unsettled(self, of: Folder) -> list[Folder]:
        """The parts of a folder, up to the edge, of which it is not known if they hold anything."""
        start_ms, stop_ms = self.span(of)
        known = self.known(of)
        parts: dict[Folder, None] = {}
        for gap in self.listed.missing(start_ms, min(stop_ms, self.edge_ms or 0)):
            parts.update(dict.fromkeys(self.calendar.parts(of, *gap)))
        return [part for part in parts if part not in known]

    def stale(self, of: Folder) -> bool:
        """Whether a folder that can be shown should be looked at again first.

        Only where nobody follows the changes: what is younger than RECENT_MS, by our clock or by
        the service's, and what lies behind the edge.
        """
        if self.following:
            return False
        return self.span(of)[1] > self._recent_ms if of.day else bool(self.recent(of))

    @property
    def _recent_ms(self) -> int:
        return min(self.now_ms, self.edge_ms or 0) - RECENT_MS

    def recent(self, of: Folder) -> list[Folder]:
        """The parts of a folder that may have got something, as nobody follows the changes."""
        start_ms, stop_ms = self.span(of)
        stop_ms = min(stop_ms, max(self.now_ms, self.edge_ms or 0) + 1)
        parts = self.calendar.parts(of, max(start_ms, self._recent_ms), stop_ms)
        known = self.known(of)
        return [part for part in parts if part not in known]
