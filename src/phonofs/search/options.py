"""Makes a condition from the options of ``phonofs find`` and ``phonofs manifest``. Pure."""

import re
from collections.abc import Iterable, Sequence
from datetime import date, timedelta

from phonofs.errors import UsageError
from phonofs.search.condition import LONGEST_ASKED, Condition
from phonofs.search.facets import digits_of
from phonofs.units import parse_duration

_NUMBER = re.compile(r"\+?[0-9 ()./-]{1,40}")
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?", re.ASCII)


def condition_of(
    *,
    agent: str | None = None,
    queue: str | None = None,
    number: str | None = None,
    call: str | None = None,
    types: Sequence[str] = (),
    direction: str | None = None,
    longer: str | None = None,
    shorter: str | None = None,
    since: str | None = None,
    until: str | None = None,
    tags: Iterable[str] = (),
) -> Condition:
    """Return the condition that the texts of the options mean. Raises UsageError."""
    condition = Condition(
        agent=_named("--agent", agent),
        queue=_named("--queue", queue),
        number=_digits(number),
        call=_named("--call", call),
        types=tuple(_named("--type", each) for each in types),
        direction=direction or "",
        longer_ms=_duration_ms("--longer", longer),
        shorter_ms=_duration_ms("--shorter", shorter),
        since=first_day(since, "--since") if since is not None else None,
        until=last_day(until, "--until") if until is not None else None,
        tags=dict(_tag(each) for each in tags),
    )
    if condition.since and condition.until and condition.since > condition.until:
        raise UsageError(f"--since {since} is after --until {until}")
    return condition


def first_day(text: str, option: str) -> date:
    """Return the first day of ``2026-11-17``, ``2026-11`` or ``2026``. Raises UsageError."""
    year, month, day = _parts(text, option)
    return _made(text, option, year, month or 1, day or 1)


def last_day(text: str, option: str) -> date:
    """Return the last day of ``2026-11-17``, ``2026-11`` or ``2026``. Raises UsageError."""
    year, month, day = _parts(text, option)
    if day:
        return _made(text, option, year, month, day)
    if not month or month == 12:
        return _made(text, option, year, 12, 31)
    return _made(text, option, year, month + 1, 1) - timedelta(days=1)


def _parts(text: str, option: str) -> tuple[int, int, int]:
    match = _DATE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{option} {text!r}: a date looks like 2026-11-17, 2026-11 or 2026")
    year, month, day = (int(part or 0) for part in match.groups())
    return year, month, day


def _made(text: str, option: str, year: int, month: int, day: int) -> date:
    try:
        return date(year, month, day)
    except ValueError:
        raise UsageError(f"{option} {text!r}: there is no such date") from None


def _named(option: str, text: str | None) -> str:
    if text is not None and not text.strip():
        raise UsageError(f"{option} needs a value")
    return _decoded(option, text).strip() if text else ""


def _decoded(option: str, text: str) -> str:
    """Return a text of the command line.

    Raises UsageError if it was not UTF-8, as no record is, or has more than LONGEST_ASKED
    characters.
    """
    if len(text) > LONGEST_ASKED:
        raise UsageError(f"{option} has more than {LONGEST_ASKED:,} characters")
    if not text.isprintable() and any("\ud800" <= each <= "\udfff" for each in text):
        raise UsageError(f"{option} {text!r} is not UTF-8")
    return text


def _digits(text: str | None) -> str:
    if text is None:
        return ""
    digits = digits_of(text.strip()) if _NUMBER.fullmatch(text.strip()) else ""
    if not digits:
        raise UsageError(f"--number {text!r}: a number has digits only, as +1 202 555 0148")
    return digits


def _duration_ms(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return round(parse_duration(text) * 1000)
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: {error}") from None


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = _decoded("--tag", text).partition("=")
    if not key or not equals:
        raise UsageError(f"--tag {text!r}: a tag is given as KEY=VALUE, as --tag agentId=1234")
    return key, value
