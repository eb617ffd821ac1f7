"""Finds out which parts of a year, a month or a region hold anything, by searches for one record.

Used by ``lister``.
"""

from functools import partial

from phonofs.discovery.estimates import DaySizeEstimator
from phonofs.discovery.searches import Searches
from phonofs.model import Record
from phonofs.priority import Priority
from phonofs.tree.layout import Directory


async def list_parts(
    searches: Searches, sizes: DaySizeEstimator, urgent: Priority, directory: Directory
) -> None:
    """Find out which parts of a directory hold anything. Raises ServiceError."""
    coverage, region = searches.catalogue.coverage, searches.catalogue.region_of(directory)
    followed = coverage.watermark(region) is not None
    await _bound(searches, sizes, urgent, directory)
    if coverage.watermark(region) is not None and not followed:
        # The follower began, which discards what was found before.
        await _bound(searches, sizes, urgent, directory)
    knowledge = searches.knowledge(directory)
    parts = knowledge.unsettled(directory)
    if not knowledge.following:
        parts += [part for part in knowledge.recent(directory) if part not in parts]
    await searches.each(partial(probe, searches, sizes, urgent), parts)


async def probe(
    searches: Searches, sizes: DaySizeEstimator, urgent: Priority, part: Directory
) -> None:
    """Find out whether a part holds anything, and store the record found."""
    edge, span = searches.edge(part), searches.knowledge(part).span(part)
    region = searches.catalogue.region_of(part)
    found, total = await searches.first(region, searches.query(part, *span), urgent)
    sizes.said(part, total)
    if found is not None:
        searches.take_in([found])
    else:
        searches.mark(part, *span, edge)


async def _bound(
    searches: Searches, sizes: DaySizeEstimator, urgent: Priority, directory: Directory
) -> None:
    """If more than two parts are unsettled, search for both ends: two searches save many."""
    knowledge = searches.knowledge(directory)
    parts = knowledge.unsettled(directory)
    if knowledge.edge_ms is None:
        await _find_ends(searches, sizes, urgent, directory, *knowledge.span(directory))
    elif len(parts) > 2:
        start_ms, stop_ms = knowledge.span(parts[0])[0], knowledge.span(parts[-1])[1]
        await _find_ends(searches, sizes, urgent, directory, start_ms, stop_ms)


async def _find_ends(
    searches: Searches,
    sizes: DaySizeEstimator,
    urgent: Priority,
    directory: Directory,
    start_ms: int,
    stop_ms: int,
) -> None:
    """Find the first and the last object of a span; outside of them there is nothing.

    The span is not cut at the edge: the search includes what was created after it.
    """
    region, edge = searches.catalogue.region_of(directory), searches.edge(directory)
    ends: dict[bool, tuple[Record | None, int | None]] = {}

    async def look(descending: bool) -> None:
        query = searches.query(directory, start_ms, stop_ms, descending=descending)
        ends[descending] = await searches.first(region, query, urgent)

    await searches.each(look, (False, True))
    (first, total), (last, _) = ends[False], ends[True]
    searches.take_in([end for end in (first, last) if end])
    if first is None and last is None:
        searches.mark(directory, start_ms, stop_ms, edge)
    elif first is not None and last is not None and _may_be_ends(first, last, total):
        sizes.spread(directory.region, first.created_ms, last.created_ms, total)
        searches.mark(directory, start_ms, first.created_ms, edge)
        searches.mark(directory, last.created_ms + 1, stop_ms, edge)


def _may_be_ends(first: Record, last: Record, total: int | None) -> bool:
    """Return whether ``first`` and ``last`` can be the ends of ``total`` records in order."""
    if first.id == last.id:
        return total == 1
    return first.created_ms <= last.created_ms
