"""Finds what matches among the known objects, and says which time is known. Synchronous.

Used by ``discovery.record_search`` while an account is mounted, and by the commands with the
catalogue alone.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, timedelta

from phonofs.catalogue.catalogue import Catalogue
from phonofs.errors import Malformed, NoSuchName
from phonofs.search.answer import Answer, Found
from phonofs.search.condition import Condition
from phonofs.tree.layout import FIRST_DAY, LAST_DAY, ROOT, Directory, named

Span = tuple[int, int]
"""Creation times ``[start, stop)``, epoch ms."""

MOST_SPANS = 3
"""Spans that a sentence names; of more it says how many there are."""

TOGETHER = 200
"""Records read at a time: 5 ms."""


REMEDY = "open their folders, or name a shorter time with --since"

MOST_TRIES = 5
"""How often the facets of some days are made, as objects change meanwhile."""


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
        for _ in range(MOST_TRIES):
            lacking = facets.lacking(*span)
            if not lacking:
                break
            for day in lacking:
                for _ in facets.make(day):
                    yield []
        matches = facets.matching(condition, *span)
        for match in matches:
            if match.day not in above:
                above[match.day] = catalogue.path(match.day)
        found = ((f"{above[match.day]}/{match.name}", match.ino) for match in matches)
        if records or condition.tags:
            yield from read(catalogue, found, condition, records=records)
        else:
            yield [Found(path, None) for path, _ in found]


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
    for name in names:
        of = named(of, name) if of is not None else None
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
        last = min(max(condition.until, FIRST_DAY), LAST_DAY - timedelta(days=1))
        stop_ms = calendar.start_ms(last + timedelta(days=1))
    return max(start_ms, catalogue.placement.since_ms), stop_ms


def known_spans(catalogue: Catalogue, region: str, span: Span) -> list[Span]:
    """Return the parts of a span of which every object is known, as of the last poll."""
    edge_ms = catalogue.coverage.edge_ms(region)
    start_ms, stop_ms = span
    stop_ms = min(stop_ms, edge_ms or 0)
    within = (
        (max(one, start_ms), min(two, stop_ms)) for one, two in catalogue.coverage.listed(region)
    )
    return [(one, two) for one, two in within if one < two]


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
        of = f"region {condition.region}" if condition.region else "this account"
        answer.missing.append(f"nothing is known of {of}: mount it")
    for region in regions:
        prefix = region_prefix(catalogue, region)
        known = known_spans(catalogue, region, span)
        if known:
            answer.known.append(prefix + days_text(catalogue, known, now_ms))
        missing = gaps(catalogue, region, span) if region not in settled else []
        if missing:
            days = days_text(catalogue, missing, now_ms)
            answer.missing.append(
                f"{prefix}{what} needs the records of {days}, which are not known: {REMEDY}"
            )


def region_prefix(catalogue: Catalogue, region: str) -> str:
    """Return the name of a region for the begin of a sentence; '' if there is only one."""
    return f"{region}: " if len(catalogue.regions()) > 1 else ""


def days_text(catalogue: Catalogue, spans: Sequence[Span], now_ms: int) -> str:
    """Return the days of spans in words: ``2026-11-01 to 2026-11-17, 2026-11-20``."""
    said = [_days_text(catalogue, *span, now_ms) for span in spans]
    if len(said) > MOST_SPANS:
        said[MOST_SPANS - 1 :] = [f"and {len(said) - MOST_SPANS + 1} other spans of time"]
    return ", ".join(said)


def _days_text(catalogue: Catalogue, start_ms: int, stop_ms: int, now_ms: int) -> str:
    first = _day(catalogue, start_ms)
    last = _day(catalogue, min(stop_ms - 1, max(now_ms, start_ms)))
    if start_ms == 0:
        return "everything" if stop_ms > now_ms else f"everything to {last}"
    return f"{first}" if first == last else f"{first} to {last}"


def _day(catalogue: Catalogue, at_ms: int) -> date:
    return catalogue.placement.calendar.day_of(at_ms)
