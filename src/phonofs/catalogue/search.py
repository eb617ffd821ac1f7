"""Finds what matches among the known objects, and says which time is known. Synchronous.

Used by ``discovery.record_search`` while an account is mounted, and by the commands with the
catalogue alone.
"""

import heapq
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, timedelta
from itertools import islice

from phonofs.catalogue.catalogue import Catalogue
from phonofs.catalogue.facets import SLICE, FacetStore, Match
from phonofs.errors import Malformed, NoSuchName
from phonofs.search.answer import Answer, Found
from phonofs.search.condition import Condition
from phonofs.tree.layout import FIRST_DAY, LAST_DAY, ROOT, Directory, descend

Span = tuple[int, int]
"""Creation times ``[start, stop)``, epoch ms."""

MOST_SPANS = 3
"""Spans that a sentence names; of more it says how many there are."""

MOST_RUNS = 200
"""Runs of known days that are told of a region; they have to fit into an attribute."""

DAY = timedelta(days=1)

TOGETHER = 100
"""Records read at a time: 3 to 5 ms."""

REMEDY = "run phonofs index, or name a shorter time with --since"

MOST_TRIES = 5
"""How often it is looked whether facets are missing, the last time without a pause."""


def search_known(
    catalogue: Catalogue, condition: Condition, *, records: bool = False
) -> Iterator[list[Found]]:
    """Yield the known objects that match, by region, day and name, some at a time.

    Makes the facets that are missing. Each step takes some milliseconds, and yields a list
    that may be empty. Raises CatalogueError.
    """
    for region in catalogue.regions():
        if condition.region in ("", region):
            yield from _search_region(catalogue, condition, region, records=records)


def _search_region(
    catalogue: Catalogue, condition: Condition, region: str, *, records: bool
) -> Iterator[list[Found]]:
    facets = catalogue.facets
    days = facets.days(region, condition.since, condition.until)
    if days is None:
        return
    above: dict[int, str] = {}
    for span in facets.slices(*days):
        parts: list[list[Match]] = []
        start: int | None = 0
        while start is not None:
            yield from _have_facets(facets, span)
            part, start = facets.matching(condition, *span, start)
            parts.append(part)
            yield []
        for matches in _merged(parts):
            for day in {match.day for match in matches} - above.keys():
                above[day] = catalogue.path(day)
            found = ((f"{above[match.day]}/{match.name}", match.ino) for match in matches)
            if records or condition.tags:
                yield from read(catalogue, found, condition, records=records)
            else:
                yield [Found(path, None) for path, _ in found]


def _have_facets(facets: FacetStore, span: tuple[int, int]) -> Iterator[list[Found]]:
    """Make the facets that days lack, in steps. When this ends, none are missing."""
    for left in reversed(range(MOST_TRIES)):
        lacking = facets.lacking(*span)
        for day in lacking:
            for _ in facets.make(day):
                if left:  # objects may change meanwhile: then look again
                    yield []
        if not lacking:
            return


def _merged(parts: Sequence[Sequence[Match]]) -> Iterator[Sequence[Match]]:
    """Yield what was found in the parts of a slice, by day and name, some at a time."""
    if len(parts) == 1:
        yield parts[0]
        return
    ordered = heapq.merge(*parts, key=lambda match: match.name)  # parts of one day
    while some := list(islice(ordered, SLICE)):
        yield some


def read(
    catalogue: Catalogue,
    objects: Iterable[tuple[str, int]],
    condition: Condition,
    *,
    records: bool = True,
) -> Iterator[list[Found]]:
    """Read the records of objects (path, inode number); yield those whose tags match.

    Leaves out what has just gone, and what is damaged, whose day is listed again.
    """
    some: list[Found] = []
    for at, (path, ino) in enumerate(objects, 1):
        try:
            record = catalogue.record(ino)
        except (NoSuchName, Malformed):
            record = None
        if record is not None and condition.accepts_tags(record.tags):
            some.append(Found(path, record if records else None))
        if not at % TOGETHER:
            yield some
            some = []
    yield some


def day_of(catalogue: Catalogue, path: str) -> Directory | None:
    """Return the day folder in which a path (below the mount point) names a file, or None."""
    *names, _ = path.split("/")
    of = catalogue.shown_directory(ROOT)
    if of is None and names and names[0] in catalogue.regions():
        of = Directory(catalogue.region_index(names.pop(0)))
    of = descend(of, names) if of is not None else None
    return of if of is not None and of.day else None


def file_named(catalogue: Catalogue, path: str) -> int | None:
    """Return the inode number of a known file by its path below the mount point, or None."""
    day = day_of(catalogue, path)
    entry = catalogue.lookup(day.ino, path.rpartition("/")[2]) if day is not None else None
    return entry.ino if entry is not None else None


def scope_ms(catalogue: Catalogue, condition: Condition) -> Span:
    """Return the span of the days that a condition names."""
    calendar = catalogue.placement.calendar
    start_ms, stop_ms = calendar.span_ms(Directory(0))
    if condition.since:
        start_ms = calendar.start_ms(min(max(condition.since, FIRST_DAY), LAST_DAY))
    if condition.until:
        last = min(max(condition.until, FIRST_DAY), LAST_DAY - DAY)
        stop_ms = calendar.start_ms(last + DAY)
    return max(start_ms, catalogue.placement.since_ms), stop_ms


def known_days(catalogue: Catalogue, region: str) -> list[tuple[date, date]]:
    """Return runs of days, first and last, of which every object is known as of the last poll.

    They begin with the first day that holds something. The last day may not be over.
    """
    calendar, edge_ms = catalogue.placement.calendar, catalogue.coverage.edge_ms(region)
    oldest = _first_day(catalogue, Directory(catalogue.region_index(region)))
    if oldest is None or edge_ms is None:
        return []
    runs = []
    for start_ms, stop_ms in catalogue.coverage.listed(region):
        first, last = calendar.day_of(start_ms), calendar.day_of(min(stop_ms, edge_ms))
        if calendar.start_ms(first) < start_ms:
            first += DAY
        if stop_ms < edge_ms:
            last -= DAY  # the day in which the span stops is known in part
        if max(first, oldest) <= last:
            runs.append((max(first, oldest), last))
    return runs


def known_by_region(catalogue: Catalogue) -> dict[str, list[list[str]]]:
    """Return the newest MOST_RUNS runs of known days of each region, in order, as texts."""
    return {
        region: [[str(first), str(last)] for first, last in known_days(catalogue, region)][
            -MOST_RUNS:
        ]
        for region in catalogue.regions()
    }


def _first_day(catalogue: Catalogue, of: Directory) -> date | None:
    """Return the first day of a directory that is known to hold something."""
    while not of.day:
        known = catalogue.known(of)
        if not known:
            return None
        of = min(known, key=lambda part: part.ino)
    return of.first_day


def gaps(catalogue: Catalogue, region: str, span: Span) -> list[Span]:
    """Return the parts of a span of which objects may be missing.

    What was created after the last poll is no gap, unless that is the whole span.
    """
    start_ms, stop_ms = span
    coverage = catalogue.coverage
    edge_ms = coverage.edge_ms(region)
    if edge_ms is None or (start_ms >= edge_ms and not coverage.following(region)):
        return [span]
    return coverage.listed(region).missing(start_ms, min(stop_ms, edge_ms))


def report(
    catalogue: Catalogue,
    condition: Condition,
    what: str,
    now_ms: int,
    answer: Answer,
    settled: Collection[str] = (),
) -> None:
    """Add to an answer what is known and what is missing; ``what`` names the search.

    Of the regions ``settled`` it is said already what is missing.
    """
    span = scope_ms(catalogue, condition)
    regions = [name for name in catalogue.regions() if condition.region in ("", name)]
    if not regions:
        answer.missing.append(
            f"{condition.region} is no region of this account"
            if condition.region
            else "nothing is known of this account: mount it, or run phonofs index"
        )
    for region in regions:
        prefix = region_prefix(catalogue, region)
        known = [_run_text(*run) for run in _within(known_days(catalogue, region), condition)]
        if known:
            answer.known.append(prefix + _joined(known))
        missing = gaps(catalogue, region, span) if region not in settled else []
        if missing:
            days = days_text(catalogue, missing, now_ms)
            answer.missing.append(
                f"{prefix}{what} needs the records of {days}, which are not known: {REMEDY}"
            )


def region_prefix(catalogue: Catalogue, region: str) -> str:
    """Return the name of a region for the begin of a sentence; '' if there is only one."""
    return f"{region}: " if len(catalogue.regions()) > 1 else ""


def _within(runs: Iterable[tuple[date, date]], condition: Condition) -> Iterator[tuple[date, date]]:
    """Cut runs of days to those that a condition names."""
    for first, last in runs:
        first, last = max(first, condition.since or first), min(last, condition.until or last)
        if first <= last:
            yield first, last


def days_text(catalogue: Catalogue, spans: Sequence[Span], now_ms: int) -> str:
    """Return the days of spans in words: ``2026-11-01 to 2026-11-17, 2026-11-20``."""
    calendar = catalogue.placement.calendar
    said = []
    for start_ms, stop_ms in spans:
        last = calendar.day_of(min(stop_ms - 1, max(now_ms, start_ms)))
        if start_ms == 0:
            said.append("everything" if stop_ms > now_ms else f"everything to {last}")
        else:
            said.append(_run_text(calendar.day_of(start_ms), last))
    return _joined(said)


def _run_text(first: date, last: date) -> str:
    return f"{first}" if first == last else f"{first} to {last}"


def _joined(said: Sequence[str]) -> str:
    if len(said) <= MOST_SPANS:
        return ", ".join(said)
    rest = len(said) - MOST_SPANS + 1
    return f"{', '.join(said[: MOST_SPANS - 1])} and {rest} other spans of time"
