"""A lister and a follower over the real client and a search API that may misbehave."""

import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import trio

from phonofs.discovery.estimates import DaySizeEstimator
from phonofs.discovery.follower import Follower
from phonofs.discovery.lister import Lister
from phonofs.model import Record
from tests.support.catalogue_world import LATENCY_S, Settings, Told, World, ms, opened
from tests.support.service_world import connected

Page = dict[str, Any]


def nothing_wrong(search: "Search") -> httpx.Response | None:
    """Answer every search correctly."""


@dataclass
class Search:
    """One search request; ``filter`` has the bounds for each field, epoch ms."""

    key: int
    limit: int
    sort: str
    descending: bool
    bounds: dict[str, int]


@dataclass
class SearchApi:
    """``GET /objects`` of one region over HTTP.

    window     the largest ``pageKey + limit``; a search beyond it is answered ``beyond``
    most       the largest page: a larger ``limit`` is refused with 400
    given      the largest page that is returned, whatever ``limit`` says
    total      ``total`` of a page: a function of the number found and the limit
    ends       ``lastPage`` of a page: a function of the correct value
    misbehave  may answer a search in another way
    page       may change a page
    """

    records: dict[str, Record] = field(default_factory=dict)
    latency_s: float = LATENCY_S
    window: int | None = None
    beyond: Callable[[], httpx.Response] | None = lambda: httpx.Response(400)
    most: int = 1000
    given: int = 1000
    total: Callable[[int, int], Any] = lambda found, limit: found
    ends: Callable[[bool], Any] = lambda last: last
    misbehave: Callable[[Search], httpx.Response | None] = nothing_wrong
    page: Callable[[Search, Page], Page] = lambda search, page: page
    searches: list[Search] = field(default_factory=list)
    _found: dict[tuple[Any, ...], list[Record]] = field(default_factory=dict)

    def put(self, *records: Record) -> None:
        self._found.clear()
        for record in records:
            self.records[record.id] = record

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/v2/token":
            return httpx.Response(200, json={"access_token": "t", "expires_in": "9999999"})
        search = _search(request)
        self.searches.append(search)
        await trio.sleep(self.latency_s)
        if (answer := self.misbehave(search)) is not None:
            return answer
        if search.limit > self.most:
            return httpx.Response(400)
        if self.window is not None and search.key + search.limit > self.window:
            if self.beyond is not None:
                return self.beyond()
            found = self.found(search)[: self.window]  # the rest is left out silently
        else:
            found = self.found(search)
        return self.answer(search, found)

    def answer(self, search: Search, found: list[Record]) -> httpx.Response:
        some = found[search.key : search.key + min(search.limit, self.given)]
        page: Page = {
            "content": [msgspec.Raw(record.source) for record in some],
            "lastPage": self.ends(search.key + len(some) >= len(found)),
            "pageKey": search.key + search.limit,
            "pageSize": len(some),
            "total": self.total(len(found), search.limit),
        }
        return httpx.Response(200, content=msgspec.json.encode(self.page(search, page)))

    def found(self, search: Search) -> list[Record]:
        asked = (len(self.records), search.sort, search.descending, *search.bounds.items())
        if asked not in self._found:
            self._found[asked] = self._find(search)
        return self._found[asked]

    def _find(self, search: Search) -> list[Record]:
        bounds = search.bounds
        found = [
            one
            for one in self.records.values()
            if bounds.get("createdTime=ge", 0) <= one.created_ms
            and one.created_ms < bounds.get("createdTime=lt", 1 << 62)
            and bounds.get("updatedTime=ge", 0) <= one.updated_ms
            and one.updated_ms < bounds.get("updatedTime=lt", 1 << 62)
        ]
        name = "created_ms" if search.sort == "createdTime" else "updated_ms"
        found.sort(key=lambda one: (getattr(one, name), one.id), reverse=search.descending)
        return found

    def count(self) -> int:
        """Return the number of searches since the last call."""
        count, self.searches = len(self.searches), []
        return count


def _search(request: httpx.Request) -> Search:
    asked = request.url.params
    bounds = re.findall(r"((?:created|updated)Time=(?:ge|lt))=(\d+)", asked["filter"])
    return Search(
        int(asked["pageKey"]),
        int(asked["limit"]),
        asked["sortField"],
        asked["sortDirection"] == "DESC",
        {name: int(value) for name, value in bounds},
    )


@dataclass
class Listing(World):
    """A world whose service is behind HTTP; the test runs the follower itself."""

    api: SearchApi
    follower: Follower


@asynccontextmanager
async def listing(
    path: Path,
    api: SearchApi,
    records: Iterable[Record] = (),
    *,
    now: str = "2024-12-01",
    **options: Any,
) -> AsyncIterator[Listing]:
    """Make a lister over the client over ``api``."""
    api.put(*records)
    settings = Settings(**options)
    catalogue = opened(path, settings, now=now)
    told = Told()
    try:
        async with connected(api, read_deadline_s=settings.read_deadline) as it:
            sizes = DaySizeEstimator()
            parts = (it.client, catalogue, settings, told.take)
            lister = Lister(*parts, now_ms=lambda: ms(now), sizes=sizes)
            follower = Follower(*parts, sizes=sizes)
            async with trio.open_nursery() as nursery:
                await nursery.start(lister.run)
                yield Listing(catalogue, it.client, lister, told, api, follower)  # type: ignore[arg-type]
                nursery.cancel_scope.cancel()
    finally:
        catalogue.close()
