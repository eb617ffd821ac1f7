"""Decides which pages of a region's changes to request. Pure.

The set of changes grows at its end and loses records from its middle (a record that changes moves
to the end), so offsets alone would skip some. Therefore the next page is requested from the newest
time reached, at offset 0. Only if all records of a page have the same time, the offset advances.
"""

from collections.abc import Sequence

from phonofs.discovery.pagination import FRUITLESS
from phonofs.errors import Malformed
from phonofs.model import Page

OVERLAP_MS = 120_000
"""How far an ordinary poll goes back: the service may show a record this long after its
``updatedTime``, and records share a second."""

SWEEP_MS = 3_600_000
SWEEP_EVERY = 15
"""The first poll of a run, and every SWEEP_EVERY-th, finds records up to an hour late."""

FAR_MS = 50 * SWEEP_MS
FAR_EVERY_S = 6 * 3600.0
"""Once in each run, and every FAR_EVERY_S seconds, a poll finds records up to two days late, such
as those that the service indexes again after a failure. It costs a search for each page of the
objects that changed in two days: 1 for 100, 200 for 20,000."""

STEP_MS = 30_000
"""An ordinary poll begins at a whole multiple of this, so that the polls of many mounts, each with
a clock of its own, are the same text: a cache between them and the service answers all but one."""

_REMEMBERED = 50_000
"""Changes remembered to notice repetition, 8 MB: a catch-up may have millions."""


class ChangePoll:
    """One poll of a region. Owns how far it got.

    reached_ms  all changes up to this ``updatedTime`` have been received
    next        the search to make now: its earliest ``updatedTime`` (epoch ms) and its offset;
                None if everything has been received
    """

    def __init__(
        self, watermark_ms: int, polls: int, limit: int, quiet_s: float = 0.0, *, far: bool = False
    ) -> None:
        """``polls``: the number of earlier polls in this run. ``far``: go back two days.

        ``quiet_s``: how long the watermark has not moved. The service's clock has advanced by as
        much since, so this poll goes back less by as much, in the end only to the watermark: not
        before it, since thousands of records may have changed in the seconds before it.
        """
        late_ms = FAR_MS if far else SWEEP_MS if polls % SWEEP_EVERY == 0 else OVERLAP_MS
        back_ms = max(late_ms - int(quiet_s * 1000), 0)
        from_ms = watermark_ms - back_ms
        if back_ms:
            from_ms -= from_ms % STEP_MS
        self.reached_ms = watermark_ms
        self.next: tuple[int, int] | None = (max(from_ms, 0), 0)
        self._limit = limit
        self._seen: set[tuple[str, int]] = set()
        self._ordered = True
        self._newest_ms = watermark_ms
        self._fruitless = 0

    def feed(self, page: Page, plausible_ms: int) -> None:
        """Note the page received; times later than ``plausible_ms`` are ignored.

        Raises Malformed if the service repeats its pages endlessly.
        """
        assert self.next is not None
        self._note(page)
        times = [one.updated_ms for one in page.records if one.updated_ms <= plausible_ms]
        self._ordered = self._ordered and times == sorted(times)
        self._newest_ms = max([self._newest_ms, *times])
        # A full page that is marked as the last may not be the last: the next one tells, unless
        # the service keeps sending the same page.
        full = page.count >= self._limit and self._fruitless < FRUITLESS
        over = page.count == 0 or (page.last and not full)
        if over or self._ordered:  # if not ordered, later pages may hold older changes
            self.reached_ms = self._newest_ms
        from_ms, key = self.next
        further = self._ordered and times and times[-1] > from_ms
        after = (times[-1], 0) if further else (from_ms, key + page.count)
        self.next = None if over else after

    def passed(self, until_ms: int) -> None:
        """Continue from ``until_ms``; all earlier changes were applied in some other way."""
        if self._ordered:
            self.reached_ms = max(self.reached_ms, until_ms - 1)
        self.next = (until_ms, 0)

    def _note(self, page: Page) -> None:
        if len(self._seen) > _REMEMBERED:
            self._seen.clear()
        before = len(self._seen)
        self._seen.update((one.id, one.updated_ms) for one in page.records)
        self._fruitless = 0 if len(self._seen) > before else self._fruitless + 1
        if self._fruitless >= FRUITLESS and not page.last:
            raise Malformed("the service repeats its pages without an end")


def newest_plausible(times_ms: Sequence[int], plausible_ms: int) -> int:
    """Return the newest plausible time, or the newest time if none is plausible; 0 for no times."""
    return max([time for time in times_ms if time <= plausible_ms] or times_ms, default=0)
