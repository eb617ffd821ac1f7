"""Prepares a search page for the catalogue: parses, places, names and compresses it. Pure.

A listing of 10,000 objects spends most of its time on this, and none of it needs the catalogue:
``discovery.page_worker`` does it in another process.
"""

import zlib
from collections.abc import Sequence

import msgspec

from phonofs.catalogue.placement import Placement
from phonofs.catalogue.records import PackedBatch, pack_batch, runs
from phonofs.model import Record
from phonofs.service.records import parse_page

FEWEST = 16
"""A page with fewer records is not worth preparing."""


class PreparedPage(msgspec.Struct, array_like=True, gc=False):
    """A page whose records are all shown, usable and of different objects.

    The values are in columns, ready for SQLite:

    region   the service's name
    ids      of all records, in the order given
    count, last, total  as in ``model.Page``
    customers  whose objects they are, each once
    head     the text of the first record: pages overlap by one, so it may be known
    parents, names, sizes, created, updated, states, crcs  of all the other records
    days     of each of their days: inode number, objects, bytes, the latest time (epoch ms)
    batches  their texts, packed, each with the number of texts
    """

    region: str
    ids: list[str]
    last: bool
    total: int | None
    customers: list[str]
    head: bytes
    parents: list[int]
    names: list[str]
    sizes: list[int]
    created: list[int]
    updated: list[int]
    states: list[str]
    crcs: list[int]
    days: list[tuple[int, int, int, int]]
    batches: list[tuple[int, PackedBatch]]

    @property
    def count(self) -> int:
        """How many records the page held."""
        return len(self.ids)

    @property
    def created_span_ms(self) -> tuple[int, int] | None:
        """The first and last time of creation, without the head; None if not in that order."""
        ordered = self.created == sorted(self.created)
        return (self.created[0], self.created[-1]) if self.created and ordered else None


def prepare(body: bytes, region: str, index: int, placing: Placement) -> PreparedPage | None:
    """Prepare the body of a search response; return None if the page is not a simple one.

    ``index`` is the region's index in inode numbers. Raises Malformed as ``parse_page`` does.
    """
    page = parse_page(body, region)
    records = page.records
    ids = [record.id for record in records]
    if page.rejected or len(records) < FEWEST or len(set(ids)) < len(ids):
        return None  # of two records of one object the later one counts
    others = records[1:]
    parents = [placing.parent(record, index) for record in others]
    shown = [parent for parent in parents if parent is not None]
    if len(shown) < len(parents):
        return None
    texts = [record.source for record in others]
    return PreparedPage(
        region=region,
        ids=ids,
        last=page.last,
        total=page.total,
        customers=sorted({record.customer for record in records}),
        head=records[0].source,
        parents=shown,
        names=[placing.name(record, 0) for record in others],
        sizes=[record.size for record in others],
        created=[record.created_ms for record in others],
        updated=[record.updated_ms for record in others],
        states=[record.state for record in others],
        crcs=[zlib.crc32(text) for text in texts],
        days=_days(shown, others),
        batches=[(len(some), pack_batch(some)) for some in runs(texts)],
    )


def _days(parents: Sequence[int], records: Sequence[Record]) -> list[tuple[int, int, int, int]]:
    by_day: dict[int, list[Record]] = {}
    for parent, record in zip(parents, records, strict=True):
        by_day.setdefault(parent, []).append(record)
    return [
        (
            parent,
            len(some),
            sum(record.size for record in some),
            max(max(record.created_ms, record.updated_ms) for record in some),
        )
        for parent, some in by_day.items()
    ]
