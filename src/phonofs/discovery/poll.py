"""How the changes of a region are asked for, page by page. Pure.

The set grows at its end and loses records from its middle (a changed one moves to the end), so
offsets alone would skip some. The next page is therefore asked for from the newest time reached,
at offset 0; only where a whole page has one and the same time, the offset goes on.
"""

from collections.abc import Sequence
from typing import NamedTuple

from phonofs.errors import Malformed
from phonofs.model import Page

OVERLAP_MS = 120_000
"""How late after its ``updatedTime`` a record may be shown and still come with the next poll;
and records share a second."""

SWEEP_MS = 3_600_000
SWEEP_EVERY = 15
"""Each run's first poll, and every so many, look for records up to an hour late."""

FAR_MS = 50 * SWEEP_MS
FAR_EVERY_S = 6 * 3600.0
"""Once in each run, and every so often, a poll looks for records up to two days late: what is
indexed again after a failure of the service appears so. It costs a search for each page of the
objects that changed in two days: 1 for 100, 200 for 20,000."""

_FRUITLESS = 8
"""Pages without anything new before the service is taken to repeat itself."""

_REMEMBERED = 50_000
"""Changes kept in mind to notice repetition, 8 MB: a catch-up may have millions."""


class Ask(NamedTuple):
    """The next search: from which ``updatedTime`` on, at which offset, how many."""

    from_ms: int
    key: int
    limit: int


class ChangePoll:
    """One poll of a region. Owns how far it got.

    reached_ms  all changes up to here have come
    """

    def __init__(
        self, watermark_ms: int, polls: int, limit: int, quiet_s: float = 0.0, *, far: bool = False
    ) -> None:
        """``polls``: how many there were before in this run. ``far``: look back two days.

        ``quiet_s``: how long the watermark has stood still. By the service's clock it is later
        by as much, so there is less to go back; at last nothing but the watermark itself.
        """
        late_ms = FAR_MS if far else SWEEP_MS if polls % SWEEP_EVERY == 0 else OVERLAP_MS
        back_ms = max(late_ms - int(quiet_s * 1000), 0)
        self.reached_ms = watermark_ms
        self._ask: Ask | None = Ask(max(watermark_ms - back_ms, 0), 0, limit)
        self._seen: set[tuple[str, int]] = set()
        self._ordered = True
        self._newest_ms = watermark_ms
        self._fruitless = 0

    def next(self) -> Ask | None:
        """The search to make now; None when all has come."""
        return self._ask

    def feed(self, page: Page, plausible_ms: int) -> None:
        """Take in the page; times later than ``plausible_ms`` move nothing.

        Raises Malformed when the service repeats itself without an end.
        """
        assert self._ask is not None
        self._note(page)
        times = [one.updated_ms for one in page.records if one.updated_ms <= plausible_ms]
        self._ordered = self._ordered and times == sorted(times)
        self._newest_ms = max([self._newest_ms, *times])
        # A full page that calls itself the last one may not be: the next one tells, unless it is
        # always the same.
        full = page.count >= self._ask.limit and self._fruitless < _FRUITLESS
        over = page.count == 0 or (page.last and not full)
        if over or self._ordered:  # else later pages may hold older changes
            self.reached_ms = self._newest_ms
        self._ask = None if over else self._following(self._ask, page, times)

    def passed(self, until_ms: int) -> None:
        """All that changed before ``until_ms`` was taken in some other way: go on from there."""
        assert self._ask is not None
        if self._ordered:
            self.reached_ms = max(self.reached_ms, until_ms - 1)
        self._ask = Ask(until_ms, 0, self._ask.limit)

    def _following(self, ask: Ask, page: Page, times: Sequence[int]) -> Ask:
        if self._ordered and times and times[-1] > ask.from_ms:
            return Ask(times[-1], 0, ask.limit)
        return Ask(ask.from_ms, ask.key + page.count, ask.limit)

    def _note(self, page: Page) -> None:
        if len(self._seen) > _REMEMBERED:
            self._seen.clear()
        before = len(self._seen)
        self._seen.update((one.id, one.updated_ms) for one in page.records)
        self._fruitless = 0 if len(self._seen) > before else self._fruitless + 1
        if self._fruitless >= _FRUITLESS and not page.last:
            raise Malformed("the service repeats its pages without an end")


def newest_plausible(times_ms: Sequence[int], plausible_ms: int) -> int:
    """The newest of these times that can be true; the newest at all where none can."""
    return max([time for time in times_ms if time <= plausible_ms] or times_ms, default=0)
