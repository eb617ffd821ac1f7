"""Brings the contents of a directory into the catalogue when somebody opens it.

A day is listed completely (``day_listing``). For a year or a month, the lister only finds out
which parts hold anything (``parts_listing``). Each directory has at most one listing at a time.
The lister owns it: a caller waits for it, and may leave without ending it.
"""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

import trio

from phonofs.catalogue.catalogue import Catalogue, ChangeSet
from phonofs.config.settings import Settings
from phonofs.discovery.day_listing import DayListing
from phonofs.discovery.estimates import DaySizeEstimator
from phonofs.discovery.page_worker import PageWorker
from phonofs.discovery.parts_listing import list_parts, probe
from phonofs.discovery.planning import Span
from phonofs.discovery.searches import Searches
from phonofs.discovery.sequential_days import SequentialDays
from phonofs.discovery.single_flight import SharedCall, SingleFlight
from phonofs.errors import CatalogueError, PhonofsError, ServiceError, Unavailable
from phonofs.priority import Priority
from phonofs.service.client import Client
from phonofs.tree.layout import ROOT, Directory, named

REFRESH_S = 0.7
"""How long opening a known directory waits for changes before it shows what is known."""

PAUSE_S = 5.0
"""A directory that was checked less than this long ago is not checked again."""

MOST_FOUND = 2000
"""A day with at most this many objects is listed when its name is looked up. That takes 20
searches, fewer than finding out which days its month has."""

MOST_AHEAD = 20_000
"""A day with at most this many objects is listed ahead, if the days before it were opened."""


class Lister:
    """Owns the running listings, when each directory was last checked, and the size estimates."""

    def __init__(
        self,
        service: Client,
        catalogue: Catalogue,
        settings: Settings,
        on_changes: Callable[[ChangeSet], None] = lambda changes: None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        page_worker: PageWorker | None = None,
        sizes: DaySizeEstimator | None = None,
    ) -> None:
        """``on_changes`` is called with what a listing changed in the catalogue. The ``sizes``
        are shared with the follower, which sees the newest objects first.
        """
        self._catalogue = catalogue
        self._searches = Searches(service, catalogue, settings, on_changes, now_ms)
        self._deadline_s = settings.read_deadline
        self._single_flight = SingleFlight()
        self._looked: dict[int, float] = {}
        self._sizes = sizes or DaySizeEstimator()
        self._sequential_days = SequentialDays()
        self._page_worker = page_worker or PageWorker(catalogue.placement.options)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the listings until cancelled."""
        await self._single_flight.run(task_status=task_status)

    def needs(self, ino: int) -> bool:
        """Return whether the service must be asked before a directory can be shown."""
        directory = self._catalogue.shown_directory(ino)
        if directory is None:
            return False
        knowledge = self._searches.knowledge(directory)
        if not knowledge.whole(directory):
            return True
        rested = trio.current_time() - self._looked.get(ino, -math.inf) >= PAUSE_S
        return rested and ino not in self._single_flight and knowledge.stale(directory)

    def opened(self, ino: int) -> None:
        """Note that a directory is opened; if days are opened in sequence, list the next one."""
        day = self._catalogue.shown_directory(ino)
        if day is None or day.parent is None or not day.day:
            return
        siblings = self._catalogue.known(day.parent)
        after = self._sequential_days.opened(day, trio.current_time(), siblings)
        if after is not None and self._sizes.known(after) <= MOST_AHEAD:
            with suppress(Unavailable):
                self._begin(after.ino, urgent=False)

    def begin(self) -> None:
        """Start listing each region that was never listed: regions are what users open first."""
        regions = [entry.ino for entry in self._catalogue.children(ROOT)]
        for ino in [ROOT] if self._catalogue.shown_directory(ROOT) else regions:
            self._begin(ino)

    def _begin(self, ino: int, *, urgent: bool = True) -> None:
        """Start listing a directory unless it is whole or being listed."""
        directory = self._catalogue.shown_directory(ino)
        if (
            directory is not None
            and ino not in self._single_flight
            and not self._searches.knowledge(directory).whole(directory)
        ):
            self._start(ino, directory, urgent=urgent)

    async def list(self, ino: int) -> bool:
        """List a directory; all callers for one directory share one listing.

        Return whether the service has answered: a directory that can already be shown is shown
        without an answer too.

        If the directory can already be shown, wait only briefly (``REFRESH_S``) for changes.
        Raises ServiceError if a directory that was never listed cannot be listed, or not in time:
        a partial listing is never shown. A listing that takes longer continues, for the next
        caller.
        """
        directory = self._catalogue.shown_directory(ino)
        if directory is None:
            return False
        call = self._start(ino, directory)
        if not self._searches.knowledge(directory).whole(directory):
            await call.wait(self._deadline_s)
            return True
        call.priority.rise()
        with trio.move_on_after(REFRESH_S):
            await call.over.wait()
        return call.over.is_set() and call.error is None

    async def list_again(self, ino: int) -> None:
        """List a directory even if it is known, and wait for that. Raises as :meth:`list` does."""
        directory = self._catalogue.shown_directory(ino)
        if directory is not None:
            await self._start(ino, directory).wait(self._deadline_s)

    async def bring(self, region: str, id: str) -> None:
        """Ask the service for one object, and take its record in. Raises Gone, ServiceError.

        All who ask for one object share one request.
        """
        searches = self._searches

        async def work(urgent: Priority) -> None:
            searches.take_in([await searches.service.record(region, id)])

        call = self._single_flight.start((region, id), f"object {id}", work)
        await call.wait(self._deadline_s)

    async def find(self, ino: int, name: str) -> None:
        """Ask the service for ``name`` in a directory, without listing the whole directory.

        In a year or a month this takes one small search instead of one for each part. If the name
        is that of a day, list that day unless it is large, since it is probably opened next.
        Raises as :meth:`list` does.
        """
        directory = self._catalogue.shown_directory(ino)
        if directory is None:
            return
        knowledge = self._searches.knowledge(directory)
        part = named(directory, name)
        if directory.day or knowledge.edge_ms is None or (part and knowledge.whole(directory)):
            await self.list(ino)
        elif part is None or part not in knowledge.unsettled(directory):
            return  # a directory of directories holds nothing else
        elif part.day and self._sizes.expected(part) <= MOST_FOUND:
            await self.list(part.ino)
        else:
            call = self._single_flight.start(
                part,
                part.name,
                lambda urgent: probe(self._searches, self._sizes, urgent, part),
            )
            await call.wait(self._deadline_s)

    def expect(self, records: int) -> None:
        """Note how many records the next listings bring together; many have a second process."""
        self._page_worker.expect(records)

    async def list_each(
        self, directories: Iterable[Directory], *, last: bool = False
    ) -> dict[Directory, PhonofsError]:
        """List those directories that are not known, several at a time, without a deadline.

        Listings that are ``last`` go after all other requests. Return the errors of directories
        that could not be listed.
        """
        errors: dict[Directory, PhonofsError] = {}

        async def one(directory: Directory) -> None:
            if self._searches.knowledge(directory).whole(directory):
                return
            try:
                call = self._start(directory.ino, directory, urgent=not last, last=last)
                await call.wait(math.inf, urgent=not last)
            except (ServiceError, CatalogueError) as error:
                errors[directory] = error

        await self._searches.each(one, directories)
        return errors

    async def search(self, region: Directory, span: Span, narrow: str) -> None:
        """Bring the objects that a FIQL filter finds into the catalogue: those created in a span.

        It marks nothing as listed. Raises ServiceError if not all of them can be had.
        """
        search = (self._page_worker, self._sizes, region, Priority(True))
        await DayListing(self._searches, *search, narrow).take_found(span)

    async def count(self, region: Directory, span: Span) -> int | None:
        """Ask the service how many objects were created in a span; None if it does not say."""
        searches = self._searches
        name, query = searches.catalogue.region_of(region), searches.query(region, *span)
        return (await searches.service.search(name, query, 0, 1)).total

    def statistics(self) -> dict[str, object]:
        """Return the number of running listings."""
        return {"listings": len(self._single_flight)}

    def _start(
        self, ino: int, directory: Directory, *, urgent: bool = True, last: bool = False
    ) -> SharedCall:
        work, name = partial(self._list, ino, directory), directory.name or "the root"
        return self._single_flight.start(ino, name, work, urgent=urgent, last=last)

    async def _list(self, ino: int, directory: Directory, urgent: Priority) -> None:
        try:
            if directory.day:
                day = (self._page_worker, self._sizes, directory, urgent)
                await DayListing(self._searches, *day).run()
            else:
                await list_parts(self._searches, self._sizes, urgent, directory)
        finally:
            self._looked[ino] = trio.current_time()
