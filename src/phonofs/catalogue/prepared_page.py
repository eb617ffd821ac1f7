"""Prepares a search page for the catalogue: places, names and compresses its records. Pure.

A listing of 10,000 objects spends most of its time on this, and none of it needs the catalogue:
``discovery.page_worker`` does it in another process.
"""

import zlib

import msgspec

from phonofs.catalogue.placement import Placement
from phonofs.catalogue.record_codec import batches, unpack
from phonofs.model import Page, Record
from phonofs.service.records import parse_record


class PreparedPage(msgspec.Struct, array_like=True, gc=False):
    """A page of the service, in columns that are ready for SQLite.

    region   the service's name
    count, last, total  as in ``model.Page``
    customers  whose objects they are, each once
    ids, parents, names, sizes, created, updated, states, crcs, fingerprints
             of all usable records, in the order received. A parent is the inode number of a day;
             None if the record is not simply added: it is not shown, or an earlier record of the
             page is of the same object.
    batches  their texts (``record_codec.batches``)
    """

    region: str
    count: int
    last: bool
    total: int | None
    customers: list[str]
    ids: list[str]
    parents: list[int | None]
    names: list[str]
    sizes: list[int]
    created: list[int]
    updated: list[int]
    states: list[str]
    crcs: list[int]
    fingerprints: list[str]
    batches: list[tuple[int, bytes]]

    @property
    def created_span_ms(self) -> tuple[int, int] | None:
        """The first and last time of creation; None if the records are not in that order."""
        ordered = self.created == sorted(self.created)
        return (self.created[0], self.created[-1]) if self.created and ordered else None

    def record(self, at: int) -> Record:
        """Return the record at a position."""
        for count, packed in self.batches:
            if at < count:
                return parse_record(unpack(packed)[at], self.region)
            at -= count
        raise IndexError(at)


def prepare(page: Page, region: str, index: int, placement: Placement) -> PreparedPage:
    """Prepare a page; ``index`` is the region's index in inode numbers."""
    records = page.records
    ids = [record.id for record in records]
    parents = [placement.parent(record, index) for record in records]
    if len(set(ids)) < len(ids):
        parents = [
            parent if id not in ids[:at] else None
            for at, (id, parent) in enumerate(zip(ids, parents, strict=True))
        ]
    return PreparedPage(
        region=region,
        count=page.count,
        last=page.last,
        total=page.total,
        customers=sorted({record.customer for record in records}),
        ids=ids,
        parents=parents,
        names=[placement.name(record) for record in records],
        sizes=[record.size for record in records],
        created=[record.created_ms for record in records],
        updated=[record.updated_ms for record in records],
        states=[record.state for record in records],
        crcs=[zlib.crc32(record.source) for record in records],
        fingerprints=[record.fingerprint for record in records],
        batches=[*batches([record.source for record in records])],
    )
