"""Guesses of how many objects a day holds, and what they spare."""

from pathlib import Path

import pytest
import trio

from phonofs.discovery.estimates import (
    AT_FIRST,
    DAY_MS,
    FIRST,
    HOUR_MS,
    MOST_AT_FIRST,
    REMEMBERED,
    DaySizeEstimator,
)
from phonofs.discovery.pagination import OffsetPager
from phonofs.tree.layout import Directory
from tests.support.catalogue_world import LATENCY_S, FakeService, make, ms, uuid, world

DAY = Directory(0, 2024, 9, 17)
NEXT = Directory(0, 2024, 9, 18)


def test_what_the_service_said_goes_before_what_is_likely():
    """Its own number for a day; else the day listed last; else the region's average, and never
    more than the region has.
    """
    sizes = DaySizeEstimator()
    assert sizes.expected(DAY) == FIRST
    assert sizes.known(DAY) == 0
    sizes.spread(0, 5 * DAY_MS, 14 * DAY_MS, 5000)
    assert sizes.expected(DAY) == 2 * 500
    sizes.spread(0, 5 * DAY_MS, 5 * DAY_MS, 30)
    assert sizes.expected(DAY) == 30
    sizes.listed(DAY, 300)
    assert sizes.expected(NEXT) == 300
    sizes.said(NEXT, 7)
    assert sizes.expected(NEXT) == sizes.known(NEXT) == 7
    assert sizes.expected(Directory(1, 2024, 9, 18)) == FIRST, "regions are different"
    sizes.said(DAY, None)
    sizes.spread(0, 0, 0, None)
    assert sizes.expected(DAY) == 300


def test_without_a_total_the_newest_objects_tell_how_large_a_day_is():
    """By the time in which most of them were made, as long as nothing better is known."""
    sizes = DaySizeEstimator()
    sizes.newest(0, [n * 60_000 for n in range(50)])
    assert sizes.at_once(DAY) == AT_FIRST, "too few tell nothing"
    night = [-HOUR_MS * n for n in range(1, 50)]
    sizes.newest(0, [*night, *(n * 60_000 for n in range(51))])
    assert sizes.at_once(DAY) == 6 * 60, "one a minute"
    assert sizes.at_once(Directory(1, 2024, 9, 18)) == AT_FIRST, "regions are different"
    sizes.newest(0, list(range(51)))
    assert sizes.at_once(DAY) == MOST_AT_FIRST
    sizes.listed(DAY, 300)
    assert sizes.at_once(NEXT) == 300


def test_it_does_not_grow():
    """What was said of a day is forgotten once it is listed, or after a thousand others."""
    sizes = DaySizeEstimator()
    for year in range(2000, 2100):
        for month in range(1, 13):
            sizes.said(Directory(0, year, month, 1), 5)
    assert len(sizes._said) == REMEMBERED
    sizes.listed(Directory(0, 2099, 12, 1), 5)
    assert len(sizes._said) == REMEMBERED - 1


@pytest.mark.parametrize("expected", [0, 1, 100, 101, 950, 1_000_000])
def test_so_many_pages_are_asked_for_at_once(expected: int):
    """As many as the guess makes, one at least, and never more than there are slots."""
    asked = OffsetPager(100, 14, expected).ask()
    assert len(asked) == min(14, max(1, -(-expected // 100)))
    assert [key for key, _ in asked] == [max(0, n * 99) for n in range(len(asked))]


@pytest.mark.parametrize("totals", [False, True])
async def test_walking_through_days_costs_one_round_trip_each(tmp_path: Path, totals):
    """After the first one it is known how large they are; none is missed where one is larger."""
    days = {17: 450, 18: 430, 19: 450, 20: 1200, 21: 3, 22: 0, 23: 450}
    records = [
        make(uuid(day * 10_000 + n), ms(f"2024-09-{day}") + n * 1000)
        for day, count in days.items()
        for n in range(count)
    ]
    service = FakeService(totals=totals)
    async with world(tmp_path, records, service=service, now="2024-12-01") as w:
        await w.open("2024/2024-09")
        took = {}
        for day, count in days.items():
            begun = trio.current_time()
            if count:
                assert len(await w.ls(f"2024/2024-09/2024-09-{day}")) == count
            took[day] = round((trio.current_time() - begun) / LATENCY_S)
        assert took[18] == took[19] == 1
        assert took[21] == took[23] == 1, "also after a weekend"
