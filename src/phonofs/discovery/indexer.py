"""Makes the whole account known: lists the days that were never listed, and makes their facets.

Newest first, after all other requests in the queue, and not while the service asks for a pause.
What was listed is kept, so that a later run continues. Used by ``app.py`` (option ``index``) and by
``phonofs index``.
"""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import date
from typing import Any

import msgspec
import trio

from phonofs.catalogue.catalogue import Catalogue
from phonofs.catalogue.search import Span, days_text, gaps, region_prefix, scope_ms
from phonofs.discovery.lister import Lister
from phonofs.discovery.rests import Rests, until_calm
from phonofs.discovery.unlisted_days import unlisted_days
from phonofs.errors import CatalogueError, Malformed, PhonofsError, ServiceError
from phonofs.search.condition import Condition
from phonofs.tree.layout import Directory

AT_ONCE = 8
"""Days listed side by side; a small account has a page or two a day."""

MANY = 1000
"""Records that a month is taken to have: so many that a second process prepares its pages."""

FOLLOWED_S = 60.0
"""How long to wait for the first poll of a region: what is listed before it does not count."""

TRIES = 5
"""Rounds in a row that brought nothing, after which a command gives up; that is 2.5 minutes."""

AGAIN_S = 3600.0
"""How often a mount looks again: for regions that came, and days that could not be listed."""

LOOK_S = 0.2


class Progress(msgspec.Struct, kw_only=True):
    """How far the indexer is.

    state    ``listing``, ``waiting`` or ``done``
    objects  how many are known
    texts    how many texts are known; None if they are not brought
    day      the day listed last, '' if none was yet
    error    why it waits, or why days are missing; '' if nothing is wrong
    missing  in words, days that could not be listed, and texts; only when it is done
    """

    state: str = "listing"
    objects: int = 0
    texts: int | None = None
    day: str = ""
    error: str = ""
    missing: list[str] = []

    def gauges(self) -> dict[str, object]:
        """Return what the status shows of a run in the background."""
        texts = {} if self.texts is None else {"texts": self.texts}
        return {"state": self.state, "day": self.day, "error": self.error, **texts}


class Indexer:
    """Lists and makes facets. Owns its progress in the background."""

    def __init__(
        self,
        catalogue: Catalogue,
        lister: Lister,
        *,
        follows: bool,
        paused_s: Callable[[], float],
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """``follows`` says whether regions are polled for changes; ``paused_s`` returns for how
        many more seconds the service wants no requests.
        """
        self._catalogue = catalogue
        self._lister = lister
        self._now_ms = now_ms
        self._follows = follows
        self._paused_s = paused_s
        self._progress = Progress(state="off")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Index everything, and look again every hour, until cancelled."""
        task_status.started()
        while True:
            async for progress in self.steps(None):
                self._progress = progress
            await trio.sleep(AGAIN_S)

    def statistics(self) -> dict[str, object]:
        """Return how far the background run is; ``state`` is ``off`` if there is none."""
        return self._progress.gauges()

    async def steps(
        self, since: date | None, *, tries: int | None = None
    ) -> AsyncGenerator[Progress, None]:
        """Index the days from ``since`` on; yield the progress after each month and at the end.

        If the service fails, try again after a pause; raise its error after ``tries`` rounds in a
        row that brought nothing, or never if that is None.
        """
        span = scope_ms(self._catalogue, Condition(since=since))
        rests = Rests(tries)
        while True:
            await self._until_followed()
            errors: list[PhonofsError] = []
            before = self._missing_ms(span)
            for region in self._catalogue.regions():
                try:
                    months = await unlisted_days(
                        self._catalogue, self._lister, region, span, last=True
                    )
                except (ServiceError, CatalogueError) as error:
                    errors.append(error)
                    continue
                for days in months:
                    self._lister.expect(MANY)
                    errors += await self._list(days)
                    yield self._progressed(day=days[-1].name)
            if all(isinstance(error, Malformed) for error in errors):
                break  # trying again brings nothing
            rest_s = rests.after(errors[-1], vain=self._missing_ms(span) == before)
            yield self._progressed(state="waiting", error=str(errors[-1]))
            await trio.sleep(rest_s)
        await self.make_facets(since)
        yield self._progressed(
            state="done", error=str(errors[-1]) if errors else "", missing=self._missing(span)
        )

    async def make_facets(self, since: date | None) -> None:
        """Make the facets that days lack of which something is known; asks the service nothing."""
        for region in self._catalogue.regions():
            days_known = self._catalogue.facets.days(region, since, None)
            for ino in self._catalogue.facets.lacking(*days_known)[::-1] if days_known else ():
                await self._make(ino)

    async def _until_followed(self) -> None:
        """Wait until all regions are polled for changes, or FOLLOWED_S have passed.

        Nothing tells us of that moment; it comes some searches after the start.
        """
        following = self._catalogue.coverage.following
        with trio.move_on_after(FOLLOWED_S if self._follows else 0):
            while not all(map(following, self._catalogue.regions())):  # noqa: ASYNC110
                await trio.sleep(LOOK_S)

    async def _list(self, days: Sequence[Directory]) -> list[PhonofsError]:
        """List days, newest first, and make their facets; return the errors."""
        errors: list[PhonofsError] = []
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def one(day: Directory) -> None:
            async with limiter:
                await until_calm(self._paused_s)
                found = await self._lister.list_each([day], last=True)
                errors.extend(found.values())
                if not found:
                    await self._make(day.ino)

        async with trio.open_nursery() as nursery:
            for day in days:
                nursery.start_soon(one, day)
        return errors

    async def _make(self, day: int) -> None:
        """Make the facets of a day; other tasks run in between."""
        for _ in self._catalogue.facets.make(day):
            await trio.lowlevel.checkpoint()

    def _missing_ms(self, span: Span) -> int:
        """Return how much time is not known, in all regions together."""
        regions = self._catalogue.regions()
        spans = (gap for region in regions for gap in gaps(self._catalogue, region, span))
        return sum(stop_ms - start_ms for start_ms, stop_ms in spans)

    def _missing(self, span: Span) -> list[str]:
        """Return in words which days are not known."""
        said = []
        for region in self._catalogue.regions():
            if missing := gaps(self._catalogue, region, span):
                days = days_text(self._catalogue, missing, self._now_ms())
                said.append(region_prefix(self._catalogue, region) + days)
        return said

    def _progressed(self, **what: Any) -> Progress:
        return Progress(objects=self._catalogue.totals()[0], **what)
