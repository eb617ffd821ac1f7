"""What listings and polls share: their searches, and what the catalogue notes of them.

Used by ``follower``, ``lister`` and the modules it calls.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import trio

from phonofs.catalogue.catalogue import MOST_UNCHECKED, Catalogue, ChangeSet
from phonofs.config.settings import Settings
from phonofs.discovery.pagination import MOST_ODD_PAGES
from phonofs.discovery.planning import CoverageSnapshot
from phonofs.errors import Malformed
from phonofs.model import Page, Query, Record
from phonofs.priority import Priority
from phonofs.service.client import Client
from phonofs.tree.layout import Directory

SIDE_BY_SIDE = 14
"""Concurrent searches of one listing: two of the usual 16 connections stay free for readers."""

TOGETHER_S = 10.0
"""A listing that began at most this long before the follower counts as one that began after it:
the follower's next poll goes back further than that (``poll.OVERLAP_MS``)."""

_Value = TypeVar("_Value")

Edge = tuple[int | None, float]
"""The limit of what a listing can know (epoch ms; None if nobody follows the region's changes),
and when the listing began (trio's clock)."""


class Searches:
    """Searches for listings and polls, and stores what they find.

    service, catalogue  of the account
    page_size     records per search page
    side_by_side  concurrent searches of one listing
    now_ms        our clock
    """

    def __init__(
        self,
        service: Client,
        catalogue: Catalogue,
        settings: Settings,
        on_changes: Callable[[ChangeSet], None] = lambda changes: None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """``on_changes`` is called with what a listing changed in the catalogue."""
        self.service = service
        self.catalogue = catalogue
        self.page_size = settings.page_size
        self.side_by_side = max(1, min(SIDE_BY_SIDE, settings.max_connections - 2))
        self.now_ms = now_ms
        self._min_free = settings.cache_min_free
        self._on_changes = on_changes

    # what is known

    def knowledge(self, directory: Directory) -> CoverageSnapshot:
        """Return what is known of the region of a directory."""
        catalogue, region = self.catalogue, self.catalogue.region_of(directory)
        return CoverageSnapshot(
            catalogue.placement.calendar,
            catalogue.coverage.listed(region),
            catalogue.coverage.edge_ms(region),
            catalogue.coverage.following(region),
            self.now_ms(),
            catalogue.placement.since_ms,
            catalogue.known,
        )

    def edge(self, directory: Directory) -> Edge:
        """Return the limit of what a listing that begins now can know, if it is followed."""
        region = self.catalogue.region_of(directory)
        coverage = self.catalogue.coverage
        edge_ms = coverage.edge_ms(region) if coverage.following(region) else None
        return edge_ms, trio.current_time()

    def mark(self, directory: Directory, start_ms: int, stop_ms: int, edge: Edge) -> None:
        """Mark a span as listed, up to the listing's edge if the region is followed, else up to
        the newest change seen.

        Mark nothing if the follower began long after the listing: some changes in between would
        count as known and would be missed.
        """
        edge_ms, asked_s = edge
        region, coverage = self.catalogue.region_of(directory), self.catalogue.coverage
        together = trio.current_time() - asked_s <= TOGETHER_S
        if edge_ms is None and (together or not coverage.following(region)):
            edge_ms = coverage.edge_ms(region)
        if edge_ms is not None:
            coverage.mark_listed(region, start_ms, min(stop_ms, edge_ms))

    # searches

    def query(
        self, directory: Directory, start_ms: int, stop_ms: int, *, descending: bool = False
    ) -> Query:
        """Return a search for what was created in a span; the span of all time gets no bounds."""
        scope = self.catalogue.placement.options.scope
        _, end_ms = self.catalogue.placement.calendar.span_ms(Directory(directory.region))
        return Query(
            created_from_ms=start_ms or None,
            created_until_ms=stop_ms if stop_ms < end_ms else None,
            types=scope.types,
            states=scope.states,
            descending=descending,
        )

    async def first(
        self, region: str, query: Query, urgent: Priority
    ) -> tuple[Record | None, int | None]:
        """Return the first usable record of a search, and the total number of records, if known.

        Raises as :meth:`first_page` does.
        """
        page, reached = await self.first_page(region, query, 1, urgent=urgent.derive())
        total = page.total or (reached if page.last else None)
        return (page.records[0] if page.records else None), total

    async def first_page(
        self, region: str, query: Query, limit: int, *, urgent: bool | Priority = True
    ) -> tuple[Page, int]:
        """Return the first page with a usable record, or the last one, and where it ends.

        Asks for ``limit`` records, then for whole pages. A page marked as the last is not believed
        if its total says that there are more records. Raises ServiceError, also if no record can
        be parsed.
        """
        key = 0
        for _ in range(MOST_ODD_PAGES):
            page = await self.service.search(region, query, key, limit, urgent=urgent)
            key, limit = key + page.count, self.page_size
            if page.records or not page.count or (page.last and (page.total or 0) <= key):
                return page, key
        raise Malformed(f"no record of {key} in {region} can be understood")

    async def each(
        self, ask: Callable[[_Value], Awaitable[None]], values: Iterable[_Value]
    ) -> None:
        """Call ``ask`` for each value, several at a time."""
        slots = trio.CapacityLimiter(self.side_by_side)

        async def one(value: _Value) -> None:
            async with slots:
                await ask(value)

        async with trio.open_nursery() as nursery:
            for value in values:
                nursery.start_soon(one, value)

    # what they found

    def take_in(self, records: Sequence[Record]) -> None:
        """Apply records to the catalogue; their objects existed before."""
        if records:
            self.tell(self.catalogue.apply(records, listed=True))

    def tell(self, changes: ChangeSet) -> None:
        """Report changes that are in the catalogue."""
        if changes:
            self._on_changes(changes)

    def check_space(self, what: str, count: int, most: int = MOST_UNCHECKED) -> None:
        """Raise CatalogueError if the disk is too full for ``count`` records.

        Up to ``most`` of them are stored however full it is.
        """
        self.catalogue.check_free_space(count, self._min_free, what, most)
