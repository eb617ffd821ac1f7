"""Lists one day: requests its pages, several at a time, and applies each as it arrives.

A pass requests all pages of a search once. It is repeated until the passes are consistent, and
continued where the service does not page far enough. Used by ``lister``.
"""

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from operator import itemgetter

import trio

from phonofs.catalogue.catalogue import ChangeSet
from phonofs.catalogue.coverage import SECOND_MS
from phonofs.catalogue.prepared_page import PreparedPage
from phonofs.discovery.estimates import DaySizeEstimator
from phonofs.discovery.page_worker import PageWorker
from phonofs.discovery.pagination import MOST_PASSES, MOST_RECORDS, OffsetPager, complete
from phonofs.discovery.planning import Span
from phonofs.discovery.searches import Searches
from phonofs.errors import Malformed, OffsetRefused, ServiceError, Unavailable
from phonofs.model import Query
from phonofs.priority import Priority
from phonofs.tree.layout import Directory

AT_ONCE = 5
"""Pages applied together. That takes a fifth less time than one by one, but blocks the event loop
for 7 ms."""

SMALL = 1024
"""Bytes. A larger page has records for certain; a smaller one may be the end, so it is read before
anything else is requested."""

FEW = 100
"""Objects of a day that are read before it is listed, so that the others can be added to them."""

STEPS = 12
"""More than a task takes from a response to the next request."""

SENDING = 3
"""What a new task takes until it has sent its request."""


class DayListing:
    """One listing of a day. Owns what was received so far.

    _known     whether the day was listed before, so that any new object in it was created since
    _seen      ids of all records received
    _rejected  how many records could not be parsed
    _moved     the directories that changed, which are reported at the end of a pass
    _one_page  held while a request takes the place of a page that is here, or a page is prepared:
               if many pages come together, the next requests leave one by one, the first at once,
               and all of them before any of these pages is prepared or applied
    """

    def __init__(
        self,
        searches: Searches,
        page_worker: PageWorker,
        sizes: DaySizeEstimator,
        day: Directory,
        urgent: Priority,
        narrow: str = "",
    ) -> None:
        """``narrow`` is a FIQL filter, for :meth:`take_found`."""
        self._searches = searches
        self._catalogue = searches.catalogue
        self._page_worker = page_worker
        self._sizes = sizes
        self._day = day
        self._urgent = urgent
        self._narrow = narrow
        self._region = searches.catalogue.region_of(day)
        self._name = day.name or self._region
        self._known = searches.knowledge(day).whole(day)
        self._seen: set[str] = set()
        self._rejected = 0
        self._moved = ChangeSet()
        self._one_page = trio.Lock()

    async def run(self) -> None:
        """List the day, remove the objects that it no longer has, and mark it as listed.

        Raises ServiceError, CatalogueError.
        """
        span = self._searches.knowledge(self._day).span(self._day)
        before = self._catalogue.known_objects(self._region, *span)
        edge = self._searches.edge(self._day)
        if len(before) <= FEW:
            self._catalogue.collect(self._day.ino)
        await self.take_found(span)
        self._sizes.listed(self._day, len(self._seen))
        if not self._rejected:  # a record that cannot be parsed may be of any known object
            now_ms = self._searches.now_ms()
            self._searches.tell(self._catalogue.reconcile(before, self._seen, now_ms))
        self._searches.mark(self._day, *span, edge)

    async def take_found(self, span: Span) -> None:
        """Take in what was created in a span, of the day or of a region, and mark nothing.

        Raises ServiceError, CatalogueError.
        """
        spans = [span]
        while spans:
            spans[:1] = await self._list_span(spans[0])

    async def _list_span(self, span: Span) -> Sequence[Span]:
        """List what was created in a span; return the spans that have to be listed after it.

        A search may end early: beyond some offset the service refuses to answer, or shows
        nothing. The listing then continues from the last time of creation reached, until nothing
        indicates that there is more.
        """
        paging, whole = await self._passes(span)
        if not whole and not paging.refused:
            raise Unavailable(f"{self._name} changed all the time while it was listed; try again")
        if whole and not paging.doubted:
            return []
        start_ms, stop_ms = span
        last_ms = paging.last_created_ms
        if not whole or (last_ms is None and paging.large and paging.denied):
            middle_ms = (start_ms + stop_ms) // 2
            if stop_ms - start_ms > SECOND_MS:  # else there are too many in one second
                return [(start_ms, middle_ms), (middle_ms, stop_ms)]
        elif last_ms is not None and last_ms > start_ms:
            return [(last_ms, stop_ms)]
        if paging.large and paging.denied:
            raise Malformed(
                f"{self._name} cannot be listed: more objects were created in one second than"
                " the service shows; set 'types', so that it has to show fewer"
            )
        return []

    async def _passes(self, span: Span) -> tuple[OffsetPager, bool]:
        """Repeat passes over a span until consistent; return the last one and whether it is."""
        query = replace(self._searches.query(self._day, *span), narrow=self._narrow)
        first = not self._seen and not self._narrow  # how many a filter finds is not known
        passes: list[OffsetPager] = []
        whole = False
        while not whole and len(passes) < MOST_PASSES:
            estimate = self._sizes.at_once(self._day) if first else 0
            self._page_worker.expect(estimate)
            paging = OffsetPager(
                self._searches.page_size,
                self._searches.side_by_side,
                passes[-1].size if passes else estimate,
            )
            await self._pass(query, paging)
            passes.append(paging)
            whole = complete(passes)
            if paging.refused:
                whole = paging.adds_up
                break
        counted = passes[-1:] if passes[-1].adds_up else passes
        self._seen.update(*(paging.seen for paging in counted))
        self._rejected += max(paging.rejected for paging in passes)
        return passes[-1], whole

    async def _pass(self, query: Query, paging: OffsetPager) -> None:
        """Request all pages of a search once, and apply them."""
        come: list[tuple[int, PreparedPage]] = []

        async def request(key: int, limit: int) -> None:
            try:
                body = await self._body(query, key, limit)
            except OffsetRefused:
                paging.refuse(key)
            else:
                if len(body) <= SMALL or paging.leads(key):  # it decides what to request next
                    page = self._prepare(body)
                else:
                    async with self._one_page if paging.more else nullcontext():
                        paging.arrive(key)
                        await trio.lowlevel.checkpoint()  # a small one that came too is read first
                        if start() and self._one_page.statistics().tasks_waiting:
                            await _let_others_run(SENDING)
                    if self._one_page.statistics().tasks_waiting:
                        async with self._one_page:  # what they request next goes first
                            pass
                    page = await self._prepared(body)
                paging.feed(key, page)
                come.append((key, page))
            await trio.lowlevel.checkpoint()  # what has arrived together is considered together
            self._page_worker.expect(paging.expected)
            self._check(len(self._seen) + len(paging.seen))
            if paging.ask_last():
                nursery.start_soon(confirm)
            start()
            if len(come) >= AT_ONCE or paging.done:
                await self._take_in(come)

        async def confirm() -> None:
            await self._confirm(query, paging)
            start()  # it may have taken the place of the only page

        def start() -> bool:
            asks = paging.ask()
            for key, limit in asks:
                nursery.start_soon(request, key, limit)
            return bool(asks)

        try:
            async with trio.open_nursery() as nursery:
                start()
            await self._take_in(come)  # of a pass that ended before it was done
        finally:
            moved, self._moved = self._moved, ChangeSet()
            self._searches.tell(moved)

    async def _confirm(self, query: Query, paging: OffsetPager) -> None:
        """Search for the last record while the pages are requested, to know the end by it.

        A search that fails is no failure of the listing: its end is then searched for after it.
        """
        descending, last = replace(query, descending=True), None
        with suppress(ServiceError):
            last, _ = await self._searches.first(self._region, descending, self._urgent)
        paging.confirm(last.id if last else None)

    def _check(self, received: int) -> None:
        """Raise Malformed if the listing is endless, CatalogueError if the disk is too full."""
        name = self._name
        if received > MOST_RECORDS:
            raise Malformed(f"{name} cannot be listed: it has more than {MOST_RECORDS} objects")
        self._searches.check_space(name, received)

    async def _body(self, query: Query, key: int, limit: int) -> bytes:
        """Request a page."""
        urgent = self._urgent.derive()
        return await self._searches.service.search_text(
            self._region, query, key, limit, urgent=urgent
        )

    async def _prepared(self, body: bytes) -> PreparedPage:
        """Prepare a page: in the worker if that is possible, else here.

        Requests that wait to be sent go before it, and what arrives is received between two pages.
        """
        page = await self._page_worker.prepared(body, self._region, self._day.region)
        if page is None:
            async with self._one_page:
                await _let_others_run()
                page = self._prepare(body)
        return page

    def _prepare(self, body: bytes) -> PreparedPage:
        page = self._searches.service.read_page(body, self._region)
        return self._catalogue.prepare(page, self._region)

    async def _take_in(self, come: list[tuple[int, PreparedPage]]) -> None:
        """Apply pages, a few at a time; other tasks run in between, also the next searches.

        Apply them in the order of offsets as far as possible: ``cp -r`` copies in the order of
        inode numbers, and prefetching works if that is the order of names too. Report changed
        objects at once.
        """
        pages = [page for _, page in sorted(come, key=itemgetter(0))]
        come.clear()
        for start in range(0, len(pages), AT_ONCE):
            async with self._one_page:  # after the requests that wait to be sent
                await _let_others_run()
            some = pages[start : start + AT_ONCE]
            changes = self._catalogue.take(some, listed=not self._known)
            if changes.objects:
                self._searches.tell(changes)
            else:
                self._moved.add_directories(changes.directories)


async def _let_others_run(steps: int = STEPS) -> None:
    """Let other tasks go on until they wait for the network, as the next requests do."""
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
