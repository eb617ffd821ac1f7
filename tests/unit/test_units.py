"""Sizes and durations."""

import pytest

from phonofs.units import (
    Rate,
    format_count,
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("17", 17),
        ("10G", 10 * 2**30),
        ("512 MiB", 512 * 2**20),
        ("2GB", 2 * 10**9),
        ("1.5k", 1536),
        ("7B", 7),
        ("1Ti", 2**40),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "10 potatoes", "1e3", "nan", "99999999P", "1,5G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|more"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60), ("5m", 300), ("5min", 300), ("1.5h", 5400), ("2d", 172800), ("500ms", 0.5)],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


def test_a_plain_number_is_seconds() -> None:
    assert parse_duration("30") == 30.0


@pytest.mark.parametrize("text", ["", "-5s", "soon", "inf", "10y", "400d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|longer"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "rate", "again"),
    [
        ("10/min", Rate(10, 60), "10/min"),
        ("5/s", Rate(5, 1), "5/s"),
        ("1000 / h", Rate(1000, 3600), "1000/h"),
        ("1/10s", Rate(1, 10), "1/10s"),
        ("30/60", Rate(30, 60), "30/min"),
        ("600/10m", Rate(600, 600), "600/600s"),
    ],
)
def test_a_rate_is_read_as_people_write_it(text: str, rate: Rate, again: str) -> None:
    assert parse_rate(text) == rate
    assert str(rate) == again
    assert parse_rate(again) == rate


@pytest.mark.parametrize(
    "text",
    ["", "10", "/min", "10/", "0/min", "-1/s", "1.5/s", "5/fortnight", "5/ms", "1/2d", "x/s"],
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"rate|duration|one request"):
        parse_rate(text)


def test_a_rate_is_shown_a_second_or_a_minute() -> None:
    assert [format_rate(each) for each in (1234.5, 8, 1, 1 / 6)] == [
        "1,234/s", "8/s", "1/s", "10/min"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1536, "1.5 KiB"),
        (300 * 2**20, "300 MiB"),
        (2**40, "1.0 TiB"),
        (5000 * 2**50, "5000 PiB"),
    ],
)
def test_a_size_is_shown_in_three_digits(size: int, text: str) -> None:
    assert format_size(size) == text


def test_one_is_no_plural() -> None:
    counts = [format_count(number, "file") for number in (0, 1, 2, 1500)]
    assert counts == ["0 files", "1 file", "2 files", "1,500 files"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.44, "0.4 s"),
        (45, "45 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (273600, "3 d 4 h"),
        (float("inf"), "unknown"),
        (-3, "0.0 s"),
    ],
)
def test_a_duration_is_shown_in_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
