"""Who opens one day after the other finds the next one listed; nobody else has any listed."""

from pathlib import Path

import pytest
import trio

from phonofs.discovery.sequential_days import LATELY_S, WALKERS, SequentialDays
from phonofs.errors import Unavailable
from phonofs.priority import Priority
from phonofs.tree.layout import Directory
from tests.support.catalogue_world import DAY_MS, HOUR_MS, make, ms, uuid, world

DAYS = [Directory(0, 2024, 9, day) for day in (3, 4, 6, 7)]


def test_the_next_day_is_guessed_from_the_one_before():
    """The second day of a walk begins it, gaps do not matter, the last has none after it."""
    walks = SequentialDays()
    assert walks.opened(DAYS[0], 0, DAYS) is None
    assert walks.opened(DAYS[1], 1, set(DAYS)) == DAYS[2]
    assert walks.opened(DAYS[2], 2, DAYS) == DAYS[3]
    assert walks.opened(DAYS[3], 3, DAYS) is None


def test_other_orders_are_no_walk():
    """Backwards, with a day left out, after a long time, or of a day that is not known."""
    walks = SequentialDays()
    assert [walks.opened(day, 0, DAYS) for day in reversed(DAYS)] == [None] * 4
    walks = SequentialDays()
    assert [walks.opened(day, 0, DAYS) for day in DAYS[::2]] == [None] * 2
    walks = SequentialDays()
    assert [walks.opened(day, n * (LATELY_S + 1), DAYS) for n, day in enumerate(DAYS)] == [None] * 4
    assert walks.opened(Directory(0, 2024, 9, 5), 0, DAYS) is None


def test_several_walks_are_told_apart_and_forgotten():
    """As many as there may be go on side by side; of many more none is remembered for ever."""
    walks = SequentialDays()
    months = [
        [Directory(0, 2024, month, day) for day in (1, 2, 3)] for month in range(1, WALKERS + 1)
    ]
    for days in months:
        walks.opened(days[0], 0, days)
    assert [walks.opened(days[1], 1, days) for days in months] == [days[2] for days in months]
    for n in range(100):
        walks.opened(Directory(0, 2000 + n, 1, 1), 2, [])
    assert walks.opened(months[0][2], 3, [*months[0], Directory(0, 2024, 1, 4)]) is None


def test_what_is_part_of_an_urgent_thing_is_urgent():
    """Also what begins after somebody began to wait; what ended before is told nothing twice."""
    told: list[str] = []
    whole = Priority(False)
    parts = [whole.derive() for _ in range(3)]
    parts[0].on_rise(lambda: told.append("a"))
    parts[1].on_rise(lambda: told.append("b"))
    assert not any(parts)
    whole.rise()
    whole.rise()
    assert all(parts)
    assert told == ["a", "b"]
    assert whole.derive()


def month(per_day: int = 3):
    return [
        make(uuid(day * 100 + n), ms("2024-09-01") + day * DAY_MS + n * HOUR_MS)
        for day in range(10)
        for n in range(per_day)
    ]


def day_keys(w) -> list[int]:
    """The days that were asked for whole since the last time."""
    asked, w.service.asked = w.service.asked, []
    return [query.created_from_ms for _, query, key, limit in asked if limit > 1 and not key]


async def test_a_walk_through_a_month_waits_for_nothing_but_its_begin(tmp_path: Path):
    """From the third day on the listing is there, or on its way, before it is asked for."""
    async with world(tmp_path, month()) as w:
        above = await w.open("2024/2024-09")
        day_keys(w)
        waited = []
        for day in range(1, 11):
            ino = w.catalogue.lookup(above, f"2024-09-{day:02d}").ino
            begun = trio.current_time()
            w.lister.opened(ino)
            await w.look(ino)
            waited.append(trio.current_time() - begun)
            assert len(w.catalogue.children(ino)) == 3
            await trio.sleep(1)
        assert all(seconds == 0 for seconds in waited[2:])
        keys = day_keys(w)
        assert sorted(keys) == sorted(set(keys))
        assert len(keys) == 10


async def test_one_day_alone_has_no_other_listed(tmp_path: Path):
    """Nor two that do not follow each other."""
    async with world(tmp_path, month()) as w:
        above = await w.open("2024/2024-09")
        day_keys(w)
        for day in (4, 4, 8, 7):
            ino = w.catalogue.lookup(above, f"2024-09-{day:02d}").ino
            w.lister.opened(ino)
            await w.look(ino)
            await trio.sleep(5)
        assert len(day_keys(w)) == 3


@pytest.mark.parametrize(("most", "listed"), [(3, 3), (2, 2)])
async def test_a_large_day_is_not_listed_ahead(tmp_path: Path, monkeypatch, most, listed):
    """A program may never get to it: only days of about MOST_AHEAD objects are worth it."""
    monkeypatch.setattr("phonofs.discovery.lister.MOST_AHEAD", most)
    async with world(tmp_path, month()) as w:
        above = await w.open("2024/2024-09")
        day_keys(w)
        for day in (1, 2):
            ino = w.catalogue.lookup(above, f"2024-09-{day:02d}").ino
            w.lister.opened(ino)
            await w.look(ino)
        await trio.sleep(5)
        assert len(day_keys(w)) == listed


async def test_a_listing_ahead_that_fails_is_asked_for_again(tmp_path: Path):
    """Nobody hears of it until somebody opens that day, who gets its own listing."""
    async with world(tmp_path, month()) as w:
        above = await w.open("2024/2024-09")
        inos = [w.catalogue.lookup(above, f"2024-09-{day:02d}").ino for day in (1, 2, 3)]
        for ino in inos[:2]:
            await w.look(ino)
        w.service.error = Unavailable("gone")
        for ino in inos[:2]:
            w.lister.opened(ino)
        await trio.sleep(5)
        assert w.service.asked[-1][1].created_from_ms == ms("2024-09-03")
        assert w.lister.needs(inos[2])
        with pytest.raises(Unavailable):
            await w.look(inos[2])
        w.service.error = None
        await w.look(inos[2])
        assert len(w.catalogue.children(inos[2])) == 3
