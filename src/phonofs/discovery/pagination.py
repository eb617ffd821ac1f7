"""Decides which pages of a listing to request next, several at a time, with the number unknown.

Pure. ``pageKey`` is an offset into a set that may change during a listing, so a record can be
skipped or received twice. Pages therefore overlap by one record: if two neighbours disagree on it,
something moved between them. A pass that is consistent at its end is complete, unless something in
the service's answers contradicts that (:attr:`OffsetPager.doubted`).

``total`` is documented as the number of pages. In practice it is the number of records, but it may
be absent or anything else. It is believed only if it agrees with what was received.
"""

from collections.abc import Sequence

from phonofs.catalogue.prepared_page import PreparedPage
from phonofs.discovery.guesses import GUESSES, UNBOUNDED, next_guess
from phonofs.errors import Malformed
from phonofs.ranges import Ranges

MOST_PASSES = 5
"""A listing is given up after this many passes without a consistent result."""

MOST_RECORDS = 1_000_000
"""A listing with more records is taken to be endless: 100 times a large day."""

LEAST_WINDOW = 1000
"""A service that limits how far a search can be paged allows at least this many records."""

MOST_ODD_PAGES = 20
"""A search is given up after this many pages without a single usable record."""

_SHORT_PAGES = 3
"""After this many pages shorter than requested, and no full one, shorter ones are requested."""

FRUITLESS = 8
"""After this many pages without a new record, the service is taken to repeat itself."""

_OVERLAPS_FROM = 10
"""Pages of fewer records do not overlap: that would cost more than a tenth of each."""

_AHEAD = 6
"""There is no guess while so many times all requests are due for records that exist."""


class OffsetPager:
    """One pass over a listing. Owns what was requested and received, and the conclusions.

    seen      the ids of the usable records received
    rejected  how many records received could not be used
    shifted   whether two pages disagree about the record that both have
    size      the number of records, once the pass is done

    Invariant: ``_covered`` and ``_flying`` hold no offset beyond the furthest one requested; a
    pass is done when no request is in flight, no offset before the end is missing, and the end
    was seen.

    _reach    the offsets received or in flight; None if they have to be computed anew
    _arrived  of those in flight the ones that are here but not fed yet
    _misses   pages without anything new: they were requested although they did not exist
    _emptied  offsets that came empty once although ``total`` says that there is more
    """

    def __init__(self, limit: int, side_by_side: int, expected: int = 0) -> None:
        """``limit`` records per page; at most ``side_by_side`` requests in flight.

        ``expected`` is an estimate of the number of records: that many are requested at once.
        """
        self.seen: set[str] = set()
        self.rejected = 0
        self.shifted = False
        self.size = 0
        self._limit = limit
        self._side_by_side = side_by_side
        self._estimate = expected
        self._covered = Ranges()
        self._flying: dict[int, int] = {}
        self._reach: Ranges | None = None
        self._arrived: set[int] = set()
        self._edges: dict[int, str] = {}
        self._last_asked = self._last_flying = False
        self._last_id: str | None = None
        self._closed = False
        self._misses = 0
        self._beyond: int | None = None
        self._refused_at: int | None = None
        self._total: int | None = None
        self._totals: dict[int, set[int]] = {}
        self._spans: dict[int, tuple[int, tuple[int, int] | None]] = {}
        self._emptied: set[int] = set()
        self._stalled: set[int] = set()
        self._pages = 0
        self._largest = 0
        self._short = 0
        self._fruitless = 0
        self._barren = 0

    @property
    def expected(self) -> int:
        """The probable number of records; 0 while nothing is known."""
        if not self._total:
            return 0
        if self._total >= self.size:
            return self._total
        return self._total * self._limit if self._total * self._limit >= self.size else 0

    @property
    def done(self) -> bool:
        """Whether there is nothing left to request."""
        return not self._flying and (
            self._ended or (self._refused_at is not None and self._next_key() is None)
        )

    @property
    def _ended(self) -> bool:
        return self._closed and self._covered.covers(0, self.size)

    @property
    def refused(self) -> bool:
        """Whether the service refused an offset before the end was seen."""
        return self._refused_at is not None and not self._ended

    @property
    def adds_up(self) -> bool:
        """Whether a pass is done and consistent: it saw every record before its end, none moved,
        none was received twice, and no page before the end was empty.
        """
        received = len(self.seen) + self.rejected
        whole = self.done and self._reached >= self.size and received >= self.size
        shrank = self._beyond is not None and self._beyond < self.size
        changed = any(len(totals) > 1 for totals in self._totals.values()) and self._agrees
        return whole and not (self.shifted or shrank or changed)

    @property
    def _reached(self) -> int:
        """The offset before which everything was received."""
        return self._covered.stop_of(0)

    @property
    def _agrees(self) -> bool:
        """Whether a ``total`` of the service is the number of records, or of pages."""
        pages = {-(-self.size // limit) for limit in (self._limit, *self._totals)}
        totals = {total for totals in self._totals.values() for total in totals}
        return self.size in totals or not pages.isdisjoint(totals)

    @property
    def denied(self) -> bool:
        """Whether the service contradicts that everything was received: it refused an offset, or
        its ``total`` differs."""
        return self.refused or (bool(self._total) and not self._agrees)

    @property
    def doubted(self) -> bool:
        """Whether there may be more records after the end of a pass that is done.

        That is so if the service contradicts the end (``denied``), or if the listing is as long
        as the service may page at all and neither a ``total`` nor the last record confirms its end.
        """
        last_id = self._edges.get(self.size - 1)
        confirmed = last_id is not None and last_id == self._last_id
        return self.denied or (self.large and not self._agrees and not confirmed)

    def ask_last(self) -> bool:
        """Return whether to search for the last record now, once, and count it as in flight: the
        end will be doubted without it.
        """
        due = not self._last_asked and self.size >= LEAST_WINDOW and not self.expected
        if due:
            self._last_asked = self._last_flying = True
        return due

    def confirm(self, last_id: str | None) -> None:
        """Note which record a search in the opposite order has first; None if it failed."""
        self._last_flying = False
        self._last_id = last_id

    @property
    def large(self) -> bool:
        """Whether so many records were received that the service may refuse to page further."""
        return self.refused or self._reached >= LEAST_WINDOW

    @property
    def last_created_ms(self) -> int | None:
        """The creation time (epoch ms) of the last record before the first gap; None if the
        service does not order the records by it."""
        newest_ms = -1
        for key, (_, span) in sorted(self._spans.items()):
            if key >= self._reached:
                break
            if span is None or span[0] < newest_ms:
                return None
            newest_ms = max(newest_ms, span[1])
        return newest_ms if newest_ms >= 0 else None

    def refuse(self, key: int) -> None:
        """Note that the service refused the page at ``key``; only offsets before it remain."""
        self._flying.pop(key)
        self._reach = None
        self._misses += 1
        self._refused_at = key if self._refused_at is None else min(key, self._refused_at)

    def arrive(self, key: int) -> None:
        """Note that the page at ``key`` is here; ``feed`` follows once it was read."""
        self._arrived.add(key)

    @property
    def more(self) -> bool:
        """Whether there is a page to request as soon as there is room."""
        return self._next_key() is not None

    def leads(self, key: int) -> bool:
        """Whether the page at ``key`` tells how far to go: not all before it is requested yet."""
        return self._requested.stop_of(0) < key

    @property
    def _requested(self) -> Ranges:
        """The offsets received or in flight."""
        if self._reach is None:
            self._reach = Ranges(self._covered)
            for offset, limit in self._flying.items():
                self._reach.add(offset, offset + limit)
        return self._reach

    def ask(self) -> list[tuple[int, int]]:
        """Return the pages to request now, as (``pageKey``, ``limit``); count them as in flight.

        A page that is here but not read yet makes room for another request, up to as many: also
        if all pages arrive together, the next ones are requested before any of them is read.
        """
        asks: list[tuple[int, int]] = []
        room = self._side_by_side - self._last_flying
        most = 2 * room - 1
        while len(self._flying) - len(self._arrived) < room and len(self._flying) < most:
            key = self._next_key()
            if key is None:
                break
            self._requested.add(key, key + self._limit)
            self._flying[key] = self._limit
            asks.append((key, self._limit))
        return asks

    def _next_key(self) -> int | None:
        """Return the next offset to request: a guess, if one is due, else the first one missing
        of those that exist; None if there is nothing to request now.
        """
        reached = self._requested
        missing = reached.missing(0, self.size if self._closed else self._existing)
        due = sum(stop - start for start, stop in missing)
        if due < self._plenty:
            guess = self._guess(due < self._side_by_side * self._limit)
            if guess is not None:
                return guess
        key = self._before(missing[0][0]) if missing else None
        return None if key is None or key in self._flying or key >= self._bound else key

    @property
    def _plenty(self) -> int:
        """Enough records that are missing for now: more need not be known to exist."""
        return _AHEAD * self._side_by_side * self._limit

    @property
    def _existing(self) -> int:
        """The offset before which there are records, as far as the service says so, or as long as
        nothing contradicts the estimate.
        """
        unsure = not (self._misses or (self._pages and self.expected))
        return max(self.size + 1, self.expected, self._estimate if unsure else 0)

    @property
    def _bound(self) -> int:
        """The least offset that is not to be requested: it was refused, or came empty, or follows
        one that came empty and is to be requested again.
        """
        bounds = [at + 1 for at in self._emptied if not self._covered.covers(at, at + 1)]
        bounds += [] if self._beyond is None else [max(self._beyond, self.size + 1)]
        bounds += [] if self._refused_at is None else [self._refused_at]
        return min(bounds, default=UNBOUNDED)

    def _guess(self, hurry: bool) -> int | None:
        """Return an offset to request although nothing says that it exists; None for none now.

        Once the first pages before the estimate are here, it counts as true. One page beyond it is
        looked for when there is little left to request before it (``hurry``): its answer is here
        when that is requested.

        Unless there is a ``hurry``, one guess at a time is enough, and each one knows what the
        former ones found.
        """
        if self._closed or (self._pages and self.expected):
            return None
        some = self._estimate > 2 * self._limit  # two pages are no estimate
        untested = some and any(key < self._estimate for key in self._flying)
        here = self._pages + len(self._arrived)
        holds = untested and 2 * here >= self._side_by_side and not self._misses
        size = max(self.size, self._estimate) if holds else self.size
        if not size or (untested and not holds):
            return None
        if self.size < self._estimate and not hurry:
            return None
        if any(key + self._limit > size for key in self._arrived):
            return None  # a page that is here shows more
        step = self._limit - (self._limit >= _OVERLAPS_FROM)
        sure = size - 1 + step  # the page before it is requested in any case
        guesses = [key for key in self._flying if key >= sure]
        if len(guesses) >= (GUESSES if hurry and not untested else 1):
            return None
        return next_guess(sure, step, self._bound, self._misses, guesses)

    def _before(self, offset: int) -> int:
        """Return where a page begins that overlaps the records before ``offset`` by one.

        Return ``offset`` if such a page had only that one record: a page without an overlap then
        shows whether the listing ends there.
        """
        overlaps = self._limit >= _OVERLAPS_FROM and offset not in self._stalled
        return max(offset - 1, 0) if overlaps else offset

    def feed(self, key: int, page: PreparedPage) -> None:
        """Note the page received for ``key``.

        Raises Malformed if the service repeats its pages or the listing is endless.
        """
        limit = self._flying.pop(key)
        self._reach = None
        self._arrived.discard(key)
        stop = key + page.count
        self._pages += 1
        self._note_total(page, limit)
        if not page.count and page.total and page.total > key and key not in self._emptied:
            self._emptied.add(key)  # its total says there is more: request it again
            return
        further = not self._covered.covers(key, stop)
        self._misses += not further
        if page.count and not further:
            self._stalled.add(stop)
        self._covered.add(key, stop)
        self._compare_edges(key, page.ids, page.count)
        self._note_end(key, stop, page)
        self._note_size(page, limit)
        self._note_progress(key, page.ids, page.count, further)
        if page.count:
            self._spans[key] = stop, page.created_span_ms

    def _note_total(self, page: PreparedPage, limit: int) -> None:
        if page.total is not None and page.total > 0:
            self._totals.setdefault(limit, set()).add(page.total)
            self._total = page.total

    def _note_size(self, page: PreparedPage, limit: int) -> None:
        """Request smaller pages if the service never returns as many records as requested."""
        self._largest = max(self._largest, page.count)
        self._short += page.count < limit and page.count > 0 and not page.last
        if self._short >= _SHORT_PAGES and self._largest < self._limit:
            self._limit = self._largest

    def _note_end(self, key: int, stop: int, page: PreparedPage) -> None:
        """Note the end: where a page marked as last stops, unless another reached further."""
        if page.count == 0:
            self._beyond = key if self._beyond is None else min(self._beyond, key)
        if page.count and stop > self.size:
            self._closed = False
            self.size = stop
        ends_here = page.last and page.count > 0 and stop == self.size
        nothing_after = self._beyond is not None and self._beyond <= self.size
        self._closed = self._closed or ends_here or nothing_after

    def _compare_edges(self, key: int, ids: Sequence[str], count: int) -> None:
        """Compare the first and the last record of each page with those of its neighbours."""
        if not ids or len(ids) != count:
            return
        for offset, id in ((key, ids[0]), (key + count - 1, ids[-1])):
            if self._edges.setdefault(offset, id) != id:
                self.shifted = True

    def _note_progress(self, key: int, ids: Sequence[str], count: int, further: bool) -> None:
        """Count pages without progress. ``further``: this page reached offsets not seen before."""
        before = len(self.seen) + self.rejected
        self.seen.update(ids)
        self.rejected += count - len(ids)
        if (count > 1 or further) and len(self.seen) + self.rejected == before:
            self._fruitless += 1
        self._barren += count > 0 and not ids
        if self._barren > MOST_ODD_PAGES:
            raise Malformed("hardly any of the records of a listing can be understood")
        if self._fruitless >= FRUITLESS or key > MOST_RECORDS:
            raise Malformed("the service repeats its pages without an end")


def complete(passes: Sequence[OffsetPager]) -> bool:
    """Return whether passes over one listing saw every record: the last one, or all together.

    If the service orders records of the same second differently each time, no single pass is
    consistent. But if all passes together saw as many records as each pass had, none is missing, if
    each came to its end.
    """
    seen = set[str]().union(*(one.seen for one in passes))
    together = len(seen) + max(one.rejected for one in passes)
    steady = len(passes) > 1 and {one.size for one in passes} == {together}
    return passes[-1].adds_up or (steady and all(one.done for one in passes))
