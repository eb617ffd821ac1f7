"""How far each region is known: what was listed, up to when its changes are followed."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from phonofs.catalogue.coverage import Coverage
from phonofs.catalogue.regions import Regions
from phonofs.model import Record
from phonofs.ranges import Ranges

LEAP_MS = 7 * 86_400_000
"""An ``updatedTime`` further ahead than this of all that is plausible moves no watermark: one
odd record must not make the follower blind. A week: longer than a quiet account is silent."""

SECOND_MS = 1000
"""Resolution of the service's times: many objects may share one."""


def after(moment_ms: int) -> int:
    """The end of the second that holds ``moment_ms``: an edge that leaves nothing of it out."""
    return (moment_ms // SECOND_MS + 1) * SECOND_MS


class Progress:
    """The coverage by the names of regions, each change a transaction of its own.

    Owns which regions the follower of this run goes on with, and the regions whose last poll did
    not come to its end, with the watermark before it (``_catching_up``).
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
        """The spans of creation time (UTC ms) that were listed; not to be changed."""
        index = self._regions.known_region(region)
        return self._coverage.listed(index) if index is not None else Ranges()

    def mark_listed(self, region: str, start_ms: int, end_ms: int) -> None:
        """All of the scope that was created in ``[start_ms, end_ms)`` is known."""
        if start_ms < end_ms and not self.listed(region).covers(start_ms, end_ms):
            with self._writing():
                self._coverage.mark(self._regions.region_index(region), start_ms, end_ms)

    def watermark(self, region: str) -> int | None:
        """The ``updatedTime`` (epoch ms) up to which all changes are known; None: never asked."""
        index = self._regions.known_region(region)
        return self._coverage.watermark(index) if index is not None else None

    def begin_following(self, region: str, updated_ms: int) -> None:
        """The first watermark: what was listed before nobody watched, and counts no more."""
        with self._writing():
            index = self._regions.region_index(region)
            self._coverage.forget(index)
            self._coverage.set_watermark(index, updated_ms)
        self._catching_up.pop(region, None)

    def set_watermark(self, region: str, updated_ms: int, *, complete: bool = True) -> None:
        """All changes up to ``updated_ms`` are known.

        Only a poll that came to its end (``complete``) proves what was created: pages come by the
        time of change, so an object that was created early and changed late is on a later page.
        Then everything created since the last complete poll is listed, with the whole second of
        the watermark.
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
        """Up to when the catalogue can speak for a region; None if nothing was ever seen of it.

        That is the end of the second of the watermark, or of the newest change seen where nobody
        follows the changes. While a poll is under way, or was cut off, it is where the last
        complete one ended.
        """
        moment_ms = self._catching_up.get(region, self.watermark(region))
        if not self.following(region):
            moment_ms = self.newest_ms(region) or moment_ms
        return None if moment_ms is None else after(moment_ms)

    def plausible_ms(self, region: str) -> int:
        """The latest ``updatedTime`` that may be true, by our clock or by what was seen before."""
        return max(self._now_ms(), self.watermark(region) or 0) + LEAP_MS

    def newest_ms(self, region: str) -> int:
        """The newest plausible ``updatedTime`` ever seen of a region, 0 for none."""
        index = self._regions.known_region(region)
        return self._coverage.newest_ms(index) if index is not None else 0

    def note_newest(self, records: Sequence[Record]) -> None:
        """Records were seen. Call within a transaction."""
        newest: dict[str, int] = {}
        for record in records:
            if record.updated_ms > newest.get(record.region, 0):
                newest[record.region] = record.updated_ms
        for region, updated_ms in newest.items():
            self.note_newest_ms(region, updated_ms)

    def note_newest_ms(self, region: str, updated_ms: int) -> None:
        """An ``updatedTime`` was seen. Call within a transaction."""
        if updated_ms <= self.plausible_ms(region):
            self._coverage.note_newest(self._regions.region_index(region), updated_ms)

    def following(self, region: str) -> bool:
        """Whether what a region has beyond its watermark is the follower's to bring."""
        return region in self._following

    def set_following(self, region: str) -> None:
        """The follower goes on from the region's watermark."""
        self._following.add(region)
