"""Finds out which days of a span of time may hold objects that are not known.

Used by searches and by the indexer. Years and months are asked for with one search each; the days
of a month that holds something are not, since listing an empty day costs one search too.
"""

from collections.abc import Iterable, Sequence

from phonofs.catalogue.catalogue import Catalogue
from phonofs.catalogue.search import Span, gaps
from phonofs.discovery.lister import Lister
from phonofs.tree.layout import Directory


async def unlisted_days(
    catalogue: Catalogue, lister: Lister, region: str, span: Span, *, last: bool = False
) -> list[list[Directory]]:
    """Return the days of a span of which objects may be missing, month by month, newest first.

    Requests that are ``last`` go after all others. Raises ServiceError, CatalogueError.
    """
    of = Directory(catalogue.region_index(region))
    if gaps(catalogue, region, span):
        await _list(lister, of, last=last)  # that tells where the first and the last object are
    spans = gaps(catalogue, region, span)
    if not spans:
        return []
    calendar = catalogue.placement.calendar
    hull = spans[0][0], spans[-1][1]
    months = [
        month
        for year in await _parts(catalogue, lister, of, spans, last=last)
        for month in await _parts(catalogue, lister, year, spans, last=last)
    ]
    days = (_overlapping(catalogue, calendar.parts(month, *hull), spans) for month in months)
    return [some[::-1] for some in days]


async def _parts(
    catalogue: Catalogue, lister: Lister, of: Directory, spans: Sequence[Span], *, last: bool
) -> list[Directory]:
    """Return the parts of a region or year that hold something within the spans, newest first."""
    await _list(lister, of, last=last)
    known = sorted(catalogue.known(of), key=lambda part: part.ino)
    return _overlapping(catalogue, known, spans)[::-1]


async def _list(lister: Lister, of: Directory, *, last: bool) -> None:
    for error in (await lister.list_each([of], last=last)).values():
        raise error


def _overlapping(
    catalogue: Catalogue, parts: Iterable[Directory], spans: Sequence[Span]
) -> list[Directory]:
    found = []
    for part in parts:
        start_ms, stop_ms = catalogue.placement.calendar.span_ms(part)
        if any(start_ms < stop and begin < stop_ms for begin, stop in spans):
            found.append(part)
    return found
