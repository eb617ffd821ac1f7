"""Which pages of a listing to ask for next, side by side, when nobody knows how many there are.

Pure. ``pageKey`` is an offset into a set that may change while it is paged through, so that a
record can be skipped or come twice. Pages therefore overlap by one record: where two neighbours
do not agree on it, something moved between them. What adds up at the end is complete.
"""

from collections.abc import Sequence
from typing import Protocol

from phonofs.errors import Malformed
from phonofs.ranges import Ranges

MOST_PASSES = 5
"""How often a listing is made before it is given up because it never adds up."""

_MOST_RECORDS = 2_000_000
"""Offsets beyond this are an endless service, not a listing: 200 times a large day."""

_FRUITLESS = 8
"""Pages without a new record before the service is taken to repeat itself."""

_OVERLAPS_FROM = 10
"""Smaller pages do not overlap: it would cost more than a tenth."""


class Listed(Protocol):
    """What came of a page (``model.Page``, ``parcels.Parcel``)."""

    @property
    def ids(self) -> Sequence[str]:
        """Of the records that can be used, in the order given."""

    @property
    def count(self) -> int:
        """How many records the page held."""

    @property
    def last(self) -> bool:
        """Whether the service says that it is the last one."""

    @property
    def total(self) -> int | None:
        """How many there are in all, if the service says so."""


class Paging:
    """One pass over a listing. Owns what was asked, what came, and what it adds up to.

    Invariant: ``_covered`` and ``_flying`` hold no offset beyond the furthest one asked; a pass
    is done when nothing is in flight, no offset before the end is missing, and the end was seen.
    """

    def __init__(self, limit: int, side_by_side: int, expected: int = 0) -> None:
        """``limit`` records a page; at most ``side_by_side`` pages in flight.

        ``expected`` is a guess at how many records there are: so many are asked for at once.
        """
        self.seen: set[str] = set()
        self.rejected = 0
        self.shifted = False
        self._limit = limit
        self._side_by_side = side_by_side
        step = limit - 1 if limit >= _OVERLAPS_FROM else limit
        self._ramp = max(1, -(-(expected - limit) // step) + 1)
        self._covered = Ranges()
        self._flying: dict[int, int] = {}
        self._edges: dict[int, str] = {}
        self._top = 0
        self._closed = False
        self._beyond: int | None = None
        self._total: int | None = None
        self._pages = 0
        self._fruitless = 0

    @property
    def size(self) -> int:
        """The number of records, when the pass is done."""
        return self._top

    @property
    def done(self) -> bool:
        """Whether there is nothing left to ask."""
        return not self._flying and self._closed and self._covered.covers(0, self._top)

    @property
    def adds_up(self) -> bool:
        """Whether a pass that is done saw every record: no page moved, none came twice."""
        whole = len(self.seen) + self.rejected >= self._top
        return whole and not self.shifted

    def ask(self) -> list[tuple[int, int]]:
        """The pages to ask for now: (``pageKey``, ``limit``); they count as in flight."""
        asks: list[tuple[int, int]] = []
        while len(self._flying) < self._allowed():
            key = self._next_key()
            if key is None:
                break
            self._flying[key] = self._limit
            asks.append((key, self._limit))
        return asks

    def _allowed(self) -> int:
        """1, 2, 4, 8 … in flight while the end is unknown; all at once when it is known."""
        known = self._total is not None and self._pages > 0
        return self._side_by_side if known else min(self._ramp + self._pages, self._side_by_side)

    def _next_key(self) -> int | None:
        reached = Ranges(self._covered)
        for key, limit in self._flying.items():
            reached.add(key, key + limit)
        frontier = max((stop for _, stop in reached), default=0)
        gap = reached.missing(0, frontier)
        if gap:
            return self._before(gap[0][0])
        key = self._before(frontier)
        if (
            self._closed
            or key in self._flying
            or (self._beyond is not None and key >= self._beyond)
        ):
            return None
        past_total = self._total is not None and frontier >= self._total
        return None if past_total and self._flying else key

    def _before(self, offset: int) -> int:
        """Where a page begins that overlaps what lies before ``offset`` by one record."""
        return max(offset - 1, 0) if self._limit >= _OVERLAPS_FROM else offset

    def feed(self, key: int, page: Listed) -> None:
        """Take in the page that was asked for at ``key``.

        Raises Malformed when the service repeats itself or never ends.
        """
        limit = self._flying.pop(key)
        stop = key + page.count
        self._pages += 1
        self._note_total(page)
        self._covered.add(key, stop)
        self._compare_edges(key, page.ids, page.count)
        self._note_end(key, stop, page)
        if page.count and not page.last and page.count < limit:
            self._limit = min(self._limit, page.count)  # it gives smaller pages than asked for
        self._note_progress(key, page.ids, page.count)

    def _note_total(self, page: Listed) -> None:
        if page.total is not None and page.total > 0:
            self.shifted |= self._total not in (None, page.total)
            self._total = page.total

    def _note_end(self, key: int, stop: int, page: Listed) -> None:
        """The end is where a last page stops, unless another one reached further."""
        if page.count == 0:
            self._beyond = key if self._beyond is None else min(self._beyond, key)
        if page.count and stop > self._top:
            self._closed = False
            self._top = stop
        ends_here = page.last and page.count > 0 and stop == self._top
        nothing_after = self._beyond is not None and self._beyond <= self._top
        self._closed = self._closed or ends_here or nothing_after

    def _compare_edges(self, key: int, ids: Sequence[str], count: int) -> None:
        """The first and the last record of each page against those of its neighbours."""
        if not ids or len(ids) != count:
            return
        for offset, id in ((key, ids[0]), (key + count - 1, ids[-1])):
            if self._edges.setdefault(offset, id) != id:
                self.shifted = True

    def _note_progress(self, key: int, ids: Sequence[str], count: int) -> None:
        before = len(self.seen) + self.rejected
        self.seen.update(ids)
        self.rejected += count - len(ids)
        if count > 1 and len(self.seen) + self.rejected == before:
            self._fruitless += 1
        if self._fruitless >= _FRUITLESS or key > _MOST_RECORDS:
            raise Malformed("the service repeats its pages without an end")


class Passes:
    """Several passes over the same listing, until one adds up. Owns what they saw together."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.rejected = 0
        self._sizes: list[int] = []
        self._whole = False

    def feed(self, done: Paging) -> None:
        """Take in a pass that is done."""
        self._sizes.append(done.size)
        self.rejected = max(self.rejected, done.rejected)
        self._whole = done.adds_up
        self.seen = set(done.seen) if self._whole else self.seen | done.seen

    @property
    def complete(self) -> bool:
        """Whether everything was seen.

        Where the service gives records of the same second in another order each time, no pass
        adds up by itself; but if as many were seen in all as each pass had, none is missing.
        """
        steady = len(self._sizes) > 1 and len(set(self._sizes)) == 1
        return self._whole or (steady and len(self.seen) + self.rejected == self._sizes[0])

    @property
    def again(self) -> bool:
        """Whether another pass is worth while."""
        return not self.complete and len(self._sizes) < MOST_PASSES
