"""A folder is shown whole or is an error: whatever the service does to its pages."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from phonofs.errors import Malformed, PhonofsError, Unavailable
from tests.support.catalogue_world import DAY_MS, HOUR_MS, files, make, ms, uuid
from tests.support.listing_world import Listing, Page, Search, SearchApi, listing

DAY = "2024/2024-09/2024-09-17"
NOON = ms("2024-09-17T12:00:00")


def day_of(count: int, *, per_second: int = 1, first: int = 0, start_ms: int = NOON - HOUR_MS):
    """``count`` objects of a day, so many of each second."""
    return [make(uuid(first + n), start_ms + n // per_second * 1000) for n in range(count)]


async def shown(w: Listing, path: str = DAY) -> int | str:
    """How many entries a folder shows, or the name of the error."""
    try:
        return len(await w.ls(path))
    except PhonofsError as error:
        return type(error).__name__


def failing(status: int) -> Callable[[Search], httpx.Response | None]:
    """Answer the two ends, the probes and the first page of changes; fail every page of a day."""

    def misbehave(search: Search) -> httpx.Response | None:
        return httpx.Response(status) if search.limit > 1 and not search.descending else None

    return misbehave


# what proves that a span is whole


@pytest.mark.promise("listing-whole-or-error")
@pytest.mark.parametrize("spread_ms", [0, 1000])
@pytest.mark.parametrize("status", [500, 503, 400, 0])
@pytest.mark.parametrize("followed", [True, False])
@pytest.mark.parametrize("count", [40])
async def test_objects_of_one_second_are_shown_whole_or_not_at_all(
    tmp_path: Path, count: int, followed: bool, status: int, spread_ms: int
):
    """Two ends of a span say nothing of what lies between them, also where they are one second."""
    records = [make(uuid(n), NOON + n * spread_ms) for n in range(count)]
    async with listing(tmp_path, SearchApi(), records, read_deadline=5.0) as w:
        if followed:
            await w.follower.poll("us-east")
        w.api.misbehave = failing(status) if status else slow
        for _ in range(3):
            assert await shown(w) in (count, "Unavailable", "Malformed")
            if followed:
                with suppress(PhonofsError):
                    await w.follower.poll("us-east")
            await trio.sleep(10)
        w.api.misbehave = lambda search: None
        await trio.sleep(100)
        assert await shown(w) == count


def slow(search: Search) -> httpx.Response | None:
    """Never come to an end: the client gives it up."""
    return httpx.Response(503, headers={"Retry-After": "4"}) if search.limit > 1 else None


@pytest.mark.promise("listing-whole-or-error")
@pytest.mark.parametrize("followed", [True, False])
async def test_thousands_of_one_second_are_all_shown(tmp_path: Path, followed: bool):
    """Created at the very time up to which the changes are known."""
    records = [make(uuid(n), NOON) for n in range(3000)]
    async with listing(tmp_path, SearchApi(), records) as w:
        if followed:
            await w.follower.poll("us-east")
        assert await shown(w) == 3000


@pytest.mark.promise("listing-whole-or-error")
async def test_a_poll_that_is_cut_off_proves_nothing(tmp_path: Path):
    """Pages of changes come by the time of change: a day may miss those of later pages."""
    old = [make("old-one", "2024-09-10")]
    async with listing(tmp_path, SearchApi(), old, read_deadline=5.0) as w:
        await w.follower.poll("us-east")
        await w.follower.poll("us-east")
        records = day_of(300)
        changed = [
            make(uuid(1000 + n), NOON - HOUR_MS + n * 500, updated=NOON + n) for n in range(300)
        ]
        w.api.put(*records, *changed)
        pages = iter(range(1000))
        w.api.misbehave = lambda search: httpx.Response(503) if next(pages) > 1 else None
        with pytest.raises(Unavailable):
            await w.follower.poll("us-east")
        w.api.misbehave = failing(503)
        assert await shown(w) in (0, 600, "Unavailable")
        w.api.misbehave = lambda search: None
        await w.follower.poll("us-east")
        w.api.count()
        assert await shown(w) == 600
        assert w.api.count() == 0, "a poll that came to its end proves it"


@pytest.mark.promise("listing-whole-or-error")
async def test_ends_that_contradict_each_other_prove_nothing(tmp_path: Path):
    """One search finds nothing, the other something: the answer of nobody."""
    records = [*day_of(50), make("newest", "2024-09-25")]
    async with listing(tmp_path, SearchApi(), records) as w:
        await w.follower.poll("us-east")
        empty = iter([True])
        w.api.page = lambda search, page: (
            {**page, "content": [], "lastPage": True, "total": 0}
            if not search.descending and next(empty, False)
            else page
        )
        await shown(w, "")
        assert await shown(w) == 50


# search windows


@pytest.mark.promise("listing-whole-or-error")
@pytest.mark.parametrize(("count", "per_second"), [(1000, 1), (1001, 1), (1010, 7), (2500, 7)])
@pytest.mark.parametrize("beyond", [400, 416, 500, None])
async def test_a_day_larger_than_a_search_window_is_listed(
    tmp_path: Path, count: int, per_second: int, beyond: int | None
):
    """Refused beyond an offset, or silently empty there; with the true total, and without one."""
    for number, total in enumerate((lambda found, limit: count, lambda found, limit: None)):
        api = SearchApi(window=1000, total=total)
        api.beyond = (lambda: httpx.Response(beyond)) if beyond else None
        records = day_of(count, per_second=per_second)
        async with listing(tmp_path / str(number), api, records) as w:
            await w.ls("2024/2024-09")
            api.count()
            assert await shown(w) == count
            if beyond in (400, 416, None):
                assert api.count() <= count / 99 * 1.5 + 30
            await w.lister.list(await w.open("2024/2024-09/2024-09-17"))
            assert len(files(w.catalogue)) == count


async def test_a_search_window_says_nothing_of_the_size_of_a_page(tmp_path: Path):
    """A refusal at an offset is not taken for a limit of the page: later days cost no more."""
    api = SearchApi(window=1000)
    later = day_of(300, first=10_000, start_ms=ms("2024-09-19T08:00:00"))
    async with listing(tmp_path, api, [*day_of(1001), *later]) as w:
        assert await shown(w) == 1001
        api.count()
        assert await shown(w, "2024/2024-09/2024-09-19") == 300
        assert api.count() <= 14, "as many at once as the day before had, and not 30 of 10"
        assert {search.limit for search in api.searches} <= {1, 100}


async def test_a_limit_of_the_page_is_learned_from_the_first_page(tmp_path: Path):
    """Pages of 50 and a window of 1000 at once: both are found out."""
    api = SearchApi(window=1000, most=50)
    async with listing(tmp_path, api, day_of(1200)) as w:
        assert await shown(w) == 1200
        api.count()
        await trio.sleep(10)
        assert {search.limit for search in api.searches} <= {1, 50}


@pytest.mark.promise("listing-whole-or-error")
@pytest.mark.parametrize("total", [True, False])
@pytest.mark.parametrize("silent", [True, False])
async def test_more_objects_of_one_second_than_the_window_are_an_error(
    tmp_path: Path, total: bool, silent: bool
):
    """The search API cannot show them: that is said, and no shorter folder is shown."""
    if silent and not total:
        pytest.skip("nothing in the answers tells it")
    api = SearchApi(window=1000, total=lambda found, limit: 1500 if total and limit > 1 else None)
    if silent:
        api.beyond = None
    records = [*day_of(20), *(make(uuid(5000 + n), NOON) for n in range(1480))]
    async with listing(tmp_path, api, records) as w:
        await w.ls("2024/2024-09")
        with pytest.raises((Malformed, Unavailable), match=r"2024-09-17.*one second"):
            await w.ls(DAY)
        with pytest.raises((Malformed, Unavailable)):
            await w.ls(DAY)


@pytest.mark.promise("changes-within-a-poll")
async def test_changes_of_one_second_beyond_the_window_are_followed(tmp_path: Path):
    """20 days archived in one second: the follower passes that second and goes on."""
    api = SearchApi(window=1000)
    async with listing(tmp_path, api, [make("old-one", "2024-09-01")]) as w:
        await w.follower.poll("us-east")
        await w.follower.poll("us-east")
        api.put(*(make(uuid(n), NOON - n * HOUR_MS // 2, updated=NOON) for n in range(1500)))
        api.put(make("new-one", NOON + 5000))
        await w.follower.poll("us-east")
        assert len(files(w.catalogue)) == 1502
        api.put(make("new-two", NOON + 60_000))
        await w.follower.poll("us-east")
        assert len(files(w.catalogue)) == 1503


@pytest.mark.parametrize("silent", [True, False])
async def test_changes_that_no_search_shows_cost_their_own_day_only(
    tmp_path: Path, expected_log, silent: bool
):
    """More were created and changed in one second than are shown: newer changes still come, and
    every day is listed again, since it is not known which ones changed."""
    expected_log.expect("listed again")
    api = SearchApi(window=1000)
    if silent:
        api.beyond = None
        api.total = lambda found, limit: 1500 if found >= 1000 else found
    async with listing(tmp_path, api, [make("old-one", "2024-09-01")]) as w:
        await w.follower.poll("us-east")
        await w.follower.poll("us-east")
        assert await shown(w, "2024/2024-09/2024-09-01") == 1
        api.put(*(make(uuid(n), NOON) for n in range(1500)), make("new-one", NOON + DAY_MS))
        await w.follower.poll("us-east")
        assert await shown(w) == "Malformed"
        assert await shown(w, "2024/2024-09/2024-09-18") == 1
        assert await shown(w, "2024/2024-09/2024-09-01") == 1


# what a page says of the whole

TOTALS: dict[str, Callable[[int, int], Any]] = {
    "records": lambda found, limit: found,
    "pages": lambda found, limit: -(-found // limit),
    "pages of 100": lambda found, limit: -(-found // 100),
    "one page more": lambda found, limit: found // limit + 1,
    "none": lambda found, limit: None,
    "zero": lambda found, limit: 0,
    "text": lambda found, limit: str(found),
    "pages as text": lambda found, limit: str(-(-found // limit)),
    "words": lambda found, limit: "many",
    "the page": lambda found, limit: min(found, limit),
    "the account": lambda found, limit: 1_000_000,
    "a float": lambda found, limit: float(found),
    "negative": lambda found, limit: -1,
    "noise": lambda found, limit: found + random.Random(found).randrange(1, 50) * limit,
}


@pytest.mark.promise("listing-whole-or-error")
@pytest.mark.parametrize("total", TOTALS)
@pytest.mark.parametrize("ends", ["true", "always", "never"])
async def test_a_listing_is_whole_whatever_total_and_last_page_say(
    tmp_path: Path, total: str, ends: str
):
    """A total is believed only where it agrees with what came."""
    if ends == "always" and total in ("none", "zero", "words", "negative", "the page"):
        pytest.skip("nothing in the answers tells that there is more")
    says: dict[str, Callable[[bool], Any]] = {
        "true": lambda last: last,
        "always": lambda last: True,
        "never": lambda last: False,
    }
    for number, count in enumerate((1, 100, 450)):
        api = SearchApi(total=TOTALS[total], ends=says[ends])
        async with listing(tmp_path / str(number), api, day_of(count)) as w:
            assert await shown(w) == count


@pytest.mark.parametrize("total", ["records", "pages", "none"])
async def test_a_large_day_takes_no_longer_for_an_odd_total(tmp_path: Path, total: str):
    """10,020 objects at 50 ms: page by page it would be 5 s."""
    api = SearchApi(total=TOTALS[total])
    async with listing(tmp_path, api, day_of(10_020, per_second=3)) as w:
        await w.ls("2024/2024-09")
        begun = trio.current_time()
        assert await shown(w) == 10_020
        assert trio.current_time() - begun <= 1.5


async def test_a_page_larger_than_asked_for_is_taken(tmp_path: Path):
    """A service that gives 100 records whatever is asked for; and one that gives fewer."""
    for number, given in enumerate((7, 60, 250)):
        api = SearchApi(given=given)
        answer = api.answer

        def fixed(search: Search, found: Any, given=given, answer=answer) -> httpx.Response:
            search.limit = given
            return answer(search, found)

        api.answer = fixed  # type: ignore[method-assign]
        async with listing(tmp_path / str(number), api, day_of(500)) as w:
            assert await shown(w) == 500


@pytest.mark.parametrize("count", [1, 3, 150])
async def test_a_service_that_repeats_its_first_page_is_given_up(tmp_path: Path, count: int):
    """Whatever offset is asked for: a few searches, not one for each offset."""
    records = day_of(count)
    async with listing(tmp_path, SearchApi(total=TOTALS["none"]), records) as w:
        await w.ls("2024/2024-09")
        w.api.count()
        w.api.misbehave = lambda search: w.api.answer(
            Search(0, search.limit, search.sort, search.descending, search.bounds), records
        )
        assert await shown(w) in (count, "Malformed", "Unavailable")
        assert w.api.count() <= 60


@pytest.mark.parametrize("status", [400, 404, 416])
async def test_a_page_beyond_the_end_may_be_refused(tmp_path: Path, status: int):
    """Pages are asked for side by side, so some lie beyond the end: that is no window."""
    api = SearchApi(total=TOTALS["none"])
    api.misbehave = lambda search: (
        httpx.Response(status) if search.key and search.key >= len(api.found(search)) else None
    )
    for number, count in enumerate((5, 100, 320)):
        async with listing(tmp_path / str(number), api, day_of(count)) as w:
            await w.ls("2024/2024-09")
            api.count()
            assert await shown(w) == count
            assert api.count() <= 10


async def test_a_call_over_midnight_lies_in_the_folder_of_its_creation(tmp_path: Path):
    """The folder is createdTime's day, which can be asked for; the name has startTime."""
    began = str(ms("2024-09-16T23:58:10"))
    records = [make("over-midnight", "2024-09-17T00:04:00", startTime=began)]
    async with listing(tmp_path, SearchApi(), records) as w:
        assert (await w.ls(DAY))[0].startswith("235810_")


async def test_the_next_page_is_not_taken_from_an_echo(tmp_path: Path):
    """pageKey may be the one asked for, the next one, one beyond the end, or a text."""
    for number, key in enumerate((0, 7, "100", None, -1, 1 << 60)):
        api = SearchApi(page=lambda search, page, key=key: {**page, "pageKey": key})
        async with listing(tmp_path / str(number), api, day_of(350)) as w:
            assert await shown(w) == 350


async def test_an_empty_page_that_says_there_are_records_is_asked_for_again(tmp_path: Path):
    """One search in a while comes empty, with the true total: nothing of it is lost."""
    number = iter(range(10_000))

    def page(search: Search, page: Page) -> Page:
        return {**page, "content": []} if next(number) % 5 == 3 else page

    async with listing(tmp_path, SearchApi(page=page), day_of(950)) as w:
        assert await shown(w) == 950


# late records


@pytest.mark.promise("changes-within-a-poll")
@pytest.mark.parametrize("late_h", [0.01, 0.5, 1.5, 20, 40])
async def test_an_object_that_is_searchable_late_is_shown(tmp_path: Path, late_h: float):
    """Its day was listed before; a look back of two days, once a run and every few hours, brings
    it, at a hundredth of the searches of a day."""
    old = [make(uuid(n), NOON - DAY_MS + n * 60_000) for n in range(60)]
    newest = make("newest", NOON)
    late = make("late-one", NOON - int(late_h * HOUR_MS))
    async with listing(tmp_path, SearchApi(), [*old, newest]) as w, followed(w):
        await trio.sleep(61)
        for day in await w.ls("2024/2024-09"):
            await w.ls(f"2024/2024-09/{day}")
        await trio.sleep(HOUR_MS / 1000)
        w.api.put(late)
        w.api.count()
        await trio.sleep(12 * HOUR_MS / 1000)
        assert w.api.count() <= 12 * 60 * 1.02 + 2
        assert [path for path in files(w.catalogue) if "late-one" in path]
    again = make("late-two", NOON - int(late_h * HOUR_MS) - 5000)
    async with listing(tmp_path, w.api, [again]) as w, followed(w):
        await trio.sleep(130)
        assert [path for path in files(w.catalogue) if "late-two" in path]


@asynccontextmanager
async def followed(w: Listing) -> AsyncIterator[None]:
    """The follower at work."""
    async with trio.open_nursery() as nursery:
        await nursery.start(w.follower.run)
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.expected_log("set aside")
@pytest.mark.parametrize("total", ["records", "pages", "the account"])
async def test_a_record_that_calls_itself_the_last_hides_no_folder(tmp_path: Path, total: str):
    """The first record of a month cannot be understood, and every page says it is the last."""
    good = [make(uuid(n), NOON - n * 24 * HOUR_MS) for n in range(90)]
    api = SearchApi(total=TOTALS[total], ends=lambda last: True)
    async with listing(tmp_path / "good", api, good) as w:
        expected = await everything(w)
    firsts = [make(uuid(1000 + n), f"2024-0{n}-01") for n in (7, 8, 9)]
    odd = [msgspec.structs.replace(one, source=b'{"id": 1}') for one in firsts]
    async with listing(tmp_path / "odd", api, odd) as w:
        assert await everything(w) == expected


async def everything(w: Listing) -> set[str]:
    found = set()
    for year in await w.ls():
        for month in await w.ls(year):
            for day in await w.ls(f"{year}/{month}"):
                names = await w.ls(f"{year}/{month}/{day}")
                found |= {f"{day}/{name}" for name in names}
    return found


async def test_a_poll_ends_if_one_full_page_comes_for_ever(tmp_path: Path):
    """The service ignores pageKey and calls each page the last."""
    api = SearchApi(ends=lambda last: True)
    answer = api.answer

    def always_the_first(search: Search, found: Any) -> httpx.Response:
        search.key = 0
        return answer(search, found)

    api.answer = always_the_first  # type: ignore[method-assign]
    records = [make(uuid(n), NOON - n * HOUR_MS // 100, updated=NOON) for n in range(100)]
    async with listing(tmp_path, api, records, page_size=100) as w:
        await w.follower.poll("us-east")
        api.count()
        with trio.move_on_after(60) as patience:
            await w.follower.poll("us-east")
        assert not patience.cancelled_caught
        assert api.count() <= 20


@pytest.mark.parametrize("total", ["none", "zero"])
@pytest.mark.parametrize("ends", ["true", "never"])
async def test_one_record_for_both_ends_proves_nothing_without_a_total(
    tmp_path: Path, total: str, ends: str
):
    """The service has an order of its own, and does not say how many there are."""
    api = SearchApi(total=TOTALS[total], ends=lambda last: last and ends == "true")
    find = api._find

    def ascending(search: Search) -> Any:
        search.descending = False
        return find(search)

    api._find = ascending  # type: ignore[method-assign]
    records = [make(uuid(n), NOON - n * 24 * HOUR_MS) for n in range(0, 90, 9)]
    async with listing(tmp_path, api, records) as w:
        assert len(await everything(w)) == len(records)
