"""Brings the contents of a directory into the catalogue when somebody opens it.

A day is listed completely, with several pages requested at a time. For a year or a month, the
lister only finds out which parts hold anything, by searches for one record. Each directory has at
most one listing at a time. The lister owns it: a caller waits for it, and may leave without
ending it.
"""

import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import trio

from phonofs.catalogue.catalogue import Catalogue, ChangeSet
from phonofs.catalogue.progress import SECOND_MS
from phonofs.discovery.estimates import DaySizeEstimator
from phonofs.discovery.listing_pass import ListingPass
from phonofs.discovery.page_worker import PageWorker
from phonofs.discovery.pagination import (
    MOST_ODD_PAGES,
    MOST_RECORDS,
    ListingConsistency,
    OffsetPager,
)
from phonofs.discovery.planning import CoverageSnapshot, Span
from phonofs.discovery.sequential_days import SequentialDays
from phonofs.discovery.single_flight import SharedCall, SingleFlight
from phonofs.errors import Malformed, Unavailable
from phonofs.model import Query, Record
from phonofs.priority import Priority
from phonofs.service.client import Client
from phonofs.tree.layout import ROOT, Directory, named

SIDE_BY_SIDE = 14
"""Concurrent searches of one listing: two of the usual 16 connections stay free for readers."""

REFRESH_S = 0.7
"""How long opening a known directory waits for changes before it shows what is known."""

PAUSE_S = 5.0
"""A directory that was checked less than this long ago is not checked again."""

MOST_FOUND = 2000
"""A day with at most this many objects is listed when its name is looked up. That takes 20
searches, fewer than finding out which days its month has."""

MOST_AHEAD = 20_000
"""A day with at most this many objects is listed ahead, if the days before it were opened."""

TOGETHER_S = 10.0
"""A listing that began at most this long before the follower counts as one that began after it:
the follower's next poll goes back further than that (``poll.OVERLAP_MS``)."""

_Value = TypeVar("_Value")
_One = tuple[Record | None, int | None]


class Paged(Protocol):
    """The settings of the lister (``config.Settings`` has them)."""

    @property
    def page_size(self) -> int:
        """Records per search page."""

    @property
    def max_connections(self) -> int:
        """The most connections to the service."""

    @property
    def cache_min_free(self) -> int:
        """Bytes to leave free on the disk."""

    @property
    def read_deadline(self) -> float:
        """The longest time that a caller waits, in seconds."""


class _Edge(NamedTuple):
    """The limit of what a listing can know, and when the listing began.

    ms       epoch ms; None if nobody follows the region's changes
    asked_s  trio's clock
    """

    ms: int | None
    asked_s: float


@dataclass
class _Listing:
    """A day that is being listed.

    known     whether it was listed before, so that any new object in it was created since
    open      spans of creation time that are still to be listed, in order (UTC ms)
    seen      ids of all records received
    rejected  how many records could not be parsed
    """

    of: Directory
    known: bool
    urgent: Priority
    open: list[Span]
    seen: set[str] = field(default_factory=set)
    rejected: int = 0

    def add(self, passes: ListingConsistency) -> None:
        """Add the results of the passes over one span."""
        self.seen |= passes.seen
        self.rejected += passes.rejected


class Lister:
    """Owns the running listings, when each directory was last checked, and the size estimates."""

    def __init__(
        self,
        service: Client,
        catalogue: Catalogue,
        settings: Paged,
        on_changes: Callable[[ChangeSet], None] = lambda changes: None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        page_worker: PageWorker | None = None,
    ) -> None:
        """``on_changes`` is called with what a listing changed in the catalogue."""
        self._service = service
        self._catalogue = catalogue
        self._page_size = settings.page_size
        self._slots = max(1, min(SIDE_BY_SIDE, settings.max_connections - 2))
        self._deadline_s = settings.read_deadline
        self._min_free = settings.cache_min_free
        self._on_changes = on_changes
        self._now_ms = now_ms
        self._single_flight = SingleFlight()
        self._looked: dict[int, float] = {}
        self._sizes = DaySizeEstimator()
        self._sequential_days = SequentialDays()
        self._page_worker = page_worker or PageWorker(catalogue.view)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the listings until cancelled."""
        await self._single_flight.run(task_status=task_status)

    def needs(self, ino: int) -> bool:
        """Return whether the service must be asked before a directory can be shown."""
        of = self._catalogue.shown_directory(ino)
        if of is None:
            return False
        knowledge = self._knowledge(of)
        if not knowledge.whole(of):
            return True
        rested = trio.current_time() - self._looked.get(ino, -math.inf) >= PAUSE_S
        return rested and ino not in self._single_flight and knowledge.stale(of)

    def opened(self, ino: int) -> None:
        """Note that a directory is opened; if days are opened in sequence, list the next one."""
        day = self._catalogue.shown_directory(ino)
        if day is None or day.parent is None or not day.day:
            return
        siblings = self._catalogue.known(day.parent)
        after = self._sequential_days.opened(day, trio.current_time(), siblings)
        if (
            after is not None
            and after.ino not in self._single_flight
            and self._sizes.known(after) <= MOST_AHEAD
            and not self._knowledge(after).whole(after)
        ):
            with suppress(Unavailable):
                self._start(after.ino, after, urgent=False)

    def begin(self) -> None:
        """Start listing each region that was never listed: regions are what users open first."""
        regions = [entry.ino for entry in self._catalogue.children(ROOT) if entry.is_directory]
        for ino in [ROOT] if self._catalogue.shown_directory(ROOT) else regions:
            of = self._catalogue.shown_directory(ino)
            if (
                of is not None
                and ino not in self._single_flight
                and not self._knowledge(of).whole(of)
            ):
                self._start(ino, of)

    async def list(self, ino: int) -> bool:
        """List a directory; all callers for one directory share one listing.

        Return whether the service has answered: a directory that can already be shown is shown
        without an answer too.

        If the directory can already be shown, wait only briefly (``REFRESH_S``) for changes.
        Raises ServiceError if a directory that was never listed cannot be listed, or not in time:
        a partial listing is never shown. A listing that takes longer continues, for the next
        caller.
        """
        of = self._catalogue.shown_directory(ino)
        if of is None:
            return False
        call = self._start(ino, of)
        if not self._knowledge(of).whole(of):
            await call.wait(self._deadline_s)
            return True
        call.priority.rise()
        with trio.move_on_after(REFRESH_S):
            await call.over.wait()
        return call.over.is_set() and call.error is None

    async def find(self, ino: int, name: str) -> None:
        """Ask the service for ``name`` in a directory, without listing the whole directory.

        In a year or a month this takes one small search instead of one for each part. If the name
        is that of a day, list that day unless it is large, since it is probably opened next.
        Raises as :meth:`list` does.
        """
        of = self._catalogue.shown_directory(ino)
        knowledge = self._knowledge(of) if of is not None and not of.day else None
        if of is None or knowledge is None or knowledge.edge_ms is None:
            await self.list(ino)
            return
        part = named(of, name)
        if part is None:
            return  # a directory of directories holds nothing else
        if knowledge.whole(of):
            await self.list(ino)
        elif part not in knowledge.unsettled(of):
            return
        elif part.day and self._sizes.expected(part) <= MOST_FOUND:
            await self.list(part.ino)
        else:
            call = self._single_flight.start(part, part.name, lambda _: self._probe(of, part))
            await call.wait(self._deadline_s)

    def statistics(self) -> dict[str, object]:
        """Return the number of running listings."""
        return {"listings": len(self._single_flight)}

    def _start(self, ino: int, of: Directory, *, urgent: bool = True) -> SharedCall:
        work = partial(self._list, ino, of)
        return self._single_flight.start(ino, of.name or "the root", work, urgent=urgent)

    async def _list(self, ino: int, of: Directory, urgent: Priority) -> None:
        try:
            if of.day:
                await self._list_day(of, urgent)
            else:
                await self._list_parts(of)
        finally:
            self._looked[ino] = trio.current_time()

    # what is known

    def _knowledge(self, of: Directory) -> CoverageSnapshot:
        catalogue, region = self._catalogue, self._catalogue.region_of(of)
        return CoverageSnapshot(
            catalogue.calendar,
            catalogue.progress.listed(region),
            catalogue.progress.edge_ms(region),
            catalogue.progress.following(region),
            self._now_ms(),
            catalogue.since_ms,
            catalogue.known,
        )

    def _query(
        self, of: Directory, start_ms: int, stop_ms: int, *, descending: bool = False
    ) -> Query:
        """Return a search for what was created in a span; the span of all time gets no bounds."""
        scope = self._catalogue.view.scope
        _, end_ms = self._catalogue.calendar.span_ms(Directory(of.region))
        return Query(
            created_from_ms=start_ms or None,
            created_until_ms=stop_ms if stop_ms < end_ms else None,
            types=scope.types,
            states=scope.states,
            descending=descending,
        )

    def _edge_before(self, of: Directory) -> _Edge:
        """Return the limit of what a listing that begins now can know, if it is followed."""
        region = self._catalogue.region_of(of)
        progress = self._catalogue.progress
        edge_ms = progress.edge_ms(region) if progress.following(region) else None
        return _Edge(edge_ms, trio.current_time())

    def _mark(self, of: Directory, start_ms: int, stop_ms: int, edge: _Edge) -> None:
        """Mark a span as listed, up to the listing's edge if the region is followed, else up to
        the newest change seen.

        Mark nothing if the follower began long after the listing: some changes in between would
        count as known and would be missed.
        """
        region, edge_ms = self._catalogue.region_of(of), edge.ms
        progress = self._catalogue.progress
        together = trio.current_time() - edge.asked_s <= TOGETHER_S
        if edge_ms is None and (together or not progress.following(region)):
            edge_ms = progress.edge_ms(region)
        if edge_ms is not None:
            progress.mark_listed(region, start_ms, min(stop_ms, edge_ms))

    # years and months

    async def _list_parts(self, of: Directory) -> None:
        """Find out which parts of a directory hold anything."""
        region = self._catalogue.region_of(of)
        followed = self._catalogue.progress.watermark(region) is not None
        await self._bound(of)
        if self._catalogue.progress.watermark(region) is not None and not followed:
            await self._bound(of)  # the follower began, which discards what was found before
        knowledge = self._knowledge(of)
        parts = knowledge.unsettled(of)
        if not knowledge.following:
            parts += [part for part in knowledge.recent(of) if part not in parts]
        await self._each(partial(self._probe, of), parts)

    async def _bound(self, of: Directory) -> None:
        """If more than two parts are unsettled, search for both ends: two searches save many."""
        knowledge = self._knowledge(of)
        parts = knowledge.unsettled(of)
        if knowledge.edge_ms is None:
            await self._find_ends(of, *knowledge.span(of))
        elif len(parts) > 2:
            start_ms, stop_ms = knowledge.span(parts[0])[0], knowledge.span(parts[-1])[1]
            await self._find_ends(of, start_ms, stop_ms)

    async def _find_ends(self, of: Directory, start_ms: int, stop_ms: int) -> None:
        """Find the first and the last object of a span; outside of them there is nothing.

        The span is not cut at the edge: the search includes what was created after it.
        """
        region, edge = self._catalogue.region_of(of), self._edge_before(of)
        ends: dict[bool, _One] = {}

        async def look(descending: bool) -> None:
            query = self._query(of, start_ms, stop_ms, descending=descending)
            ends[descending] = await self._one(region, query)

        await self._each(look, (False, True))
        (first, total), (last, _) = ends[False], ends[True]
        self._take_in([end for end in (first, last) if end])
        if first is None and last is None:
            self._mark(of, start_ms, stop_ms, edge)
        elif first is not None and last is not None and _may_be_ends(first, last, total):
            self._sizes.spread(of.region, first.created_ms, last.created_ms, total)
            self._mark(of, start_ms, first.created_ms, edge)
            self._mark(of, last.created_ms + 1, stop_ms, edge)

    async def _probe(self, of: Directory, part: Directory) -> None:
        """Find out whether a part holds anything, and store the record found."""
        edge = self._edge_before(of)
        span = self._knowledge(of).span(part)
        found, total = await self._one(self._catalogue.region_of(of), self._query(of, *span))
        self._sizes.said(part, total)
        if found is not None:
            self._take_in([found])
        else:
            self._mark(of, *span, edge)

    async def _one(self, region: str, query: Query) -> _One:
        """Return the first usable record of a search, and the total number of records, if known.

        A page marked as the last is not believed if its total says that there are more records.
        Raises ServiceError, also if no record can be parsed.
        """
        key, limit = 0, 1
        for _ in range(MOST_ODD_PAGES):
            page = await self._service.search(region, query, key, limit)
            key, limit = key + page.count, self._page_size
            over = not page.count or (page.last and (page.total or 0) <= key)
            if page.records or over:
                total = page.total or (key if page.last else None)
                return (page.records[0] if page.records else None), total
        raise Malformed(f"no record of {key} in {region} can be understood")

    # days

    async def _list_day(self, of: Directory, urgent: Priority) -> None:
        """List a day until the passes are consistent, then remove objects and mark it listed."""
        region = self._catalogue.region_of(of)
        knowledge = self._knowledge(of)
        start_ms, stop_ms = knowledge.span(of)
        before = self._catalogue.known_objects(region, start_ms, stop_ms)
        edge = self._edge_before(of)
        listing = _Listing(of, knowledge.whole(of), urgent, [(start_ms, stop_ms)])
        while listing.open:
            span = listing.open.pop(0)
            listing.open[:0] = await self._list_span(listing, span)
        self._sizes.listed(of, len(listing.seen))
        if not listing.rejected:  # a record that cannot be parsed may be of any known object
            self._tell(self._catalogue.reconcile(before, listing.seen, self._now_ms()))
        self._mark(of, start_ms, stop_ms, edge)

    async def _list_span(self, listing: _Listing, span: Span) -> Sequence[Span]:
        """List what was created in a span; return the spans that have to be listed after it.

        A search may end early: beyond some offset the service refuses to answer, or shows
        nothing. The listing then continues from the last time of creation reached, until nothing
        indicates that there is more.
        """
        paging, complete = await self._passes(listing, span)
        if not complete and not paging.refused:
            name = listing.of.name
            raise Unavailable(f"{name} changed all the time while it was listed; try again")
        if complete and not paging.doubted:
            return []
        start_ms, stop_ms = span
        last_ms = paging.last_created_ms
        if not complete or (last_ms is None and paging.large and paging.denied):
            middle_ms = (start_ms + stop_ms) // 2
            if stop_ms - start_ms > SECOND_MS:  # else there are too many in one second
                return [(start_ms, middle_ms), (middle_ms, stop_ms)]
        elif last_ms is not None and last_ms > start_ms:
            return [(last_ms, stop_ms)]
        if paging.large and paging.denied:
            raise Malformed(
                f"{listing.of.name} cannot be listed: more objects were created in one second than"
                " the service shows; set 'types', so that it has to show fewer"
            )
        return []

    async def _passes(self, listing: _Listing, span: Span) -> tuple[OffsetPager, bool]:
        """Repeat passes over a span until consistent; return the last one and whether it is."""
        of, passes = listing.of, ListingConsistency()
        region = (self._catalogue.region_of(of), of.region)
        first = not listing.seen

        def check(count: int) -> None:
            self._check_free_space(of, len(listing.seen) + count)

        while True:
            expected = self._sizes.expected(of) if first else 0
            self._page_worker.expect(self._sizes.known(of) if first else 0)
            paging = OffsetPager(self._page_size, self._slots, expected)
            listing_pass = ListingPass(
                self._service, self._catalogue, self._page_worker, self._tell,
                known=listing.known, first=first and not passes.seen, urgent=listing.urgent,
                check=check,
            )  # fmt: skip
            await listing_pass.run(region, self._query(of, *span), paging)
            passes.feed(paging)
            if not passes.again or paging.refused:
                listing.add(passes)
                return paging, paging.adds_up if paging.refused else passes.complete

    def _check_free_space(self, of: Directory, count: int) -> None:
        """Raise Malformed if a listing is endless, CatalogueError if the disk is too full."""
        if count > MOST_RECORDS:
            raise Malformed(f"{of.name} cannot be listed: it has more than {MOST_RECORDS} objects")
        self._catalogue.check_free_space(count, self._min_free, of.name)

    def _take_in(self, records: Sequence[Record]) -> None:
        """Apply records to the catalogue; their objects existed before."""
        if records:
            self._tell(self._catalogue.apply(records, listed=True))

    def _tell(self, changes: ChangeSet) -> None:
        if changes:
            self._on_changes(changes)

    async def _each(
        self, ask: Callable[[_Value], Awaitable[None]], values: Iterable[_Value]
    ) -> None:
        """Call ``ask`` for each value, several at a time."""
        slots = trio.CapacityLimiter(self._slots)

        async def one(value: _Value) -> None:
            async with slots:
                await ask(value)

        async with trio.open_nursery() as nursery:
            for value in values:
                nursery.start_soon(one, value)


def _may_be_ends(first: Record, last: Record, total: int | None) -> bool:
    """Return whether ``first`` and ``last`` can be the ends of ``total`` records in order."""
    if first.id == last.id:
        return total == 1
    return first.created_ms <= last.created_ms
