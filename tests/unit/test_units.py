"""Sizes and durations."""

import pytest

from phonofs.units import format_count, format_duration, format_size, parse_duration, parse_size


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
