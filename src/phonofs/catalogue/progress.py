"""How far each region is known: what was listed, and up to when its changes are known."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from phonofs.catalogue.coverage import Coverage
from phonofs.catalogue.regions import Regions
from phonofs.model import Record
from phonofs.ranges import Ranges

LEAP_MS = 7 * 86_400_000
"""An ``updatedTime`` that is further ahead of our clock and of the watermark moves no watermark:
one odd record must not make the follower blind. A week is longer than a quiet account is silent."""

SECOND_MS = 1000
"""The resolution of the service's times: many objects may share one."""


def after(moment_ms: int) -> int:
    """Return the end of the second that contains ``moment_ms``, as an edge after all of it."""
    return (moment_ms // SECOND_MS + 1) * SECOND_MS


class Progress:
    """The coverage by names of regions; each change is a transaction of its own.

    Owns the set of regions that the follower of this run continues, and the regions whose last
    poll did not complete, with the watermark before it (``_catching_up``).
    """

    def __init__(
        self,
        regions: Regions,
        coverage: Coverage,
        writing: Callable[[], AbstractContextManager[None]],
        now_ms: Callable[[], int],
    ) -> None:
        """``writing`` is the catalogue's transaction."""
        self._regions = regions
        self._coverage = coverage
        self._writing = writing
        self._now_ms = now_ms
        self._following: set[str] = set()
        self._catching_up: dict[str, int] = {}

    def listed(self, region: str) -> Ranges:
        """Return the listed spans of creation time (UTC ms). Callers must not change them."""
        index = self._regions.known_region(region)
        return self._coverage.listed(index) if index is not None else Ranges()

    def mark_listed(self, region: str, start_ms: int, end_ms: int) -> None:
        """Mark ``[start_ms, end_ms)`` as listed: all objects created then are known."""
        if start_ms < end_ms and not self.listed(region).covers(start_ms, end_ms):
            with self._writing():
                self._coverage.mark(self._regions.region_index(region), start_ms, end_ms)

    def watermark(self, region: str) -> int | None:
        """Return the ``updatedTime`` (epoch ms) up to which changes are known, or None."""
        index = self._regions.known_region(region)
        return self._coverage.watermark(index) if index is not None else None

    def begin_following(self, region: str, updated_ms: int) -> None:
        """Set the first watermark, and discard the listed spans: nobody followed their changes."""
        with self._writing():
            index = self._regions.region_index(region)
            self._coverage.forget(index)
            self._coverage.set_watermark(index, updated_ms)
        self._catching_up.pop(region, None)

    def set_watermark(self, region: str, updated_ms: int, *, complete: bool = True) -> None:
        """Store that all changes up to ``updated_ms`` are known.

        Only a ``complete`` poll proves which objects were created: pages are ordered by time of
        change, so an object that was created early and changed late is on a later page. After a
        complete poll, the time since the last complete poll is marked as listed, including the
        whole second of the watermark.
        """
        before = self.watermark(region)
        if before is None:
            self.begin_following(region, updated_ms)
            return
        reached_ms = max(before, updated_ms)
        begun_ms = self._catching_up.setdefault(region, before)
        if before < reached_ms:
            with self._writing():
                index = self._regions.region_index(region)
                self._coverage.set_watermark(index, reached_ms)
        if complete:
            self.mark_listed(region, begun_ms, after(reached_ms))
            del self._catching_up[region]

    def edge_ms(self, region: str) -> int | None:
        """Return up to when the catalogue can be complete for a region; None if nothing was seen.

        That is the end of the second of the watermark or, if nobody follows the changes, of the
        newest change seen. While a poll runs, or if it was interrupted, it is where the last
        complete poll ended.
        """
        moment_ms = self._catching_up.get(region, self.watermark(region))
        if not self.following(region):
            moment_ms = self.newest_ms(region) or moment_ms
        return None if moment_ms is None else after(moment_ms)

    def plausible_ms(self, region: str) -> int:
        """Return the latest plausible ``updatedTime``, by our clock and by the watermark."""
        return max(self._now_ms(), self.watermark(region) or 0) + LEAP_MS

    def newest_ms(self, region: str) -> int:
        """Return the newest plausible ``updatedTime`` ever seen in a region; 0 for none."""
        index = self._regions.known_region(region)
        return self._coverage.newest_ms(index) if index is not None else 0

    def note_newest(self, records: Sequence[Record]) -> None:
        """Note the newest plausible ``updatedTime`` of records. Call within a transaction."""
        times: dict[str, list[int]] = {}
        for record in records:
            times.setdefault(record.region, []).append(record.updated_ms)
        for region, updated in times.items():
            self.note_newest_of(region, updated)

    def note_newest_of(self, region: str, updated: Iterable[int]) -> None:
        """Note the newest plausible one of these times (epoch ms). Call within a transaction."""
        latest_ms = self.plausible_ms(region)
        newest_ms = max((one_ms for one_ms in updated if one_ms <= latest_ms), default=0)
        self._coverage.note_newest(self._regions.region_index(region), newest_ms)

    def following(self, region: str) -> bool:
        """Return whether the follower adds what a region has after its watermark."""
        return region in self._following

    def set_following(self, region: str) -> None:
        """Note that the follower continues from the region's watermark."""
        self._following.add(region)
