"""The follower: every change once, one question a poll, one line an outage."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from phonofs.catalogue.catalogue import Catalogue
from phonofs.discovery.follower import Follower
from phonofs.discovery.poll import OVERLAP_MS, STEP_MS, ChangePoll, newest_plausible
from phonofs.errors import Malformed, Unavailable
from phonofs.model import Page
from phonofs.priority import Priority
from tests.support.catalogue_world import (
    DAY_MS,
    FakeService,
    Settings,
    Told,
    check,
    files,
    make,
    ms,
    opened,
    tree,
    uuid,
    world,
)

START = "2024-09-17T09:00:00"


class Watched:
    """A follower at work, and what it told."""

    def __init__(self, catalogue: Catalogue, service: FakeService, settings: Settings) -> None:
        self.catalogue, self.service = catalogue, service
        self.changes = Told()
        self.follower = Follower(service, catalogue, settings, self.changes.take)

    def told(self) -> list[tuple[str, str]]:
        told = [(one.kind, one.record.id) for one in self.changes]
        self.changes.clear()
        return told


@asynccontextmanager
async def following(
    path: Path, service: FakeService, *, regions=("us-east",), now="2024-09-20", **settings
) -> AsyncIterator[Watched]:
    made = Settings(**settings)
    catalogue = opened(path, made, now=now)
    catalogue.set_regions(list(regions))
    watched = Watched(catalogue, service, made)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(watched.follower.run)
            await trio.sleep(1)
            yield watched
            nursery.cancel_scope.cancel()
    finally:
        catalogue.close()


def test_polls_of_mounts_with_different_clocks_are_the_same_question() -> None:
    """And ask for no less than each by itself; a quiet mount asks from the watermark on."""
    watermark_ms = DAY_MS * 9000 + 17_000
    quiet_s = [40 + n / 7 for n in range(100)]
    begins = [ChangePoll(watermark_ms, 1, 100, each).next for each in quiet_s]
    assert {begin for begin in begins if begin is not None} == {
        (DAY_MS * 9000 - 90_000, 0), (DAY_MS * 9000 - 60_000, 0)
    }  # fmt: skip
    for begin, each in zip(begins, quiet_s, strict=True):
        assert begin is not None
        assert 0 <= watermark_ms - OVERLAP_MS + each * 1000 - begin[0] < STEP_MS + 1
    assert ChangePoll(watermark_ms, 1, 100, 120).next == (watermark_ms, 0)
    assert ChangePoll(5_000, 1, 100).next == (0, 0)


@pytest.mark.promise("changes-within-a-poll")
async def test_changes_arrive_within_a_poll(tmp_path: Path):
    """Created, changed, archived, restored and revoked objects, each told once."""
    service = FakeService()
    service.put(make("old-one", START), make("old-two", START))
    async with following(tmp_path, service) as w:
        assert w.told() == []
        service.put(make("new-one", "2024-09-17T09:05:00", agentName="Ann"))
        await trio.sleep(60)
        assert w.told() == [("created", "new-one")]
        later = iter(f"2024-09-17T09:0{n}:00" for n in range(6, 10))
        for state, kind in [
            ("ARCHIVED", "changed"),
            ("AVAILABLE", "changed"),
            ("REVOKED", "removed"),
        ]:
            service.change("new-one", objectState=state, updatedTime=next(later))
            await trio.sleep(60)
            assert w.told() == [(kind, "new-one")]
        assert not [name for name in files(w.catalogue) if "new-one" in name]
        check(w.catalogue)


async def test_what_was_there_before_is_not_reported(tmp_path: Path):
    """Not even if more objects changed in the newest second than the first page shows."""
    service = FakeService()
    same = [make(uuid(n), ms(START) + n * 1000, updated="2024-09-17T12:00:00") for n in range(250)]
    service.put(*same, *[make(uuid(300 + n), ms(START) + n * 1000) for n in range(250)])
    async with following(tmp_path, service) as w:
        await trio.sleep(60 * 3)
        assert w.told() == []
        assert len(files(w.catalogue)) == 500
        service.put(make("new-one", "2024-09-17T12:00:05"))
        service.change(uuid(400), updatedTime="2024-09-17T12:00:06", objectState="ARCHIVED")
        await trio.sleep(60)
        assert w.told() == [("created", "new-one"), ("changed", uuid(400))]


async def test_a_quiet_mount_asks_once_a_poll(tmp_path: Path):
    """One search per region and poll_interval, whatever the number of objects; and once all pages
    of the last two days."""
    service = FakeService()
    for region in ("us-east", "uk"):
        service.put(*[make(uuid(n), ms(START) + n * 40_000, region=region) for n in range(1000)])
    async with following(tmp_path, service, regions=("us-east", "uk")) as w:
        assert service.count() == 2
        await trio.sleep(60 * 100)
        far = [query.updated_from_ms or 0 for _, query, _, _ in service.asked]
        far = [from_ms for from_ms in far if from_ms < ms(START) + 1000 * 40_000 - 3_600_000]
        assert len(far) <= 2 * 11
        assert [region for region, *_ in service.asked].count("uk") - len(far) // 2 in (99, 100)
        assert service.count() - len(far) in (198, 200)
        assert w.told() == []


async def test_readers_that_use_up_the_rate_do_not_stop_the_polls(tmp_path: Path):
    """Nobody waits for a poll, but each of its searches is due."""

    class Asked(FakeService):
        async def search(self, region, query, page_key=0, limit=100, *, urgent=True):
            assert isinstance(urgent, Priority)
            assert (bool(urgent), urgent.due) == (False, True)
            return await super().search(region, query, page_key, limit, urgent=urgent)

    service = Asked()
    service.put(*[make(uuid(n), ms(START) + n * 1000) for n in range(300)])
    async with following(tmp_path, service):
        await trio.sleep(600)
        assert service.count() > 10


async def test_the_first_watermark_is_the_services_time(tmp_path: Path):
    """Our clock may be years off; nothing of the past is fetched, everything new is."""
    service = FakeService()
    service.put(*[make(uuid(n), ms(START) + n * 1000) for n in range(500)])
    for now in ("1990-01-01", "2024-09-17T09:10:00", "2150-01-01"):
        async with following(tmp_path / now, service, now=now) as w:
            assert service.count() == 1
            assert w.catalogue.coverage.watermark("us-east") == ms(START) + 499_000
            service.put(make("new-one", "2024-09-17T09:10:00"))
            await trio.sleep(60)
            assert w.told()[-1] == ("created", "new-one")
            assert w.catalogue.coverage.watermark("us-east") == ms("2024-09-17T09:10:00")
            service.remove("new-one")
            service.count()


async def test_one_odd_record_makes_nobody_blind(tmp_path: Path):
    """An updatedTime of next century does not move the watermark."""
    service = FakeService()
    service.put(make("old-one", START))
    async with following(tmp_path, service) as w:
        service.put(make("odd-one", START, updated="2150-01-01"))
        await trio.sleep(60)
        assert w.told() == [("created", "odd-one")]
        service.put(make("new-one", "2024-09-17T09:05:00"))
        await trio.sleep(60)
        assert w.told() == [("created", "new-one")]
        assert w.catalogue.coverage.watermark("us-east") == ms("2024-09-17T09:05:00")


async def test_a_week_off_is_caught_up_in_one_go(tmp_path: Path):
    """Thousands of changes, many of one second, on as many pages: each told once."""
    service = FakeService()
    service.put(make("old-one", START))
    async with following(tmp_path, service):
        pass
    week = [make(uuid(n), ms(START) + 60_000 + n // 250 * 1000) for n in range(3000)]
    service.put(*week)
    async with following(tmp_path, service) as w:
        await trio.sleep(10)
        assert w.told() == [("created", one.id) for one in week]
        assert len(files(w.catalogue)) == 3001
        service.count()
        await trio.sleep(240)
        assert w.told() == []


async def test_a_second_larger_than_a_page_is_passed(tmp_path: Path):
    """Where a whole page has one updatedTime, the offset goes on instead of the time."""
    service = FakeService(most=10)
    service.put(make("old-one", START))
    async with following(tmp_path, service) as w:
        service.put(*[make(uuid(n), "2024-09-17T09:05:00") for n in range(95)])
        await trio.sleep(120)
        assert len(w.told()) == 95


async def test_late_records_are_not_missed(tmp_path: Path):
    """A record shown two minutes late comes with the next poll, one half an hour late soon."""
    service = FakeService()
    service.put(make("old-one", START))
    async with following(tmp_path, service) as w:
        service.put(make("new-one", "2024-09-17T10:00:00"))
        await trio.sleep(60)
        service.put(make("late-one", "2024-09-17T09:59:10"))
        await trio.sleep(60)
        assert w.told() == [("created", "new-one"), ("created", "late-one")]
        service.put(make("very-late", "2024-09-17T09:30:00"))
        await trio.sleep(60 * 16)
        assert w.told() == [("created", "very-late")]


async def test_changes_during_a_poll_are_not_missed(tmp_path: Path):
    """A record that moves to the end while the pages are read makes none be skipped."""
    service = FakeService()
    service.put(make("old-one", START))
    many = [make(uuid(n), ms(START) + 60_000 + n * 1000) for n in range(900)]
    moved = iter(range(0, 900, 90))

    def touch(fake):
        number = next(moved, None)
        if number is not None:
            fake.change(uuid(number), updatedTime=ms(START) + 10**6 + number, objectName="x.mp3")

    async with following(tmp_path, service) as w:
        service.put(*many)
        service.before_answer = touch
        await trio.sleep(300)
        assert {id for kind, id in w.told() if kind == "created"} == {one.id for one in many}


async def test_poll_interval_0_never_asks(tmp_path: Path):
    """Nothing is asked, however long it runs."""
    service = FakeService()
    async with following(tmp_path, service, poll_interval=0.0):
        for _ in range(100):
            await trio.sleep(1000)
        assert service.count() == 0


async def test_an_outage_is_said_once_each_way(tmp_path: Path, caplog, expected_log):
    """One line when it begins, one when it ends; afterwards nothing was missed."""
    expected_log.expect("cannot be followed")
    caplog.set_level(logging.INFO, "phonofs")
    service = FakeService()
    service.put(make("old-one", START))
    async with following(tmp_path, service) as w:
        service.error = Unavailable("the service is away")
        service.put(make("new-one", "2024-09-17T09:30:00"))
        await trio.sleep(600)
        assert w.follower.statistics()["followed"]["us-east"]["failures"] > 3
        service.error = None
        await trio.sleep(60)
        assert w.told() == [("created", "new-one")]
        await trio.sleep(600)
    lines = [line.getMessage() for line in caplog.records if "followed" in line.getMessage()]
    assert len(lines) == 2
    assert "the service is away" in lines[0]
    assert "followed again" in lines[1]


async def test_retry_after_is_obeyed(tmp_path: Path, expected_log):
    """The service is not asked before the time it asked for is over."""
    expected_log.expect("cannot be followed")
    service = FakeService(error=Unavailable("busy", retry_after_s=500))
    async with following(tmp_path, service):
        await trio.sleep(490)
        assert service.count() == 1


async def test_an_empty_account_is_followed_from_its_first_object(tmp_path: Path):
    """Everything that appears is told, and its day is known without a listing."""
    service = FakeService()
    async with following(tmp_path, service) as w:
        service.put(make("first-1", "2024-09-17T09:00:00"))
        await trio.sleep(60)
        assert w.told() == [("created", "first-1")]
        assert list(tree(w.catalogue)) == ["2024"]


async def test_midnight_brings_a_new_day_without_a_listing(tmp_path: Path):
    """A new day's folder appears with its first object, told of, complete and listed."""
    service = FakeService()
    service.put(make("old-one", "2024-09-17T23:50:00"))
    async with world(tmp_path, service=service) as w:
        follower = Follower(service, w.catalogue, Settings(), w.changes.take)
        async with trio.open_nursery() as nursery:
            await nursery.start(follower.run)
            await trio.sleep(1)
            assert await w.ls("2024/2024-09") == ["2024-09-17"]
            service.put(make("new-one", "2024-09-18T00:00:05"))
            await trio.sleep(60)
            month = w.catalogue.lookup(w.catalogue.lookup(1, "2024").ino, "2024-09").ino
            assert "2024-09-18" in w.changes.directories[month]
            service.count()
            assert len(await w.ls("2024/2024-09/2024-09-18")) == 1
            assert service.count() == 0
            nursery.cancel_scope.cancel()


async def test_what_was_listed_before_anybody_followed_is_listed_again(tmp_path: Path):
    """Changes between that listing and the first watermark would be missed otherwise."""
    service = FakeService()
    service.put(make("old-one", START), make("old-two", START), make("last-one", "2024-09-19"))
    day = "2024/2024-09/2024-09-17"
    async with world(tmp_path, service=service, now="2024-12-01") as w:
        assert len(await w.ls(day)) == 2
        service.remove("old-one")
        follower = Follower(service, w.catalogue, Settings(), w.changes.take)
        await follower.poll("us-east")
        assert len(await w.ls(day)) == 1


async def test_a_day_follows_the_clock_of_the_service_not_ours(tmp_path: Path):
    """With a follower at work today is listed once, and goes on growing by itself."""
    service = FakeService()
    service.put(*[make(uuid(n), ms(START) + n * 1000) for n in range(50)])
    async with world(tmp_path, service=service, now="2031-01-01") as w:
        follower = Follower(service, w.catalogue, Settings(), w.changes.take)
        await follower.poll("us-east")
        day = "2024/2024-09/2024-09-17"
        assert len(await w.ls(day)) == 50
        service.count()
        service.put(make(uuid(77), ms(START) + 3_000_000))
        await follower.poll("us-east")
        assert len(await w.ls(day)) == 51
        assert service.count() == 1


def page(*times: int, last: bool = False, prefix: str = "id") -> Page:
    records = [make(f"{prefix}-{n}-{time}", DAY_MS * 9000 + time) for n, time in enumerate(times)]
    return Page(records, len(records), last)


def test_an_endless_service_is_given_up():
    """A service that gives the same page again and again is not asked for ever."""
    changes = ChangePoll(DAY_MS * 9000, 1, 100)
    same = page(1000, 2000)
    feed = partial(changes.feed, same, 1 << 60)
    with pytest.raises(Malformed, match="repeats"):
        _ = [feed() for _ in range(100) if changes.next]


def test_a_service_that_does_not_sort_is_read_by_offset():
    """Without an order the watermark moves only when all has come."""
    changes = ChangePoll(DAY_MS * 9000, 1, 100)
    changes.feed(page(5000, 1000), 1 << 60)
    assert changes.reached_ms == DAY_MS * 9000
    assert changes.next == (DAY_MS * 9000 - OVERLAP_MS, 2)
    changes.feed(page(9000, 3000, last=True, prefix="x"), 1 << 60)
    assert changes.reached_ms == DAY_MS * 9000 + 9000
    assert changes.next is None


def test_the_newest_plausible_time():
    """What cannot be true does not count, unless nothing can."""
    assert newest_plausible([5, 7, 99], 10) == 7
    assert newest_plausible([99, 98], 10) == 99
    assert newest_plausible([], 10) == 0


async def test_a_region_that_appears_while_no_follower_runs_is_followed_by_the_next(tmp_path: Path):
    """The follower may have failed and not be restarted yet when the regions are asked for."""
    service = FakeService()
    async with following(tmp_path, service) as w:
        pass
    w.follower.follow("uk")


async def test_a_region_that_appears_while_the_follower_ends_is_followed_by_the_next(
    tmp_path: Path,
):
    """Between the end of its last task and its own, the follower cannot start another task."""
    async with world(tmp_path) as w:
        w.catalogue.set_regions(["us-east", "uk"])
        follower = Follower(w.service, w.catalogue, Settings(), w.changes.take)

        async def run(scope: trio.CancelScope) -> None:
            with scope:
                await follower.run()

        async def appear(scope: trio.CancelScope, later: int) -> None:
            await trio.sleep(1)
            scope.cancel()
            for _ in range(later):
                await trio.lowlevel.checkpoint()
            follower.follow("uk")

        for number in range(60):  # trio chooses which of the tasks that may run goes first
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()
                nursery.start_soon(run, scope)
                nursery.start_soon(appear, scope, number % 3)
