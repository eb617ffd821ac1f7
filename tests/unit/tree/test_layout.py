"""Days, months and years as instants, and the numbers of their folders."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phonofs.tree.layout import (
    FIRST_DAY,
    LAST_DAY,
    ROOT,
    Calendar,
    Directory,
    day_directory,
    directory_of,
    is_directory,
    named,
)

ZONES = st.sampled_from(sorted(zone for zone in available_timezones() if zone != "localtime"))
DAYS = st.dates(date(1971, 1, 1), date(2099, 12, 30))
HOUR_MS = 3_600_000


def calendar(zone: str) -> Calendar:
    return Calendar(ZoneInfo(zone))


def hours(zone: str, day: date) -> float:
    days = calendar(zone)
    return (days.start_ms(day + timedelta(days=1)) - days.start_ms(day)) / HOUR_MS


@pytest.mark.parametrize(
    ("zone", "day", "expected"),
    [
        ("UTC", date(2024, 2, 29), 24),
        ("Europe/Berlin", date(2024, 3, 31), 23),
        ("Europe/Berlin", date(2024, 10, 27), 25),
        ("Australia/Lord_Howe", date(2024, 4, 7), 24.5),
        ("America/Sao_Paulo", date(2018, 11, 4), 23),  # midnight itself is skipped
        ("America/Havana", date(2023, 11, 5), 25),  # midnight strikes twice
        ("Pacific/Apia", date(2011, 12, 30), 0),  # never was
        ("America/St_Johns", date(2010, 11, 6), 24),  # 00:01 of the 7th goes back to 23:01
        ("America/St_Johns", date(2010, 11, 7), 25),
    ],
)
def test_days_are_as_long_as_the_clocks_say(zone, day, expected):
    """23 and 25 hours at the changes, none for a day a zone skipped."""
    assert hours(zone, day) == expected


@given(ZONES, DAYS)
def test_days_are_complete_and_disjoint(zone, day):
    """Days follow one another without gap or overlap, each instant in the day it is put into."""
    days = calendar(zone)
    starts = [days.start_ms(day + timedelta(days=n)) for n in range(4)]
    assert starts == sorted(starts)
    for n, (start, stop) in enumerate(pairwise(starts)):
        if start < stop:
            expected = day + timedelta(days=n)
            assert days.day_of(start) == days.day_of(stop - 1) == expected
            assert calendar(zone).day_of((start + stop) // 2) == expected


@given(ZONES, st.datetimes(datetime(1971, 1, 1), datetime(2099, 12, 30), timezones=st.just(UTC)))
def test_a_day_is_that_of_the_local_calendar(zone, when):
    """The day of an instant is its local date, unless the clock went back across midnight."""
    days, local = calendar(zone), when.astimezone(ZoneInfo(zone)).date()
    found = days.day_of(int(when.timestamp() * 1000))
    earlier = (when - timedelta(hours=2)).astimezone(ZoneInfo(zone)).date()
    assert found == local or (found == local + timedelta(days=1) and earlier <= local)


@given(st.integers(-(10**15), 10**18))
def test_every_instant_has_a_day(created_ms):
    """Total: what lies outside the calendar is put into the nearest day there is."""
    assert FIRST_DAY <= calendar("Asia/Tokyo").day_of(created_ms) <= LAST_DAY


FOLDERS = st.builds(
    lambda region, day, depth: [
        Directory(region),
        Directory(region, day.year),
        Directory(region, day.year, day.month),
        day_directory(region, day),
    ][depth],
    st.integers(0, 254),
    st.dates(FIRST_DAY, LAST_DAY),
    st.integers(0, 3),
)


@given(FOLDERS, FOLDERS)
def test_a_folder_and_its_number_say_the_same(one, other):
    """Numbers decode, differ where the folders differ, and leave the root and objects alone."""
    assert directory_of(one.ino) == one
    assert is_directory(one.ino)
    assert one.ino > ROOT
    assert (one.ino == other.ino) == (one == other)
    if one.parent:
        assert named(one.parent, one.name) == one
        assert one.parent.at(one.first_day) == one


@given(st.integers(-5, 1 << 33))
def test_a_number_is_a_folder_or_nothing(ino):
    """No other number decodes to a folder."""
    found = directory_of(ino)
    assert found is None or found.ino == ino


@given(FOLDERS, st.text("0123456789-²", max_size=10))
def test_only_the_exact_name_is_a_folder(parent, name):
    found = named(parent, name)
    assert found is None or found.name == name


@pytest.mark.parametrize("name", ["2024", "24", "02024", "2024-13", "٢٠٢٤", "", "..", "0000"])
def test_odd_names_are_no_folders(name):
    found = named(Directory(0), name)
    assert (found is not None) == (name == "2024")
    assert named(Directory(0, 2024), "2024-13") is None
    assert named(Directory(0, 2024), "2023-12") is None
    assert named(Directory(0, 2023, 2), "2023-02-29") is None
    assert named(Directory(0, 2023, 2), "2023-2-2-2") is None


@given(ZONES, st.dates(date(1990, 1, 1), date(2040, 1, 1)))
def test_parts_divide_the_whole(zone, day):
    """The months of a year and the days of a month cover it without gap or overlap."""
    days = calendar(zone)
    for whole in (Directory(0, day.year), Directory(0, day.year, day.month)):
        spans = [days.span_ms(part) for part in days.parts(whole, 0, 1 << 60)]
        assert (spans[0][0], spans[-1][1]) == days.span_ms(whole)
        assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert not days.parts(day_directory(0, day), 0, 1 << 60)


def test_parts_of_a_stretch_are_those_it_touches():
    """A stretch within a month gives its days, from the first to the last touched."""
    days = calendar("UTC")
    start = days.start_ms(date(2024, 2, 28))
    found = days.parts(Directory(0, 2024, 2), start + 5, start + 2 * 86_400_000 + 1)
    assert [part.name for part in found] == ["2024-02-28", "2024-02-29"]
    years = days.parts(Directory(0), start, start + 366 * 86_400_000)
    assert [part.name for part in years] == ["2024", "2025"]
