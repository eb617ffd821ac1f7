"""Keeps the catalogue up to date: polls each region for what changed since the last poll.

The watermark is the newest ``updatedTime`` seen, by the service's clock, never ours. Each poll
starts a little before it, since records may appear late and several share a second; a record that
is already known changes nothing. A poll names all states, so that withdrawn objects leave the
tree.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import trio

from phonofs.catalogue.catalogue import Catalogue, ChangeSet
from phonofs.catalogue.coverage import after
from phonofs.config.settings import Settings
from phonofs.discovery.estimates import DaySizeEstimator
from phonofs.discovery.pagination import LEAST_WINDOW
from phonofs.discovery.poll import FAR_EVERY_S, SWEEP_MS, ChangePoll, newest_plausible
from phonofs.discovery.searches import Searches
from phonofs.errors import (
    CatalogueError,
    Malformed,
    OffsetRefused,
    PhonofsError,
    ServiceError,
    Unavailable,
)
from phonofs.model import Page, Query, Record, State
from phonofs.priority import Priority
from phonofs.service.client import Client

log = logging.getLogger(__name__)

RETRY_S = 30.0
"""The time between polls while the service fails, or ``poll_interval`` if that is shorter."""

MOST_TAKEN = 100_000
"""Changes of one run that are stored however full the disk is: 200 MB, some months of a large
account."""

MOST_PAGES = 20_000
"""The changes of one second are taken to be endless after this many pages."""


class Follower:
    """Polls every region.

    Owns the number of changes applied, and for each region: how many polls succeeded and when the
    last one did; when the watermark last moved and when a poll last looked back two days (trio's
    clock); since when polls fail; and, if all changes of the first page were in one second, from
    when on a new object counts as created in this run.
    """

    def __init__(
        self,
        service: Client,
        catalogue: Catalogue,
        settings: Settings,
        on_changes: Callable[[ChangeSet], None] = lambda changes: None,
        now_s: Callable[[], float] = time.time,
        sizes: DaySizeEstimator | None = None,
    ) -> None:
        """``on_changes`` is called with the changes, once they are in the catalogue."""
        self._sizes = sizes or DaySizeEstimator()
        self._searches = Searches(service, catalogue, settings, on_changes)
        self._catalogue = catalogue
        self._interval_s = settings.poll_interval
        self._now_s = now_s
        self._polls: dict[str, int] = {}
        self._began_ms: dict[str, int] = {}
        self._moved: dict[str, float] = {}
        self._looked_far: dict[str, float] = {}
        self._worked_s: dict[str, float] = {}
        self._taken = 0
        self._failing: dict[str, tuple[float, int, PhonofsError]] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Poll every region at once, then every ``poll_interval``, until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                for region in self._catalogue.regions():
                    self.follow(region)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def follow(self, region: str) -> None:
        """Follow one more region, which appeared while :meth:`run` runs.

        If :meth:`run` is not running, it follows the region when it is started again.
        """
        if self._interval_s > 0 and self._nursery is not None:
            if self._catalogue.coverage.watermark(region) is not None:
                # Show what is known at once; the first poll adds the rest.
                self._catalogue.coverage.set_following(region)
            with suppress(RuntimeError):  # its last task has just ended
                self._nursery.start_soon(self._follow, region)

    async def _follow(self, region: str) -> None:
        while True:
            rest_s = await self._turn(region)
            await trio.sleep(rest_s)

    async def _turn(self, region: str) -> float:
        """Poll once and note the outcome; return the pause until the next poll, in seconds."""
        try:
            await self.poll(region)
        except (ServiceError, CatalogueError) as error:
            self._failed(region, error)
            asked_s = error.retry_after_s if isinstance(error, Unavailable) else None
            return max(min(self._interval_s, RETRY_S), asked_s or 0.0)
        self._succeeded(region)
        return self._interval_s

    async def poll(self, region: str) -> None:
        """Apply the changes of one region. Raises ServiceError, CatalogueError."""
        if self._catalogue.coverage.watermark(region) is None:
            await self._begin(region)
        else:
            await self._catch_up(region)
        self._polls[region] = self._polls.get(region, 0) + 1
        self._catalogue.coverage.set_following(region)

    async def _begin(self, region: str) -> None:
        """Set the first watermark to the newest change there is, by the service's clock.

        Of the records on that page, apply those of known objects, and those new enough that the
        next poll returns them again; the others are stored when their days are listed, in order.
        If the newest second fills more than this page, its other objects existed before as well.
        """
        query = self._query(descending=True)
        limit = self._searches.page_size
        due = Priority(False, due=True)
        page, reached = await self._searches.first_page(region, query, limit, urgent=due)
        if reached and not page.records:
            raise Malformed(f"none of the newest records in {region} can be understood")
        created = [record.created_ms for record in page.records]
        self._sizes.newest(self._catalogue.region_index(region), created)
        times = [record.updated_ms for record in page.records]
        newest = newest_plausible(times, self._catalogue.coverage.plausible_ms(region))
        self._catalogue.coverage.begin_following(region, newest)
        if times and min(times) >= newest and not page.last:
            self._began_ms[region] = after(newest)
        find = self._catalogue.find
        wanted = [
            record
            for record in reversed(page.records)
            if record.updated_ms >= newest - SWEEP_MS or find(region, record.id) is not None
        ]
        self._searches.take_in(wanted)

    async def _catch_up(self, region: str) -> None:
        """Apply everything that changed since the watermark, each page as it arrives."""
        coverage = self._catalogue.coverage
        watermark = coverage.watermark(region) or 0
        now = trio.current_time()
        quiet_s = now - self._moved.get(region, now)
        polls = self._polls.get(region, 0)
        far = polls > 0 and now - self._looked_far.get(region, -math.inf) >= FAR_EVERY_S
        limit = self._searches.page_size
        changes = ChangePoll(watermark, polls, limit, quiet_s, far=far)
        while changes.next is not None:
            from_ms, key = changes.next
            query = self._query(updated_from_ms=from_ms)
            try:
                page = await self._page(region, query, key)
                _check_end(page, key, region)
            except OffsetRefused as refused:
                await self._pass(region, from_ms, watermark, refused)
                changes.passed(after(from_ms))
                continue
            self._take_in(region, page.records, watermark)
            changes.feed(page, coverage.plausible_ms(region))
            coverage.set_watermark(region, changes.reached_ms, complete=False)
        coverage.set_watermark(region, changes.reached_ms)
        if far:
            self._looked_far[region] = now
        if changes.reached_ms > watermark or region not in self._moved:
            self._moved[region] = trio.current_time()

    async def _page(self, region: str, query: Query, key: int) -> Page:
        service, limit = self._searches.service, self._searches.page_size
        return await service.search(region, query, key, limit, urgent=Priority(False, due=True))

    def _query(self, **how: Any) -> Query:
        """Return a search for objects in any state, by time of change unless ``how`` says more."""
        types = self._catalogue.placement.options.scope.types
        return Query(types=types, states=tuple(State), **{"sort": "updatedTime", **how})

    async def _pass(
        self, region: str, from_ms: int, watermark: int, refused: OffsetRefused
    ) -> None:
        """Apply the changes of one second that has more of them than the service pages through.

        Ordered by creation, each page begins at the time where the last one ended, not at an
        offset. If too many objects were also created in one second, no search shows them all:
        then every day of the region has to be listed again before it is shown.
        """
        created_ms, key = 0, 0
        try:
            for _ in range(MOST_PAGES):
                query = self._query(
                    updated_from_ms=from_ms,
                    updated_until_ms=after(from_ms),
                    created_from_ms=created_ms or None,
                    sort="createdTime",
                )
                page = await self._page(region, query, key)
                self._take_in(region, page.records, watermark)
                _check_end(page, key, region)
                if page.count == 0 or (page.last and page.count < self._searches.page_size):
                    return
                times = [record.created_ms for record in page.records]
                if times and times == sorted(times) and times[-1] > created_ms:
                    created_ms, key = times[-1], 0
                else:
                    key += page.count
            raise Malformed(f"the changes of one second in {region} have no end")
        except OffsetRefused:
            log.warning(
                "all days of %s are listed again at their next opening: %s", region, refused
            )
            # Begin after that second, so that the rest of this poll does not mark it as listed.
            coverage = self._catalogue.coverage
            known_ms = coverage.watermark(region) or watermark
            coverage.begin_following(region, max(known_ms, after(from_ms)))

    def _take_in(self, region: str, records: Sequence[Record], watermark: int) -> None:
        """Apply changes to the catalogue and report them. Raises CatalogueError."""
        self._searches.check_space(f"what changed in {region}", self._taken, MOST_TAKEN)
        since_ms = max(watermark, self._began_ms.get(region, 0))
        changes = self._catalogue.apply(records, watermark=since_ms)
        self._taken += len(changes.objects) + sum(map(len, changes.directories.values()))
        self._searches.tell(changes)

    # outages

    def _failed(self, region: str, error: PhonofsError) -> None:
        """Note a failed poll; log the reason once per outage."""
        since_s, count, _ = self._failing.get(region, (trio.current_time(), 0, error))
        self._failing[region] = since_s, count + 1, error
        if not count:
            log.warning("changes in %s cannot be followed: %s", region, error)

    def _succeeded(self, region: str) -> None:
        self._worked_s[region] = self._now_s()
        if region in self._failing:
            since_s, count, _ = self._failing.pop(region)
            away_s = trio.current_time() - since_s
            log.info(
                "changes in %s are followed again, after %.0f s and %d tries", region, away_s, count
            )

    def local_trouble(self) -> CatalogueError | None:
        """Return why received changes cannot be stored; None if they can."""
        errors = (error for _, _, error in self._failing.values())
        return next((error for error in errors if isinstance(error, CatalogueError)), None)

    def statistics(self) -> dict[str, object]:
        """Return for each region the watermark (epoch ms), last successful poll and failures."""
        return {
            "followed": {
                region: {
                    "watermark_ms": self._catalogue.coverage.watermark(region),
                    "polled_at": self._worked_s.get(region),
                    "failures": self._failing[region][1] if region in self._failing else 0,
                }
                for region in self._catalogue.regions()
            }
        }


def _check_end(page: Page, key: int, region: str) -> None:
    """Raise OffsetRefused if the pages end at a possible offset limit, but ``total`` is higher."""
    reached = key + page.count
    ends = page.last or not page.count
    if ends and reached >= LEAST_WINDOW and (page.total or 0) > reached:
        raise OffsetRefused(f"a search in {region} ends after {reached} of {page.total} records")
