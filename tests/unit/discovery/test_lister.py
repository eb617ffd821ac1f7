"""Opening a folder brings its contents in, with as few questions as can be, or says it failed."""

import random
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import trio

from phonofs.discovery.follower import Follower
from phonofs.discovery.lister import REFRESH_S
from phonofs.discovery.searches import TOGETHER_S
from phonofs.errors import Malformed, Unavailable
from phonofs.model import Page, Query
from phonofs.priority import Priority
from phonofs.tree.layout import ROOT, Directory
from tests.support.catalogue_world import (
    DAY_MS,
    HOUR_MS,
    LATENCY_S,
    FakeService,
    Settings,
    World,
    check,
    make,
    ms,
    uuid,
    world,
)

DAY = "2024/2024-09/2024-09-17"


def day_of(count: int, day: str = "2024-09-17", *, per_second: int = 1, first: int = 0):
    """``count`` records of a day, so many of the same second."""
    start = ms(day)
    return [make(uuid(first + n), start + n // per_second * 1000) for n in range(count)]


async def test_the_tree_appears_as_it_is_opened(tmp_path: Path):
    """Years, months and days that hold something are shown, and no others."""
    records = [
        make("a" * 8, "2021-03-10T18:02:08"),
        make("b" * 8, "2024-09-17T09:30:12"),
        make("c" * 8, "2024-09-17T09:30:13"),
        make("d" * 8, "2024-11-30T23:59:59"),
    ]
    async with world(tmp_path, records) as w:
        assert await w.ls() == ["2021", "2024"]
        assert await w.ls("2024") == ["2024-09", "2024-11"]
        assert await w.ls("2024/2024-09") == ["2024-09-17"]
        names = await w.ls(DAY)
        assert names == [
            "093012_callrecording_bbbbbbbb.mp3",
            "093013_callrecording_cccccccc.mp3",
        ]
        check(w.catalogue)


async def test_a_month_or_year_costs_few_questions_once(tmp_path: Path):
    """At most 12 + 31 small questions, side by side; none the second time."""
    records = [make(uuid(n), ms("2023-01-01") + n * 5 * DAY_MS) for n in range(100)]
    async with world(tmp_path, records) as w:
        w.catalogue.coverage.begin_following("us-east", ms("2024-09-20"))
        w.catalogue.coverage.set_following("us-east")
        begun = trio.current_time()
        assert await w.ls() == ["2023", "2024"]
        assert await w.ls("2023") == [f"2023-{n:02d}" for n in range(1, 13)]
        assert len(await w.ls("2023/2023-05")) == 7
        assert w.service.count() <= 4 + 12 + 31
        assert trio.current_time() - begun <= 10 * LATENCY_S
        assert all(limit == 1 for _, _, _, limit in w.service.asked)
        await w.ls("2023/2023-05")
        assert w.service.count() == 0


async def test_a_day_is_listed_once(tmp_path: Path):
    """What was listed, and is followed, is never asked for again, also by the next mount."""
    async with world(tmp_path, day_of(250)) as w:
        w.catalogue.coverage.begin_following("us-east", ms("2024-09-20"))
        w.catalogue.coverage.set_following("us-east")
        assert len(await w.ls(DAY)) == 250
        assert len(await w.ls(DAY)) == 250
        w.service.count()
    async with world(tmp_path, service=w.service) as again:
        assert len(await again.ls()) == 1
        again.catalogue.coverage.set_following("us-east")
        assert len(await again.ls(DAY)) == 250
        assert again.service.count() == 0


@pytest.mark.parametrize("totals", [False, True])
async def test_a_large_day_costs_a_sixth_of_page_by_page(tmp_path: Path, totals):
    """10,000 objects in pages of 100 at 50 ms: their number unknown, at most a sixth of 5 s."""
    service = FakeService(totals=totals)
    async with world(tmp_path, day_of(10_000, per_second=3), service=service) as w:
        await w.open("2024/2024-09")
        ino = w.catalogue.lookup(await w.open("2024/2024-09"), "2024-09-17").ino
        w.service.count()
        begun = trio.current_time()
        await w.lister.list(ino)
        assert trio.current_time() - begun <= 100 * LATENCY_S / 6
        assert len(w.catalogue.children(ino)) == 10_000
        assert w.service.count() <= 102 + 14
        assert w.service.most_flying <= 14


@pytest.mark.parametrize(
    ("count", "most"),
    [(n, 100) for n in (0, 1, 98, 99, 100, 198, 199, 297, 298, 1000)]
    + [(n, 37) for n in (0, 36, 37, 72, 73, 120)]
    + [(n, 1) for n in (0, 1, 2, 17)],
)
@pytest.mark.parametrize("says_last", [True, False])
async def test_every_size_of_day_comes_whole(tmp_path: Path, count, most, says_last):
    """Whatever the number, the page limit of the service, and whether it says what is last."""
    service = FakeService(most=most, says_last=says_last)
    other = make("other-one", "2024-09-17T23:59:59")
    async with world(tmp_path, [*day_of(count), other], service=service) as w:
        assert len(await w.ls(DAY)) == count + 1


async def test_records_of_one_second_in_any_order_come_whole(tmp_path: Path):
    """A service that orders equal times differently each time is listed until all were seen."""
    chance = random.Random(7)

    def shuffle(found):
        groups = {}
        for one in found:
            groups.setdefault(one.created_ms, []).append(one)
        return [one for group in groups.values() for one in chance.sample(group, len(group))]

    service = FakeService(shuffle=shuffle)
    async with world(tmp_path, day_of(500, per_second=4), service=service) as w:
        assert len(await w.ls(DAY)) == 500


@pytest.mark.parametrize("totals", [False, True])
async def test_offsets_that_shift_are_noticed(tmp_path: Path, totals):
    """An object that goes while the pages are read hides no other one."""
    service = FakeService(totals=totals)
    records = day_of(1000)
    answers = iter(range(10_000))

    def shift(fake):
        if (number := next(answers)) in (4, 9):
            fake.remove(records[number].id)

    async with world(tmp_path, records, service=service) as w:
        await w.open("2024/2024-09")
        service.before_answer = shift
        await w.ls(DAY)
        shown = {change.record.id for change in w.changes if change.kind == "removed"}
        await trio.sleep(10)
        names = await w.ls(DAY)
        assert len(service.records) == 998
        assert len(names) == 998
        assert shown <= {records[4].id, records[9].id}


@pytest.mark.promise("listing-whole-or-error")
async def test_a_listing_that_never_adds_up_is_an_error(tmp_path: Path):
    """After three passes it is given up: what was seen is kept, nothing removed, not listed."""
    service = FakeService()
    number = iter(range(100_000))

    def churn(fake):
        for one in list(fake.records.values())[:3]:
            fake.remove(one.id)
        fake.put(*[make(uuid(10**6 + next(number)), ms("2024-09-17T20:00:00")) for _ in range(3)])

    async with world(tmp_path, day_of(1000), service=service) as w:
        await w.open("2024/2024-09")
        service.before_answer = churn
        with pytest.raises(Unavailable, match="2024-09-17 changed all the time"):
            await w.ls(DAY)
        assert service.count() < 100
        service.before_answer = lambda fake: None
        assert len(await w.ls(DAY)) == 1000


@pytest.mark.parametrize("stuck", [True, False])
async def test_an_endless_service_is_an_error(tmp_path: Path, stuck):
    """Pages that repeat, or never end, are given up."""
    service = FakeService()

    class Endless(FakeService):
        async def search(self, region, query, page_key=0, limit=100, *, urgent=True):
            await trio.sleep(LATENCY_S)
            page = await FakeService.search(self, region, query, 0 if stuck else page_key, limit)
            page = page if page.records else await FakeService.search(self, region, query, 0, limit)
            return type(page)(page.records, page.count, last=False)

    async with world(tmp_path, day_of(500), service=service) as w:
        await w.open("2024/2024-09")
        w.lister._searches.service = Endless(service.records)
        with pytest.raises((Malformed, Unavailable)):
            await w.ls(DAY)


@pytest.mark.promise("listing-whole-or-error")
async def test_a_failed_first_listing_is_an_error_not_half_a_listing(tmp_path: Path):
    """Of a day never listed nothing is shown, though some of it is known; later it recovers."""
    async with world(tmp_path, day_of(300)) as w:
        await w.open("2024/2024-09")
        calls = iter(range(1000))

        def fail(fake):
            if next(calls) == 2:
                raise Unavailable("cut")

        w.service.before_answer = fail
        with pytest.raises(Unavailable, match="cut"):
            await w.ls(DAY)
        assert len(await w.ls(DAY)) == 300


@pytest.mark.promise("a-fault-of-ours-is-eio")
@pytest.mark.expected_log("fault of phonofs")
async def test_a_fault_of_ours_ends_one_listing_and_no_other(tmp_path: Path):
    """No memory for an answer, say: that listing is an error, one under way beside it comes."""
    async with world(tmp_path, day_of(300)) as w:
        await w.open("2024/2024-09")
        calls = iter(range(1000))

        def fail(fake):
            if next(calls) == 0:
                raise MemoryError

        w.service.before_answer = fail
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.ls, "2024")
            with pytest.raises(Unavailable, match="given up"):
                await w.ls(DAY)
        assert w.lister.statistics()["listings"] == 0
        assert len(await w.ls(DAY)) == 300


async def test_known_folders_are_shown_without_the_service(tmp_path: Path):
    """After a remount everything listed is there while the service is gone, without waiting."""
    async with world(tmp_path, day_of(300)) as w:
        await w.ls(DAY)
    service = FakeService(w.service.records, error=Unavailable("gone"), latency_s=60)
    async with world(tmp_path, service=service) as w:
        begun = trio.current_time()
        assert len(await w.ls(DAY)) == 300
        assert trio.current_time() - begun <= 4 * REFRESH_S


async def test_a_listing_that_takes_too_long_is_an_error_and_goes_on(tmp_path: Path):
    """Nobody waits longer than read_deadline; who asks again finds it further on, or there."""
    async with world(tmp_path, day_of(3000), read_deadline=30.0) as w:
        await w.open("2024/2024-09")
        w.service.latency_s = 10
        begun = trio.current_time()
        with pytest.raises(Unavailable, match="listing 2024-09-17 takes longer than 30 s"):
            await w.ls(DAY)
        assert trio.current_time() - begun == pytest.approx(30)
        assert len(await w.ls(DAY)) == 3000


async def test_the_first_listing_of_all_needs_the_service(tmp_path: Path):
    """With an empty catalogue and no service, the root is an error."""
    async with world(tmp_path, service=FakeService(error=Unavailable("gone"))) as w:
        with pytest.raises(Unavailable, match="gone"):
            await w.ls()


async def test_an_empty_account_is_an_empty_folder(tmp_path: Path):
    """No object, no folder, no error."""
    async with world(tmp_path) as w:
        assert await w.ls() == []


async def test_callers_share_a_listing_and_may_leave(tmp_path: Path):
    """Many callers cost one listing; one that is cancelled does not cancel it."""
    async with world(tmp_path, day_of(300)) as w:
        month = await w.open("2024/2024-09")
        ino = w.catalogue.lookup(month, "2024-09-17").ino
        w.service.count()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(w.lister.list, ino)
            with trio.move_on_after(LATENCY_S / 2):
                await w.lister.list(ino)
        assert len(w.catalogue.children(ino)) == 300
        assert w.service.count() <= 4 + 4
        assert w.lister.statistics() == {"listings": 0}


async def test_what_a_complete_listing_does_not_have_goes(tmp_path: Path):
    """Listed again, a day loses what is gone and keeps what changed meanwhile."""
    async with world(tmp_path, day_of(120), now="2024-09-18") as w:
        assert len(await w.ls(DAY)) == 120
        w.service.remove(uuid(3))
        await trio.sleep(10)
        assert len(await w.ls(DAY)) == 119
        gone = [change for change in w.changes if change.kind == "removed"]
        assert [change.record.id for change in gone] == [uuid(3)]
        assert gone[0].path == f"{DAY}/000003_callrecording_00000003.mp3"
        check(w.catalogue)


async def test_without_a_follower_recent_days_are_looked_at_again(tmp_path: Path):
    """New objects, days and months show on a later opening, but not every few seconds."""
    async with world(tmp_path, day_of(3), now="2024-09-17T12:00:00") as w:
        assert len(await w.ls(DAY)) == 3
        w.service.put(make(uuid(99), "2024-09-17T11:00:00"), make(uuid(98), "2024-09-16T01:00:00"))
        assert len(await w.ls(DAY)) == 3
        await trio.sleep(10)
        assert len(await w.ls(DAY)) == 4
        assert await w.ls("2024/2024-09") == ["2024-09-16", "2024-09-17"]


async def test_old_days_are_settled_without_a_follower(tmp_path: Path):
    """What is older than two days is not asked for again."""
    records = [*day_of(3), make("newest-1", "2024-09-25")]
    async with world(tmp_path, records, now="2024-09-30") as w:
        await w.ls(DAY)
        await trio.sleep(100)
        w.service.count()
        ino = w.catalogue.lookup(w.catalogue.lookup(ROOT, "2024").ino, "2024-09").ino
        assert not w.lister.needs(w.catalogue.lookup(ino, "2024-09-17").ino)


async def test_regions_have_a_folder_each(tmp_path: Path):
    """With two regions each is listed for itself; the root asks nothing."""
    records = [make("a" * 8, "2024-09-17", region="uk"), make("b" * 8, "2023-09-17")]
    async with world(tmp_path, records, regions=("us-east", "uk")) as w:
        assert await w.ls() == ["uk", "us-east"]
        assert w.service.count() == 0
        assert await w.ls("uk") == ["2024"]
        assert await w.ls("us-east/2023/2023-09") == ["2023-09-17"]
        assert {region for region, *_ in w.service.asked} == {"uk", "us-east"}
        check(w.catalogue)


async def test_types_and_dates_narrow_the_questions(tmp_path: Path):
    """types, since and archived=hide are asked of the service, not filtered out afterwards."""
    records = [
        make("a" * 8, "2024-09-17", kind="voicemail"),
        make("b" * 8, "2024-09-17"),
        make("c" * 8, "2023-01-01", kind="voicemail"),
        make("d" * 8, "2024-09-17", kind="voicemail", state="ARCHIVED"),
    ]
    since = date(2024, 1, 1)
    async with world(tmp_path, records, types=("voicemail",), since=since, archived=False) as w:
        assert await w.ls() == ["2024"]
        assert len(await w.ls(DAY)) == 1
        for _, query, _, _ in w.service.asked:
            assert query.types == ("voicemail",)
            assert query.states == ("AVAILABLE",)
            assert query.created_from_ms >= ms("2024-01-01")


async def test_a_first_listing_tells_of_no_creation(tmp_path: Path):
    """Objects that were there before are not reported, so that watch stays silent."""
    async with world(tmp_path, day_of(150)) as w:
        await w.ls(DAY)
        assert list(w.changes) == []
        assert w.changes.directories


@pytest.mark.parametrize(
    ("zone", "first"),
    [
        ("Europe/Berlin", "2024-03-30"),
        ("Europe/Berlin", "2024-10-26"),
        ("America/Sao_Paulo", "2018-11-03"),
        ("America/Havana", "2023-11-04"),
        ("Australia/Lord_Howe", "2024-04-06"),
        ("Pacific/Apia", "2011-12-29"),
        ("Asia/Kathmandu", "2024-01-01"),
    ],
)
async def test_days_of_any_length_are_listed_complete_and_disjoint(tmp_path: Path, zone, first):
    """Over the changes of the clocks every object is in one day, and each day comes whole."""
    records = [make(uuid(n), ms(first) + n * HOUR_MS // 2) for n in range(48 * 3)]
    async with world(tmp_path, records, timezone=zone, now="2025-01-01") as w:
        found = []
        for year in await w.ls():
            for month in await w.ls(year):
                for day in await w.ls(f"{year}/{month}"):
                    ino = await w.open(f"{year}/{month}/{day}")
                    entries = w.catalogue.children(ino)
                    found += [w.catalogue.record(entry.ino).id for entry in entries]
                    local = {
                        datetime.fromtimestamp(entry.mtime_ms / 1000, ZoneInfo(zone)).date()
                        for entry in entries
                    }
                    assert [str(one) for one in local] == [day]
        assert sorted(found) == sorted(record.id for record in records)


async def test_parts_that_hold_only_odd_records_are_not_shown(tmp_path: Path):
    """A record that cannot be understood hides no good one, and is not looked for without end."""
    service = FakeService()

    class Odd(FakeService):
        async def search(self, region, query, page_key=0, limit=100, *, urgent=True):
            page = await FakeService.search(self, region, query, page_key, limit)
            good = [one for one in page.records if one.size]
            return type(page)(good, page.count, page.last)

    records = [make(uuid(n), ms("2024-09-17") + n, size=0) for n in range(150)]
    records += [make("good-one", "2024-09-17T10:00:00"), make(uuid(999), "2023-01-01", size=0)]
    async with world(tmp_path, records, service=service) as w:
        w.lister._searches.service = odd = Odd(service.records)
        assert await w.ls() == ["2024"]
        assert len(await w.ls(DAY)) == 1
        odd.put(*[make(uuid(n), ms("2022-01-01") + n, size=0) for n in range(10_000, 13_000)])
        searches = w.lister._searches
        query = searches.query(Directory(0), 0, ms("2022-06-01"))
        with pytest.raises(Malformed, match="can be understood"):
            await searches.first("us-east", query, Priority(True))


@pytest.mark.parametrize("begun_s", [0.0, 0.06, 1.0])
@pytest.mark.parametrize("followed", [True, False])
@pytest.mark.parametrize("equal", [1, 250])
async def test_the_newest_object_is_found_by_its_path(
    tmp_path: Path, begun_s: float, followed: bool, equal: int
):
    """Created at the very moment the changes are known up to, alone or with others, whole seconds
    or not; whatever is opened first, and however far the follower is."""
    for number, created in enumerate(("2024-09-17T23:59:59", "2024-09-17", "2024-01-01")):
        newest = [make(uuid(n), created, updated=created) for n in range(equal)]
        older = [make("old-one", "2023-12-31"), make("old-two", "2022-02-03")]
        path = tmp_path / str(number)
        async with world(path, [*newest, *older], now="2024-12-01") as w:
            follower = Follower(w.service, w.catalogue, Settings(poll_interval=60.0 * followed))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follower.run)
                await trio.sleep(begun_s)
                day = f"{created[:4]}/{created[:7]}/{created[:10]}"
                assert len(await by_path(w, day)) == equal
                assert len(await by_path(w, "2023/2023-12/2023-12-31")) == 1
                nursery.cancel_scope.cancel()


async def by_path(w: World, path: str) -> list[str]:
    """What a folder holds whose parents were never opened: the kernel only looks names up."""
    ino = await at_path(w, path)
    assert ino is not None, path
    await w.look(ino)
    return [entry.name for entry in w.catalogue.children(ino)]


async def at_path(w: World, path: str) -> int | None:
    """The inode number at a path, looked up name by name; None where there is nothing."""
    ino = ROOT
    for name in path.split("/"):
        entry = w.catalogue.lookup(ino, name)
        if entry is None and w.lister.needs(ino):
            await w.lister.find(ino, name)
            entry = w.catalogue.lookup(ino, name)
        if entry is None:
            return None
        ino = entry.ino
    return ino


@pytest.mark.parametrize("per_day", [10, 3000])
async def test_a_path_costs_a_question_a_name(tmp_path: Path, per_day):
    """Not one for each month and day beside it; a day that is not large is listed at once."""
    days = [
        *(ms("2022-01-05") + n * 40 * DAY_MS for n in range(20)),
        *(ms("2024-09-17") + n * DAY_MS for n in (-3, 0, 3)),
    ]
    records = [
        make(uuid(number * 10_000 + n), day + n * 1000)
        for number, day in enumerate(days)
        for n in range(per_day if day == ms("2024-09-17") else 2)
    ]
    async with world(tmp_path, records, service=FakeService(totals=True)) as w:
        await w.look(ROOT)
        w.service.count()
        ino = await at_path(w, "2024/2024-09")
        assert ino is not None
        assert w.service.count() <= 2
        begun = trio.current_time()
        day = await at_path(w, DAY)
        assert day is not None
        assert trio.current_time() - begun < (1.5 if per_day < 100 else 4.5) * LATENCY_S
        assert w.service.count() <= max(5, per_day // 90)
        assert await at_path(w, "2024/2024-09/2024-09-18") is None
        assert await at_path(w, "2024/2024-09/2024-09-18") is None
        assert w.service.count() <= max(5, per_day // 90)
        assert await at_path(w, "2024/2024-09/desktop.ini") is None
        assert await at_path(w, "2024/2024-08-01") is None
        assert await at_path(w, "2024/2024-09/2024-08-01") is None
        assert w.service.count() == 0
        assert len(await by_path(w, DAY)) == per_day
        assert len(await w.ls("2024/2024-09")) == 3
        assert await w.ls("2024") == ["2024-02", "2024-09"]


async def test_a_name_that_cannot_be_asked_for_is_an_error(tmp_path: Path):
    """Not an absent file; those who ask for it together ask once, and again after it."""
    async with world(tmp_path, day_of(10), read_deadline=30.0) as w:
        w.service.put(make("old", "2020-01-01"), make("new", "2024-09-19"))
        await w.look(ROOT)
        month = await at_path(w, "2024/2024-09")
        assert month is not None
        for latency_s, error in ((LATENCY_S, Unavailable("gone")), (100.0, None)):
            w.service.latency_s, w.service.error = latency_s, error
            w.service.count()
            failures: list[Exception] = []

            async def look(failures=failures) -> None:
                try:
                    await w.lister.find(month, "2024-09-17")
                except Unavailable as failure:
                    failures.append(failure)

            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(look)
            assert len(failures) == 5
            assert w.service.count() <= 5
        await trio.sleep(100)  # what took too long has come meanwhile
        w.service.latency_s = LATENCY_S
        assert len(await by_path(w, DAY)) == 10


@pytest.mark.parametrize(("most", "listed"), [(400, True), (399, False)])
async def test_a_day_that_may_be_large_is_not_listed_to_be_found(
    tmp_path: Path, monkeypatch, most, listed
):
    """One search for one record says that it is there."""
    monkeypatch.setattr("phonofs.discovery.lister.MOST_FOUND", most)
    async with world(tmp_path, day_of(50)) as w:
        w.catalogue.coverage.begin_following("us-east", ms("2024-09-20"))
        w.catalogue.coverage.set_following("us-east")
        month, day = Directory(0, 2024, 9).ino, day_ino(w, "2024-09-17")
        await w.lister.find(month, "2024-09-17")
        assert w.catalogue.lookup(month, "2024-09-17") is not None
        assert w.lister.needs(day) is not listed
        assert (w.service.count() == 1) is not listed


async def test_a_day_after_the_newest_change_is_not_known(tmp_path: Path):
    """Nothing of it was listed, though nothing of it is missing up to there."""
    async with world(tmp_path, day_of(1)) as w:
        w.catalogue.coverage.begin_following("us-east", ms("2024-09-18T12:00:00"))
        w.catalogue.coverage.set_following("us-east")
        await w.lister.list(day_ino(w, "2024-09-18"))
        assert not w.lister.needs(day_ino(w, "2024-09-18"))
        assert w.lister.needs(day_ino(w, "2024-09-19"))


async def test_the_first_look_at_an_account_asks_for_its_ends_once(tmp_path: Path):
    """Though the follower begins meanwhile: begun ahead of everybody, it takes one round trip."""
    records = [make(uuid(n), ms("2023-01-01") + n * 5 * DAY_MS) for n in range(100)]
    async with world(tmp_path, records) as w:
        follower = Follower(w.service, w.catalogue, Settings(poll_interval=60.0))
        async with trio.open_nursery() as nursery:
            w.lister.begin()
            nursery.start_soon(follower.run)
            begun = trio.current_time()
            assert await w.ls() == ["2023", "2024"]
            assert trio.current_time() - begun <= 1.1 * LATENCY_S
            assert w.service.count() == 3, "both ends, and the newest change"
            nursery.cancel_scope.cancel()
    async with world(tmp_path, service=w.service) as again:
        again.lister.begin()
        await trio.sleep(1)
        assert again.service.count() == 0, "what is known is not asked for again"


async def test_what_changed_between_a_listing_and_the_follower_is_not_missed(tmp_path: Path):
    """A day that was listed just before the follower began counts, and its changes come."""
    service = FakeService()
    late = make("late", "2024-09-17T12:00:00", updated="2024-09-19T12:00:01")
    old = make("old", "2024-09-17T12:00:00", updated="2024-09-19T12:00:00")
    async with world(tmp_path, [old], service=service) as w:
        follower = Follower(service, w.catalogue, Settings(poll_interval=60.0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.lister.list, day_ino(w, "2024-09-17"))
            await trio.sleep(LATENCY_S * 0.9)
            nursery.start_soon(follower.run)
            await trio.sleep(LATENCY_S * 0.5)  # the listing has its answer, the follower has not
            service.put(late, *(make(uuid(n), "2024-09-18") for n in range(300)))
            await trio.sleep(61)
            assert len(await w.ls(DAY)) == 2
            nursery.cancel_scope.cancel()


class SlowListings(FakeService):
    """Answers late whatever a listing asks for after its first page, or for the ends of a span."""

    async def search(
        self, region: str, query: Query, page_key: int = 0, limit: int = 100, **how: bool
    ) -> Page:
        if page_key or (query.sort == "createdTime" and limit == 1):
            await trio.sleep(2 * TOGETHER_S)
        return await super().search(region, query, page_key, limit, **how)


async def test_a_listing_that_began_long_before_the_follower_does_not_count(tmp_path: Path):
    """What changed in between is known at the next opening, not only at some later poll."""
    records = day_of(150)
    async with world(tmp_path, records, service=SlowListings()) as w:
        follower = Follower(w.service, w.catalogue, Settings(poll_interval=600.0))
        day = day_ino(w, "2024-09-17")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.lister.list, day)
            await trio.sleep(1)  # the listing has its first page
            late = ms("2024-09-19T12:00:00")
            w.service.change(records[0].id, updatedTime=late, storedBytes=99)
            w.service.put(*(make(uuid(1000 + n), late + HOUR_MS + n * 1000) for n in range(150)))
            await trio.sleep(TOGETHER_S)
            nursery.start_soon(follower.run)
            await trio.sleep(6 * TOGETHER_S)  # the listing has ended
            assert w.lister.needs(day)
            await w.lister.list(day)
            assert not w.lister.needs(day)
            ino = w.catalogue.find("us-east", records[0].id)
            assert ino is not None
            assert w.catalogue.record(ino).size == 99
            nursery.cancel_scope.cancel()


async def test_of_an_object_that_changes_between_two_pages_the_newer_record_counts(tmp_path: Path):
    """It is the last one of the first page, and the first one of the next."""
    records = day_of(150)
    async with (
        world(tmp_path, records, service=SlowListings()) as w,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(w.lister.list, day_ino(w, "2024-09-17"))
        await trio.sleep(1)  # the listing has its first page
        w.service.change(records[99].id, updatedTime=ms("2024-09-19"), storedBytes=77)
        await trio.sleep(6 * TOGETHER_S)
        ino = w.catalogue.find("us-east", records[99].id)
        assert ino is not None
        assert w.catalogue.record(ino).size == 77


async def test_ends_that_do_not_count_are_asked_for_again_and_not_each_year(tmp_path: Path):
    """Two searches more, since the follower began long after the first two, and not fifty."""
    records = [make(uuid(n), ms("2023-01-01") + n * 5 * DAY_MS) for n in range(100)]
    async with world(tmp_path, records, service=SlowListings()) as w:
        follower = Follower(w.service, w.catalogue, Settings(poll_interval=600.0))
        async with trio.open_nursery() as nursery:
            w.lister.begin()
            await trio.sleep(1.5 * TOGETHER_S)
            nursery.start_soon(follower.run)
            assert await w.ls() == ["2023", "2024"]
            assert w.service.count() == 5, "both ends twice, and the newest change"
            nursery.cancel_scope.cancel()


def day_ino(w: World, name: str) -> int:
    """The inode number of a day of which nothing is known yet."""
    year, month, day = map(int, name.split("-"))
    return Directory(0, year, month, day).ino
