"""Reads all records of some days for a client, as a manifest needs them."""

from collections.abc import AsyncGenerator, Callable

import trio

from phonofs.catalogue.catalogue import Catalogue
from phonofs.catalogue.search import scope_ms
from phonofs.discovery.lister import Lister
from phonofs.discovery.unlisted_days import unlisted_days
from phonofs.door import protocol
from phonofs.search.condition import Condition


class RecordLists:
    """Yields records by region, day and stored order. Owns no state."""

    def __init__(
        self, catalogue: Catalogue, lister: Lister, check: Callable[[], None] = lambda: None
    ) -> None:
        """``check`` raises the error with which everything is refused, if any."""
        self._catalogue = catalogue
        self._lister = lister
        self._check = check

    async def objects(
        self, request: protocol.Records
    ) -> AsyncGenerator[list[protocol.Object], None]:
        """Yield the objects of the days asked for; list the days that are not known first.

        Raises ServiceError, CatalogueError: a list with a day missing is none.
        """
        self._check()
        span = scope_ms(self._catalogue, Condition(since=request.since, until=request.until))
        types = frozenset(request.types)
        for region in self._catalogue.regions():
            for days in await unlisted_days(self._catalogue, self._lister, region, span):
                if errors := await self._lister.list_each(days):
                    raise next(iter(errors.values()))
            for day in self._catalogue.days_of(region, *span):
                async for some in self._of_day(day, types):
                    yield some

    async def _of_day(
        self, day: int, types: frozenset[str]
    ) -> AsyncGenerator[list[protocol.Object], None]:
        above = self._catalogue.path(day)
        for some in self._catalogue.records_of(day):
            self._check()
            details = self._catalogue.details([ino for ino, _, _ in some])
            yield [
                protocol.Object(
                    f"{above}/{name}",
                    record.region,
                    record.size,
                    record.state,
                    details[ino].fingerprint if ino in details else record.fingerprint,
                    record.source,
                )
                for ino, name, record in some
                if not types or record.type in types
            ]
            await trio.lowlevel.checkpoint()
