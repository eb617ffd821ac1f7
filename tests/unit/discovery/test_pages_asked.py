"""How many pages a listing asks the service for: hardly more than there are, and none twice."""

import random
from collections import Counter
from pathlib import Path

import httpx
import pytest
import trio
from msgspec.structs import replace

from phonofs.catalogue.placement import Placement
from phonofs.catalogue.prepared_page import PreparedPage, prepare
from phonofs.catalogue.types import TreeOptions
from phonofs.config.options import DEFAULT_TEMPLATE
from phonofs.discovery.page_worker import PageWorker
from phonofs.discovery.pagination import OffsetPager
from phonofs.errors import Unavailable
from phonofs.model import Page
from phonofs.tree.layout import Directory
from tests.support.catalogue_world import HOUR_MS, LATENCY_S, make, ms, uuid
from tests.support.listing_world import SearchApi, listing

DAY = Directory(0, 2024, 9, 17)
NOON = ms("2024-09-17T12:00:00")

TOTALS = {
    "records": lambda found, limit: found,
    "pages": lambda found, limit: -(-found // limit),
    "absent": lambda found, limit: None,
}


class UnsteadyApi(SearchApi):
    """Answers after one to two times the latency, so that pages come in another order."""

    steady = True

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.latency_s = LATENCY_S * (1 if self.steady else random.uniform(1, 2))
        return await super().__call__(request)


def page_of(count: int, key: int, limit: int) -> PreparedPage:
    """Return the page at an offset of a listing of ``count`` records, without a total."""
    ids = [str(number) for number in range(key, min(key + limit, count))]
    some = len(ids)
    page = Page([], some, last=key + some >= count)
    prepared = prepare(page, "us-east", 0, Placement(TreeOptions("UTC", DEFAULT_TEMPLATE)))
    return replace(prepared, ids=ids, created=[*range(key, key + some)])


def pages_of(count: int) -> int:
    """Return how many pages of 100 there are, each of which begins with the last record before."""
    return max(1, -(-(count - 1) // 99))


def most_asked(count: int, total: str) -> float:
    """Return how many pages may be asked for: 5 % and one more than there are.

    A listing of 1,000 records that no total confirms is searched once more after its last record.
    From 200 records on its end is looked for with up to four pages: with one, a day of 3,000
    would take twice as long.
    """
    pages = pages_of(count)
    unconfirmed = total == "absent" and 200 < count < 9000
    return pages * 1.05 + 1 + (4 if unconfirmed else 0)


@pytest.mark.parametrize("steady", [True, False])
@pytest.mark.parametrize("total", TOTALS)
@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 1000, 1001, 10_000])
async def test_hardly_more_pages_are_asked_for_than_there_are(
    tmp_path: Path, count: int, total: str, steady: bool
):
    """Whatever the total is, and in whatever order the pages come."""
    random.seed(count)
    records = [make(uuid(n), NOON - HOUR_MS + n * 200) for n in range(count)]
    api = UnsteadyApi(total=TOTALS[total])
    async with listing(tmp_path, api, [*records, make("later", "2024-09-20")]) as w:
        await w.ls("2024/2024-09")
        api.count()
        api.steady = steady
        await w.lister.list(DAY.ino)
        assert len(w.catalogue.children(DAY.ino)) == count
        assert len(api.searches) <= most_asked(count, total)
        asked = Counter((one.descending, one.key, *one.bounds.items()) for one in api.searches)
        assert max(asked.values()) == 1, "no page is asked for twice"


ROUND_TRIPS = {"records": 8, "pages": 9, "absent": 10}
"""For 10,000 objects, of which one round trip brings 14 pages of 100. The end is known after them:
where no total says it, the last object is searched for beside the pages."""


@pytest.mark.parametrize("total", TOTALS)
async def test_a_large_day_takes_hardly_more_round_trips_than_pages_need(
    tmp_path: Path, total: str
):
    """Counted by a clock that only the service's latency moves."""
    records = [make(uuid(n), NOON - HOUR_MS + n * 200) for n in range(10_000)]
    api = SearchApi(total=TOTALS[total])
    async with listing(tmp_path, api, [*records, make("later", "2024-09-20")]) as w:
        await w.ls("2024/2024-09")
        began_s = trio.current_time()
        await w.lister.list(DAY.ino)
        assert len(w.catalogue.children(DAY.ino)) == 10_000
        assert (trio.current_time() - began_s) / LATENCY_S <= ROUND_TRIPS[total] + 0.1


@pytest.mark.parametrize("total", TOTALS)
async def test_how_fast_the_newest_were_made_spares_the_first_large_day_two_round_trips(
    tmp_path: Path, total: str
):
    """Where no total tells how large a day is, the first page of changes does. Hardly more pages
    are asked for than there are.
    """
    start_ms = ms("2024-09-17")
    records = [make(uuid(n), start_ms + n * 8640) for n in range(10_000)]
    api = SearchApi(total=TOTALS[total])
    async with listing(tmp_path, api, [*records, make("later", "2024-09-20")]) as w:
        await w.follower.poll("us-east")
        await w.ls("2024/2024-09")
        api.count()
        began_s = trio.current_time()
        await w.lister.list(DAY.ino)
        took_s = trio.current_time() - began_s
        assert len(w.catalogue.children(DAY.ino)) == 10_000
        assert took_s / LATENCY_S <= min(ROUND_TRIPS[total], 8 + (total == "pages")) + 0.1
        assert len(api.searches) <= most_asked(10_000, total)


@pytest.mark.parametrize("yesterday", [9000, 9900, 10_000])
def test_a_day_hardly_larger_than_the_one_before_takes_few_more_round_trips(yesterday: int):
    """Of a service without totals: the pages before the estimate, then the few behind it."""
    paging, round_trips = OffsetPager(100, 14, yesterday), 0
    asks, asked = paging.ask(), 0
    while asks:
        round_trips += 1
        asked += len(asks)
        for key, limit in asks:
            paging.feed(key, page_of(10_000, key, limit))
        if paging.ask_last():
            paging.confirm("9999")
        asks = paging.ask()
    assert paging.adds_up
    assert not paging.doubted
    assert round_trips <= 12
    assert asked <= most_asked(10_000, "absent")


def test_a_page_beyond_those_requested_leads():
    """It is read before the others: it decides what is requested next."""
    paging = OffsetPager(100, 14)
    assert [key for key, _ in paging.ask()] == [0]
    assert not paging.leads(0)
    paging.feed(0, page_of(10_000, 0, 100))
    first, *guesses = sorted(key for key, _ in paging.ask())
    assert not paging.leads(first)
    assert guesses
    assert all(paging.leads(key) for key in guesses[1:])


def test_what_lies_beyond_an_estimate_is_known_before_all_pages_up_to_it_are_requested():
    """Else what is requested next would wait for it; a quiet day shows before that."""
    paging = OffsetPager(100, 14, expected=2500)
    keys = [key for key, _ in paging.ask()]
    assert keys == [n * 99 for n in range(14)]
    asked: list[int] = []
    for key in keys:
        paging.arrive(key)
        asked += [key for key, _ in paging.ask()]
    [beyond] = [key for key in asked if key > 2500]
    assert asked.index(beyond) == 6
    assert [key for key in asked if key != beyond] == [n * 99 for n in range(14, 26)]


def test_pages_that_come_together_make_room_together():
    """The next ones leave before any of them is read."""
    paging = OffsetPager(100, 4, expected=100_000)
    for key, _ in paging.ask():
        paging.arrive(key)
    assert len(paging.ask()) == 3


def test_a_page_that_is_here_makes_room_for_the_next_request():
    """Reading pages does not hold back the requests; the pages that wait to be read are bounded."""
    paging = OffsetPager(100, 4, expected=100_000)
    keys = [key for key, _ in paging.ask()]
    assert len(keys) == 4
    for count, key in enumerate(keys, 1):
        paging.arrive(key)
        more = paging.ask()
        assert len(more) == (1 if count < 4 else 0), "4 wait to be read: nothing more is requested"


@pytest.mark.promise("listing-whole-or-error")
@pytest.mark.parametrize("total", TOTALS)
async def test_with_one_search_at_a_time_a_large_day_is_whole(tmp_path: Path, total: str):
    """The search for the last object takes the place of a page; the other pages come after it."""
    records = [make(uuid(n), NOON - HOUR_MS + n * 200) for n in range(1500)]
    api = SearchApi(total=TOTALS[total])
    async with listing(tmp_path, api, records, max_connections=1) as w:
        await w.lister.list(DAY.ino)
        assert len(w.catalogue.children(DAY.ino)) == 1500
        assert len(api.searches) <= most_asked(1500, total) + 1


async def test_the_next_pages_are_requested_before_a_page_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """With two searches at a time, two are on their way while the page that came is read."""
    api = UnsteadyApi()
    api.steady = False
    unread: list[int] = []
    read = 0

    async def prepared(self: PageWorker, *page: object) -> None:
        nonlocal read
        await trio.sleep(3 * LATENCY_S)
        unread.append(sum(search.limit == 100 for search in api.searches) - read)
        read += 1

    monkeypatch.setattr(PageWorker, "prepared", prepared)
    records = [make(uuid(n), NOON - HOUR_MS + n * 1000) for n in range(900)]
    async with listing(tmp_path, api, records, max_connections=4) as w:
        await w.lister.list(DAY.ino)
        assert len(w.catalogue.children(DAY.ino)) == 900
    assert max(unread) > 2


class CountingApi(SearchApi):
    """Counts the answers."""

    answered = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = await super().__call__(request)
        self.answered += 1
        return answer


async def test_the_next_pages_are_requested_before_the_worker_gets_those_that_came_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The worker would take the processor from what sends them, and from a service beside it."""
    api = CountingApi()
    flying: list[int] = []

    async def prepared(self: PageWorker, *page: object) -> None:
        if len(api.searches) < pages_of(1500):
            flying.append(len(api.searches) - api.answered)

    monkeypatch.setattr(PageWorker, "prepared", prepared)
    records = [make(uuid(n), NOON - HOUR_MS + n * 1000) for n in range(1500)]
    records.append(make("later", "2024-09-20"))
    async with listing(tmp_path, api, records, max_connections=6) as w:
        await w.ls("2024/2024-09")
        api.count()
        api.answered = 0
        await w.lister.list(DAY.ino)
        assert len(w.catalogue.children(DAY.ino)) == 1500
    assert len(flying) > 4
    assert set(flying) == {3}, "all but one of the four that may be on their way at a time"


@pytest.mark.promise("listing-whole-or-error")
async def test_a_pass_that_ends_before_the_end_was_seen_proves_nothing(tmp_path: Path, monkeypatch):
    """Whatever kept the rest from being requested, the day is an error, never short."""
    ask = OffsetPager.ask
    monkeypatch.setattr(OffsetPager, "ask", lambda self: [] if self.size > 150 else ask(self))
    records = [make(uuid(n), NOON + n * 200) for n in range(2000)]
    api = SearchApi(total=TOTALS["absent"])
    async with listing(tmp_path, api, [*records, make("later", "2024-09-20")]) as w:
        await w.ls("2024/2024-09")
        with pytest.raises(Unavailable):
            await w.lister.list(DAY.ino)
        assert w.lister.needs(DAY.ino)
