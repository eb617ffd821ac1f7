"""Finds out which days of some spans of time may hold objects, newest first.

Used by searches and by the indexer. Years and months are asked for with one search each; the days
of a month that holds something are not, since listing an empty day costs one search too.
"""

from collections.abc import AsyncIterator, Iterable, Sequence

from phonofs.catalogue.catalogue import Catalogue
from phonofs.catalogue.search import Span
from phonofs.discovery.lister import Lister
from phonofs.tree.layout import Directory


async def unlisted_days(
    catalogue: Catalogue, lister: Lister, region: Directory, spans: Sequence[Span]
) -> AsyncIterator[list[Directory]]:
    """Yield the days of the spans that are not known to be empty: a month at a time, newest first.

    Raises ServiceError.
    """
    for year in await _parts(catalogue, lister, region, spans):
        for month in await _parts(catalogue, lister, year, spans):
            days = _overlapping(
                catalogue, catalogue.placement.calendar.parts(month, *_hull(spans)), spans
            )
            yield days[::-1]


async def _parts(
    catalogue: Catalogue, lister: Lister, of: Directory, spans: Sequence[Span]
) -> list[Directory]:
    """Return the parts of a region or year that hold something within the spans, newest first."""
    if lister.needs(of.ino):
        await lister.list(of.ino)
    known = sorted(catalogue.known(of), key=lambda part: part.ino)
    return _overlapping(catalogue, known, spans)[::-1]


def _overlapping(
    catalogue: Catalogue, parts: Iterable[Directory], spans: Sequence[Span]
) -> list[Directory]:
    found = []
    for part in parts:
        start_ms, stop_ms = catalogue.placement.calendar.span_ms(part)
        if any(start_ms < stop and begin < stop_ms for begin, stop in spans):
            found.append(part)
    return found


def _hull(spans: Sequence[Span]) -> Span:
    return spans[0][0], spans[-1][1]
