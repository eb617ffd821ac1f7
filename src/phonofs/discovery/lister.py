"""Brings the contents of a folder into the catalogue when somebody opens it.

A day is listed whole, its pages side by side; of a year or month it is only found out which
parts hold anything, by searches for one record. Each folder has one listing at a time, which
belongs to the lister: callers wait for it, and go without ending it.
"""

import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

import trio

from phonofs.catalogue.catalogue import Catalogue, ChangeSet
from phonofs.catalogue.progress import SECOND_MS
from phonofs.discovery.estimates import DaySizeEstimator
from phonofs.discovery.interfaces import Paged, Service
from phonofs.discovery.listing_pass import ListingPass
from phonofs.discovery.page_worker import PageWorker
from phonofs.discovery.pagination import ListingConsistency, OffsetPager
from phonofs.discovery.planning import CoverageSnapshot, Span
from phonofs.discovery.sequential_days import SequentialDays
from phonofs.discovery.single_flight import SharedCall, SingleFlight
from phonofs.errors import Malformed, Unavailable
from phonofs.model import Query, Record
from phonofs.priority import Priority
from phonofs.tree.layout import ROOT, Folder, named

SIDE_BY_SIDE = 14
"""Searches of one listing in flight: two of the usual 16 connections stay free for readers."""

REFRESH_S = 0.7
"""How long the opening of a known folder waits for news before it shows what is known."""

PAUSE_S = 5.0
"""A folder that was looked at this short a while ago is not looked at again."""

MOST_FOUND = 2000
"""Objects that a day may have to be listed when its name is looked up: 20 questions, fewer than
to find out what its month has."""

MOST_AHEAD = 20_000
"""Objects of a day that is listed before somebody opens it, since the days before were."""

TOGETHER_S = 10.0
"""A listing asked for this short a while before the follower began counts as one asked for after:
the follower's next poll goes back further than that (``poll.OVERLAP_MS``)."""

MOST_RECORDS = 1_000_000
"""Records of one day before the service is taken to be endless: 100 times a large day."""

MOST_ODD_PAGES = 20
"""Pages without a single usable record before a part is given up."""

_Value = TypeVar("_Value")
_One = tuple[Record | None, int | None]


class _Edge(NamedTuple):
    """Up to when a listing can speak, if it is followed (epoch ms), and when it was asked for."""

    ms: int | None
    asked_s: float


@dataclass
class _Listing:
    """A day that is being listed.

    known     it was listed before, so what is new in it was created since
    open      spans of creation time that are still to be listed, in order (UTC ms)
    seen      ids of all records that came
    rejected  how many could not be understood
    """

    of: Folder
    known: bool
    urgent: Priority
    open: list[Span]
    seen: set[str] = field(default_factory=set)
    rejected: int = 0

    def add(self, passes: ListingConsistency) -> None:
        """Add what the passes over one span saw."""
        self.seen |= passes.seen
        self.rejected += passes.rejected


class Lister:
    """Owns the listings on their way, when each folder was last looked at, and guesses of sizes."""

    def __init__(
        self,
        service: Service,
        catalogue: Catalogue,
        settings: Paged,
        on_changes: Callable[[ChangeSet], None] = lambda changes: None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        page_worker: PageWorker | None = None,
    ) -> None:
        """``on_changes`` is told what a listing changed of what was known before."""
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
        """Hold the listings until cancelled."""
        await self._single_flight.run(task_status=task_status)

    def needs(self, ino: int) -> bool:
        """Whether the service must be asked before a folder can be shown."""
        of = self._catalogue.shown_folder(ino)
        if of is None:
            return False
        knowledge = self._knowledge(of)
        if not knowledge.whole(of):
            return True
        rested = trio.current_time() - self._looked.get(ino, -math.inf) >= PAUSE_S
        return rested and ino not in self._single_flight and knowledge.stale(of)

    def opened(self, ino: int) -> None:
        """Somebody opens a folder: where one day after the other is opened, list the next one."""
        day = self._catalogue.shown_folder(ino)
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
        """Look at what each region has where that was never done: it is what is opened first."""
        regions = [entry.ino for entry in self._catalogue.children(ROOT) if entry.folder]
        for ino in [ROOT] if self._catalogue.shown_folder(ROOT) else regions:
            of = self._catalogue.shown_folder(ino)
            if (
                of is not None
                and ino not in self._single_flight
                and not self._knowledge(of).whole(of)
            ):
                self._start(ino, of)

    async def list(self, ino: int) -> None:
        """Ask the service for a folder; all callers for one folder share one listing.

        Of a folder that can be shown it only waits a moment for news. Raises ServiceError when a
        folder that was never listed could not be, or not in time: half of it is not shown. A
        listing that takes longer goes on, for the next one who asks.
        """
        of = self._catalogue.shown_folder(ino)
        if of is None:
            return
        call = self._start(ino, of)
        if not self._knowledge(of).whole(of):
            await call.wait(self._deadline_s)
            return
        call.priority.rise()
        with trio.move_on_after(REFRESH_S):
            await call.over.wait()

    async def find(self, ino: int, name: str) -> None:
        """Ask the service for what is called ``name`` in a folder that may be listed no further.

        Of a year or a month that is one small question instead of one for each of its parts; of a
        day its listing, which is what follows, unless it is large. Raises as :meth:`list`.
        """
        of = self._catalogue.shown_folder(ino)
        knowledge = self._knowledge(of) if of is not None and not of.day else None
        if of is None or knowledge is None or knowledge.edge_ms is None:
            await self.list(ino)
            return
        part = named(of, name)
        if part is None:
            return  # a folder of folders has nothing else
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
        """Listings on their way."""
        return {"listings": len(self._single_flight)}

    def _start(self, ino: int, of: Folder, *, urgent: bool = True) -> SharedCall:
        work = partial(self._list, ino, of)
        return self._single_flight.start(ino, of.name or "the root", work, urgent=urgent)

    async def _list(self, ino: int, of: Folder, urgent: Priority) -> None:
        try:
            if of.day:
                await self._list_day(of, urgent)
            else:
                await self._list_parts(of)
        finally:
            self._looked[ino] = trio.current_time()

    # what is known

    def _knowledge(self, of: Folder) -> CoverageSnapshot:
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

    def _query(self, of: Folder, start_ms: int, stop_ms: int, *, descending: bool = False) -> Query:
        """A search for what was created in a stretch; all time is asked for without bounds."""
        scope = self._catalogue.view.scope
        _, end_ms = self._catalogue.calendar.span_ms(Folder(of.region))
        return Query(
            created_from_ms=start_ms or None,
            created_until_ms=stop_ms if stop_ms < end_ms else None,
            types=scope.types,
            states=scope.states,
            descending=descending,
        )

    def _edge_before(self, of: Folder) -> _Edge:
        """Up to when a listing that begins now can speak, if the follower brings the rest."""
        region = self._catalogue.region_of(of)
        progress = self._catalogue.progress
        edge_ms = progress.edge_ms(region) if progress.following(region) else None
        return _Edge(edge_ms, trio.current_time())

    def _mark(self, of: Folder, start_ms: int, stop_ms: int, edge: _Edge) -> None:
        """Call a stretch listed, as far as the listing speaks: to its edge if it is followed,
        else to the newest change it showed.

        Not if the follower began long after it: it would take changes for known that are not.
        """
        region, edge_ms = self._catalogue.region_of(of), edge.ms
        progress = self._catalogue.progress
        together = trio.current_time() - edge.asked_s <= TOGETHER_S
        if edge_ms is None and (together or not progress.following(region)):
            edge_ms = progress.edge_ms(region)
        if edge_ms is not None:
            progress.mark_listed(region, start_ms, min(stop_ms, edge_ms))

    # years and months

    async def _list_parts(self, of: Folder) -> None:
        """Find out which parts of a folder hold anything."""
        region = self._catalogue.region_of(of)
        followed = self._catalogue.progress.watermark(region) is not None
        await self._bound(of)
        if self._catalogue.progress.watermark(region) is not None and not followed:
            await self._bound(of)  # the follower began: what was found before counts no more
        knowledge = self._knowledge(of)
        parts = knowledge.unsettled(of)
        if not knowledge.following:
            parts += [part for part in knowledge.recent(of) if part not in parts]
        await self._each(partial(self._probe, of), parts)

    async def _bound(self, of: Folder) -> None:
        """Where more than two parts are open, ask for the ends: two questions spare many."""
        knowledge = self._knowledge(of)
        parts = knowledge.unsettled(of)
        if knowledge.edge_ms is None:
            await self._find_ends(of, *knowledge.span(of))
        elif len(parts) > 2:
            start_ms, stop_ms = knowledge.span(parts[0])[0], knowledge.span(parts[-1])[1]
            await self._find_ends(of, start_ms, stop_ms)

    async def _find_ends(self, of: Folder, start_ms: int, stop_ms: int) -> None:
        """The earliest and the newest object of a stretch; outside of them there is nothing.

        The stretch is not cut at the edge: what was created there is asked for too.
        """
        region, edge = self._catalogue.region_of(of), self._edge_before(of)
        ends: dict[bool, _One] = {}

        async def look(descending: bool) -> None:
            query = self._query(of, start_ms, stop_ms, descending=descending)
            ends[descending] = await self._one(region, query)

        await self._each(look, (False, True))
        (first, total), (last, _) = ends[False], ends[True]
        self._take_in([end for end in (first, last) if end], known=False)
        if first is None and last is None:
            self._mark(of, start_ms, stop_ms, edge)
        elif first is not None and last is not None and _may_be_ends(first, last, total):
            self._sizes.spread(of.region, first.created_ms, last.created_ms, total)
            self._mark(of, start_ms, first.created_ms, edge)
            self._mark(of, last.created_ms + 1, stop_ms, edge)

    async def _probe(self, of: Folder, part: Folder) -> None:
        """Whether a part holds anything; what was found is kept."""
        edge = self._edge_before(of)
        span = self._knowledge(of).span(part)
        found, total = await self._one(self._catalogue.region_of(of), self._query(of, *span))
        self._sizes.said(part, total)
        if found is not None:
            self._take_in([found], known=False)
        else:
            self._mark(of, *span, edge)

    async def _one(self, region: str, query: Query) -> _One:
        """The first record of a search that can be used, and how many there are in all, if known.

        A page that calls itself the last one is not believed if its total says that there is more.
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

    async def _list_day(self, of: Folder, urgent: Priority) -> None:
        """List a day until it adds up; only then is anything taken out or called listed."""
        region = self._catalogue.region_of(of)
        known = self._knowledge(of).whole(of)
        start_ms, stop_ms = self._knowledge(of).span(of)
        before = self._catalogue.known_objects(region, start_ms, stop_ms)
        edge = self._edge_before(of)
        listing = _Listing(of, known, urgent, [(start_ms, stop_ms)])
        while listing.open:
            span = listing.open.pop(0)
            listing.open[:0] = await self._list_span(listing, span)
        self._sizes.listed(of, len(listing.seen))
        if not listing.rejected:  # what could not be understood cannot be called gone
            self._tell(self._catalogue.reconcile(before, listing.seen, self._now_ms()))
        self._mark(of, start_ms, stop_ms, edge)

    async def _list_span(self, listing: _Listing, span: Span) -> Sequence[Span]:
        """List what was created in a span; returns the spans that have to be listed after it.

        A search may end before its end: beyond some offset the service refuses, or shows nothing.
        The search goes on from the last time of creation that was reached, until nothing tells
        that there is more.
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
            if stop_ms - start_ms > SECOND_MS:  # else no order can be relied on: it is too many
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
        """Go through the pages of a span until they add up; the last pass, and whether it does."""
        of, passes = listing.of, ListingConsistency()
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
            region = self._catalogue.region_of(of)
            await listing_pass.run((region, of.region), self._query(of, *span), paging)
            passes.feed(paging)
            if not passes.again or paging.refused:
                listing.add(passes)
                return paging, paging.adds_up if paging.refused else passes.complete

    def _check_free_space(self, of: Folder, count: int) -> None:
        """Raise an error for a listing that is endless, or too large for the disk."""
        if count > MOST_RECORDS:
            raise Malformed(f"{of.name} cannot be listed: it has more than {MOST_RECORDS} objects")
        self._catalogue.check_free_space(count, self._min_free, of.name)

    def _take_in(self, records: Sequence[Record], *, known: bool) -> None:
        """Into the catalogue; of a folder seen for the first time, nothing was created."""
        if records:
            self._tell(self._catalogue.apply(records, listed=not known))

    def _tell(self, changes: ChangeSet) -> None:
        if changes:
            self._on_changes(changes)

    async def _each(
        self, ask: Callable[[_Value], Awaitable[None]], values: Iterable[_Value]
    ) -> None:
        """Do something for each value, side by side."""
        slots = trio.CapacityLimiter(self._slots)

        async def one(value: _Value) -> None:
            async with slots:
                await ask(value)

        async with trio.open_nursery() as nursery:
            for value in values:
                nursery.start_soon(one, value)


def _may_be_ends(first: Record, last: Record, total: int | None) -> bool:
    """Whether a service that says ``total`` may have ordered its answers as it was asked to."""
    if first.id == last.id:
        return total == 1
    return first.created_ms <= last.created_ms
