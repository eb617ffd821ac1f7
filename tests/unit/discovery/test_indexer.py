"""The indexer makes the whole account known: newest first, last in the queue, resumable."""

import sqlite3
from collections.abc import Callable
from contextlib import aclosing

import pytest
import trio

from phonofs.catalogue.search import known_by_region, search_known
from phonofs.discovery.indexer import TRIES, Indexer, Progress
from phonofs.discovery.rests import AFTER_PAUSE_S
from phonofs.errors import Malformed, Unavailable
from phonofs.model import Page, Query, Record
from phonofs.priority import Priority
from phonofs.search.condition import Condition
from phonofs.search.options import condition_of
from phonofs.tree.layout import Directory
from tests.support.catalogue_world import DAY_MS, FakeService, World, make, ms, uuid, world

FIRST, DAYS = "2024-06-20", 90
LAST = "2024-09-17"


def account(days: int = DAYS, each: int = 3) -> list[Record]:
    return [
        make(uuid(day * each + n), ms(FIRST) + day * DAY_MS + n * 3_600_000, agentName="Jo")
        for day in range(days)
        for n in range(each)
    ]


def indexer(it: World, paused_s: Callable[[], float] = lambda: 0.0) -> Indexer:
    return Indexer(
        it.catalogue, it.lister, follows=False, paused_s=paused_s, now_ms=lambda: ms("2024-09-20")
    )


async def index(
    it: World, since: str | None = None, made: Indexer | None = None, tries: int | None = None
) -> Progress:
    """Run to the end; the last step."""
    day = condition_of(since=since).since if since else None
    async with aclosing((made or indexer(it)).steps(day, tries=tries)) as steps:
        async for step in steps:
            last = step
    assert last.state == "done"
    return last


def days_asked(it: World) -> list[str]:
    """The days whose pages were asked for, in that order, each once."""
    found = []
    for _, query, _, limit in it.service.asked:
        span = (query.created_until_ms or 0) - (query.created_from_ms or 0)
        if limit > 1 and span <= DAY_MS:
            found.append(query.created_from_ms)
    return list(dict.fromkeys(found))


@pytest.mark.promise("search-whole-or-said")
async def test_afterwards_every_day_is_known_and_searches_cost_nothing(tmp_path):
    async with world(tmp_path, account()) as it:
        last = await index(it)
        assert (last.objects, last.missing, last.error) == (3 * DAYS, [], "")
        assert known_by_region(it.catalogue) == {"us-east": [[FIRST, LAST]]}
        with sqlite3.connect(tmp_path / "catalogue.sqlite") as connection:
            assert connection.execute("SELECT count(*) FROM facet").fetchone() == (3 * DAYS,)
        it.service.count()
        found = [*search_known(it.catalogue, condition_of(agent="jo"))]
        assert (sum(map(len, found)), it.service.count()) == (3 * DAYS, 0)
        assert (await index(it)).objects == 3 * DAYS
        assert not days_asked(it)


async def test_the_newest_days_come_first_month_by_month(tmp_path):
    async with world(tmp_path, account()) as it:
        await index(it)
        assert len(days_asked(it)) == DAYS
        newest = ms("2024-09-01")
        assert all(day >= newest for day in days_asked(it)[:17])
        assert all(day < newest for day in days_asked(it)[17:])


async def test_since_bounds_it(tmp_path):
    async with world(tmp_path, account()) as it:
        await index(it, since="2024-09-10")
        assert sorted(days_asked(it)) == [ms("2024-09-10") + n * DAY_MS for n in range(8)]
        assert known_by_region(it.catalogue) == {"us-east": [["2024-09-10", LAST]]}


async def test_empty_months_cost_nothing_and_many_regions_are_indexed(tmp_path):
    records = [
        *(make(uuid(n), f"20{year}-03-05", region="uk") for n, year in enumerate((10, 15, 24))),
        make(uuid(9), "2024-09-17"),
    ]
    async with world(tmp_path, records, regions=["uk", "us-east"]) as it:
        assert (await index(it)).objects == 4
        assert it.service.count() < 200  # 15 years have 5,400 days


async def test_a_run_that_was_stopped_is_continued(tmp_path):
    async with world(tmp_path, account()) as it:
        async with aclosing(indexer(it).steps(None)) as steps:
            await anext(steps)
        first = days_asked(it)
        assert len(first) == 17
        it.service.count()
        await index(it)
        assert len(days_asked(it)) == DAYS - 17
        assert not set(first) & set(days_asked(it))


class Watching(FakeService):
    """Notes the priority of each search."""

    def __init__(self) -> None:
        super().__init__()
        self.priorities: list[bool | Priority] = []

    async def search(self, region, query, page_key=0, limit=100, *, urgent=True):
        self.priorities.append(urgent)
        return await super().search(region, query, page_key, limit, urgent=urgent)


async def test_its_searches_go_after_all_others(tmp_path):
    service = Watching()
    async with world(tmp_path, account(), service=service) as it:
        await index(it)
        assert len(service.priorities) >= DAYS
        assert all(priority.last and not priority for priority in service.priorities)


async def test_who_opens_a_day_that_is_being_indexed_does_not_wait_for_the_others(tmp_path):
    service = Watching()
    service.latency_s = 1.0
    async with world(tmp_path, account(), service=service) as it, trio.open_nursery() as nursery:
        nursery.start_soon(index, it)
        while not service.priorities:  # noqa: ASYNC110
            await trio.sleep(0.1)
        await it.lister.list(Directory(0, 2024, 9, 17).ino)
        assert 0 < sum(map(bool, service.priorities)) < len(service.priorities)


async def test_it_stops_while_the_service_asks_for_a_pause(tmp_path):
    until_s = trio.current_time() + 100

    def paused_s() -> float:
        return max(0.0, until_s - trio.current_time())

    async with world(tmp_path, account()) as it:
        with trio.move_on_after(99):
            await index(it, made=indexer(it, paused_s))
        assert days_asked(it) == []
        await index(it, made=indexer(it, paused_s))
        assert trio.current_time() >= until_s + AFTER_PAUSE_S
        assert len(days_asked(it)) == DAYS


async def test_it_waits_for_a_service_that_is_away_and_goes_on(tmp_path):
    async with world(tmp_path, account()) as it:
        it.service.error = Unavailable("it is away")

        def come_back() -> None:
            it.service.error = None

        async with aclosing(indexer(it).steps(None)) as steps:
            states = []
            async for step in steps:
                states.append(step.state)
                if len(states) == 3:
                    come_back()
        assert states[:3] == ["waiting"] * 3
        assert step.objects == 3 * DAYS


async def test_a_command_gives_up_after_some_tries(tmp_path):
    async with world(tmp_path, account()) as it:
        it.service.error = Unavailable("it is away")
        with pytest.raises(Unavailable, match="it is away"):
            await index(it, tries=TRIES)
        assert trio.current_time() < 600


@pytest.mark.promise("search-whole-or-said")
async def test_a_day_that_cannot_be_listed_is_said_and_costs_no_other(tmp_path):
    bad = ms("2024-08-01")

    class Odd(FakeService):
        async def search(
            self, region: str, query: Query, page_key: int = 0, limit: int = 100, *, urgent=True
        ) -> Page:
            if query.created_from_ms == bad and limit > 1:
                raise Malformed("it cannot be understood")
            return await super().search(region, query, page_key, limit, urgent=urgent)

    async with world(tmp_path, account(), service=Odd()) as it:
        last = await index(it)
        assert last.missing == ["2024-08-01"]
        assert last.error == "it cannot be understood"
        found = search_known(it.catalogue, Condition())
        assert sum(map(len, found)) >= 3 * DAYS - 3
