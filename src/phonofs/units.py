"""Parses and formats sizes, durations and rates as people write and read them.

Pure. Used by the configuration and by the output of commands.
"""

import math
import re
from dataclasses import dataclass

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b?)", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?", re.IGNORECASE)

_POWERS = " kmgtp"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

LARGEST_SIZE = 2**63 - 1
"""The largest signed 64-bit offset, which no file system exceeds."""

LONGEST_DURATION_S = 366 * 86400.0
"""A year: anything longer is a typing error, and some clocks overflow on it."""


def parse_size(text: str) -> int:
    """Return the bytes of ``10G``, ``512 MiB``, ``1.5T``, ``2GB`` or a plain number.

    A single letter and ``KiB`` mean powers of 1024, ``KB`` powers of 1000. Raises ValueError.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("a size looks like 512M, 10G or 0")
    number, letter, ending = match.groups()
    base = 1000 if ending.lower() == "b" and letter else 1024
    size = float(number) * base ** _POWERS.index(letter.lower() or " ")
    if size > LARGEST_SIZE:
        raise ValueError("that is more than a file system can hold")
    return int(size)


def parse_duration(text: str) -> float:
    """Return the seconds of ``60s``, ``5m``, ``1.5h``, ``2d``, ``500ms`` or a plain number.

    Raises ValueError.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("a duration looks like 30s, 5m, 1h or 0")
    number, unit = match.groups()
    seconds = float(number) * _SECONDS[(unit or "s").lower()]
    if seconds > LONGEST_DURATION_S:
        raise ValueError("that is longer than a year")
    return seconds


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``count`` requests in any ``period_s`` seconds."""

    count: float
    period_s: float

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return self.count / self.period_s

    def __str__(self) -> str:
        units = {seconds: unit for unit, seconds in _SECONDS.items() if unit != "m"}
        return f"{self.count:g}/{units.get(self.period_s, f'{self.period_s:g}s')}"


def parse_rate(text: str) -> Rate:
    """Return the rate ``10/min``, ``5/s``, ``1000/h`` or ``1/10s``. Raises ValueError."""
    count, slash, period = (word.strip() for word in text.partition("/"))
    if not slash or not re.fullmatch(r"[0-9]{1,6}", count) or not period:
        raise ValueError("a rate looks like 10/min, 5/s or 1000/h")
    period_s = parse_duration(period if period[0].isdigit() else f"1{period}")
    if not 1 <= period_s <= 86400:
        raise ValueError("the time of a rate lies between a second and a day")
    if int(count) < 1:
        raise ValueError("at least one request must be allowed")
    return Rate(int(count), period_s)


def format_rate(per_s: float) -> str:
    """Format requests a second like ``5/s``, or like ``10/min`` if they are less than one."""
    if per_s >= 100:
        return f"{per_s:,.0f}/s"
    return f"{per_s:.3g}/s" if per_s >= 1 else f"{per_s * 60:.3g}/min"


def format_size(size_bytes: float) -> str:
    """Format a size like ``1.4 GiB``, ``312 KiB``, ``17 B``: at most three digits."""
    size = float(size_bytes)
    step = 0
    while size >= 1000 and step < len(_UNITS) - 1:
        size /= 1024
        step += 1
    digits = 1 if step and size < 10 else 0
    return f"{size:.{digits}f} {_UNITS[step]}"


def format_count(number: int, noun: str) -> str:
    """Format a count like ``1 file``, ``0 files``, ``1,500 files``; the plural adds an s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def format_duration(seconds: float) -> str:
    """Format a duration like ``0.4 s``, ``45 s``, ``3 min 20 s``, ``2 h 05 min``, ``3 d 4 h``."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def printable(text: str) -> str:
    """Return the text with ``?`` for each character that is not printable, as in escape codes."""
    if text.isprintable():
        return text  # nearly all
    return "".join(char if char.isprintable() else "?" for char in text)
