"""Brings into the catalogue what a search needs to know, and says what it could not look at.

Used by the control socket; ``catalogue.search`` then finds what matches. A span of time of which
every object is known costs no request. For another one the service is asked with a filter, if the
condition can be put into one that leaves nothing out; else its days are listed, unless they have
too many objects.
"""

import time
from collections.abc import Callable, Sequence

import trio

from phonofs.catalogue.catalogue import Catalogue
from phonofs.catalogue.search import Span, days_text, gaps, region_prefix, scope_ms
from phonofs.discovery.estimates import DAY_MS
from phonofs.discovery.lister import Lister
from phonofs.discovery.unlisted_days import unlisted_days
from phonofs.errors import CatalogueError, ServiceError, unwrap
from phonofs.search.answer import Answer
from phonofs.search.condition import Condition
from phonofs.tree.layout import Directory

MOST_LISTED = 50_000
"""Objects of unknown days that a search lists: 500 searches, half a minute at 500 ms each."""

MOST_DAYS = 62
"""Unknown days that a search lists if the service does not say how many objects they have."""

MOST_COUNTED = 6
"""Spans of which the objects are counted one by one; of more of them, all in between is counted."""


class RecordSearch:
    """Prepares searches. Owns no state."""

    def __init__(
        self,
        catalogue: Catalogue,
        lister: Lister,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._catalogue = catalogue
        self._lister = lister
        self._now_ms = now_ms

    async def prepare(self, condition: Condition, answer: Answer) -> set[str]:
        """Bring in what matches or may match; add to ``answer`` what the service was asked for.

        It is asked with the answer's filter or, if that is empty, for whole days. Return the
        regions of which the answer says already what could not be looked at.
        """
        settled: set[str] = set()
        async with trio.open_nursery() as nursery:
            for region in self._catalogue.regions():
                if condition.region in ("", region):
                    nursery.start_soon(self._bring, condition, region, answer, settled)
        return settled

    async def _bring(
        self, condition: Condition, region: str, answer: Answer, settled: set[str]
    ) -> None:
        """Ask the service for what a region lacks; add the region to ``settled`` if the answer
        says how that went.
        """
        span = scope_ms(self._catalogue, condition)
        missing = gaps(self._catalogue, region, span)
        if not missing:
            return
        prefix = region_prefix(self._catalogue, region)
        try:
            if answer.narrow:
                await self._ask(region, missing, answer.narrow)
                answer.asked.append(prefix + self._days(missing))
                settled.add(region)
            else:
                await self._list(region, missing)
        except* (ServiceError, CatalogueError) as group:
            missing = gaps(self._catalogue, region, span)
            days = self._days(missing)
            answer.missing.append(f"{prefix}{days} could not be looked at: {unwrap(group)}")
            settled.add(region)

    async def _ask(self, region: str, spans: Sequence[Span], narrow: str) -> None:
        """Ask for the whole time from the first span to the last: that is one search."""
        await self._lister.search(
            Directory(self._catalogue.region_index(region)), (spans[0][0], spans[-1][1]), narrow
        )

    async def _list(self, region: str, spans: Sequence[Span]) -> None:
        """List the days of the spans, unless they have too many objects."""
        if not await self._is_few(Directory(self._catalogue.region_index(region)), spans):
            return
        span = spans[0][0], spans[-1][1]
        for days_of_month in await unlisted_days(self._catalogue, self._lister, region, span):
            errors = await self._lister.list_each(days_of_month)
            if errors:
                raise next(iter(errors.values()))

    async def _is_few(self, of: Directory, spans: Sequence[Span]) -> bool:
        """Return whether the spans have so few objects that a search may list them."""
        count = 0
        for span in spans if len(spans) <= MOST_COUNTED else [(spans[0][0], spans[-1][1])]:
            total = await self._lister.count(of, span)
            if total is None:
                return sum(stop - start for start, stop in spans) <= MOST_DAYS * DAY_MS
            count += total
        return count <= MOST_LISTED

    def _days(self, spans: Sequence[Span]) -> str:
        return days_text(self._catalogue, spans, self._now_ms())
