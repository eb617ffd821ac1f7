"""Writes the objects of the catalogue: adds, updates and removes them. Part of the catalogue."""

import hashlib
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice, repeat

import msgspec

from phonofs.catalogue.changes import ChangeCollector
from phonofs.catalogue.database import Database
from phonofs.catalogue.names import Names
from phonofs.catalogue.prepared_page import PreparedPage
from phonofs.catalogue.queries import FIRST_COLUMNS, CatalogueQueries, Row
from phonofs.catalogue.records import RecordStore, pack_batch, unpack_batch
from phonofs.catalogue.regions import Regions
from phonofs.catalogue.types import CHANGED, REMOVED, ObjectChange
from phonofs.model import LISTED_STATES, WITHDRAWN_STATES, Record
from phonofs.service.records import parse_record

MISSING = "MISSING"
"""Our own state of an object that a complete listing did not have; not a state of the service."""

_INTO = f"object ({FIRST_COLUMNS})"


class Objects:
    """Owns the table ``object`` and the next inode number.

    Invariants: an inode number is assigned only once; a row with a parent has a stored record.
    ``Names`` assigns the names. Every write happens in a transaction of the catalogue.
    """

    def __init__(
        self,
        database: Database,
        regions: Regions,
        rows: CatalogueQueries,
        names: Names,
        records: RecordStore,
    ) -> None:
        self._database = database
        self._records = records
        self._regions = regions
        self._rows = rows
        self._names = names
        self.load()

    def load(self) -> None:
        """Read the next inode number from the file, at the start and after a failed transaction."""
        sql = "SELECT seq FROM sqlite_sequence WHERE name = 'object'"
        self._next_ino: int = self._database.row(sql)[0] + 1

    def put(self, records: Iterable[Record], batch: ChangeCollector) -> None:
        """Apply each record, unless the catalogue has it, or a newer one of its object."""
        by_region: dict[str, list[Record]] = {}
        for record in records:
            by_region.setdefault(record.region, []).append(record)
        for name, some in by_region.items():
            region = self._regions.region_index(name)
            known = self._rows.known(region, [record.id for record in some])
            fresh = [record for record in some if record.id not in known]
            again = [record for record in some if record.id in known]
            again += self._add_plain(fresh, region, batch)
            for record in again:
                self._put(record, region, known, batch)

    def take(self, prepared: PreparedPage, region: int, batch: ChangeCollector) -> list[Record]:
        """Add the objects of a page except its first; return the records of those not added.

        An object is not added if it is known, or if another object has its plain name.
        """
        first, count = self._next_ino, len(prepared.names)
        self._next_ino += count
        rows = list(
            zip(
                range(first, first + count), repeat(region), islice(prepared.ids, 1, None),
                prepared.parents, prepared.names, repeat(0), prepared.sizes,
                prepared.created, prepared.updated, prepared.states, prepared.crcs,
                strict=False,
            )
        )  # fmt: skip
        added = self._database.insert(_INTO, rows, " ON CONFLICT DO NOTHING")
        inos = range(first, first + count)
        new: Collection[int] = inos
        others, their_bytes = Counter[int](), Counter[int]()  # of each day, what was not added
        if added < count:
            sql = "SELECT ino FROM object WHERE ino BETWEEN ? AND ?"
            new = {ino for (ino,) in self._database.rows(sql, inos[0], inos[-1])}
            for ino, parent, size in zip(inos, prepared.parents, prepared.sizes, strict=True):
                if ino not in new:
                    others[parent] += 1
                    their_bytes[parent] += size
        for parent, objects, size, newest_ms in prepared.days:
            if came := objects - others[parent]:
                batch.count(parent, came, size - their_bytes[parent], newest_ms, moved=True)
        return self._keep_batches(prepared, first, new)

    def _keep_batches(
        self, prepared: PreparedPage, first: int, new: Collection[int]
    ) -> list[Record]:
        """Store the texts of the new objects; return the records of the others."""
        others: list[bytes] = []
        for count, record_batch in prepared.batches:
            gone = [at for at in range(count) if first + at not in new]
            if gone:
                texts = unpack_batch(record_batch)
                others += [texts[at] for at in gone]
                record_batch = pack_batch(texts, gone)
            if len(gone) < count:
                self._records.add_batch(first, record_batch)
            first += count
        return [parse_record(text, prepared.region) for text in others]

    def _put(
        self, record: Record, region: int, known: dict[str, Row], batch: ChangeCollector
    ) -> None:
        """Apply one record; ``known`` has the rows that this batch has not yet updated."""
        crc = zlib.crc32(record.source)
        row = known.get(record.id)
        if row is not None and _outdated(row, record, crc):
            return
        known.pop(record.id, None)
        row = self._rows.find(region, record.id)
        if row is None:
            self._add(record, region, crc, batch)
        elif not _outdated(row, record, crc):
            self._update(row, record, crc, batch)

    def _add_plain(
        self, records: Sequence[Record], region: int, batch: ChangeCollector
    ) -> list[Record]:
        """Add the new objects whose plain names are free (nearly all), in a few statements.

        Return the other records, in order: those not shown, those whose name is taken, and the
        later ones of an object that is several times among ``records``.
        """
        plain: dict[int, dict[str, Record]] = {}
        ids: set[str] = set()
        for record in records:
            parent = self._regions.parent(record, region)
            if parent is not None and record.id not in ids:
                plain.setdefault(parent, {}).setdefault(self._regions.name(record, 0), record)
            ids.add(record.id)  # a later record of this object is applied after this one
        added: set[int] = set()
        for parent, names in plain.items():
            for name in self._rows.taken(parent, [*names]):
                del names[name]
            self._insert(names, parent, region, batch)
            added.update(map(id, names.values()))
        return [record for record in records if id(record) not in added]

    def _insert(
        self, names: Mapping[str, Record], parent: int, region: int, batch: ChangeCollector
    ) -> None:
        rows, texts = [], []
        size = newest_ms = 0
        for ino, (name, record) in enumerate(names.items(), self._next_ino):
            crc = zlib.crc32(record.source)
            times = (record.created_ms, record.updated_ms)
            rows.append(
                (ino, region, record.id, parent, name, 0, record.size, *times, record.state, crc)
            )
            texts.append(record.source)
            size += record.size
            newest_ms = max(newest_ms, *times)
            batch.appeared(ino, parent, name, record)
        if rows:
            batch.count(parent, len(rows), size, newest_ms, moved=True)
        first, self._next_ino = self._next_ino, self._next_ino + len(rows)
        self._database.insert(_INTO, rows)
        self._records.add(first, texts)

    def _add(self, record: Record, region: int, crc: int, batch: ChangeCollector) -> None:
        ino, parent = self._next_ino, self._regions.parent(record, region)
        name, rank = None, 0
        if parent is not None:
            name, rank = self._names.free_name(record, parent, ino, batch)
        self._next_ino += 1
        times = (record.created_ms, record.updated_ms)
        row = (ino, region, record.id, parent, name, rank, record.size, *times, record.state, crc)
        self._database.insert(_INTO, [row])
        self._keep_source(ino, record)
        if parent is not None and name is not None:
            self._appeared(ino, parent, name, record, batch)
        elif record.state in WITHDRAWN_STATES:
            batch.tell(ObjectChange(REMOVED, ino, 0, "", record))

    def _appeared(
        self, ino: int, parent: int, name: str, record: Record, batch: ChangeCollector
    ) -> None:
        newest_ms = max(record.created_ms, record.updated_ms)
        batch.appeared(ino, parent, name, record)
        batch.count(parent, 1, record.size, newest_ms, moved=True)

    def _update(self, row: Row, record: Record, crc: int, batch: ChangeCollector) -> None:
        old = self._rows.readable(row)
        size = row.size if old and _was_found_out(old, record) else record.size
        record = msgspec.structs.replace(record, size=size)
        parent = self._regions.parent(record, row.region)
        name, rank = None, 0
        if row.parent is not None and (row.parent, row.created_ms) != (parent, record.created_ms):
            self._names.vacate(row, batch)
        if parent is not None:
            name, rank = self._names.free_name(record, parent, row.ino, batch)
        before = _content_of(old) if old else row.content
        listed = record.state in LISTED_STATES
        replaced = row.replaced or (listed and before not in (0, _content_of(record)))
        self._database.run(
            "UPDATE object SET parent = ?, name = ?, rank = ?, size = ?, created_ms = ?,"
            " updated_ms = ?, state = ?, crc = ?, replaced = ?, content = ? WHERE ino = ?",
            *(parent, name, rank, size, record.created_ms, record.updated_ms),
            *(record.state, crc, int(replaced), 0 if listed else before, row.ino),
        )
        self._keep_source(row.ino, record)
        self._report(row, old, record, parent, name, batch)
        if row.parent == parent and row.name != name:
            self._names.pass_on_name(row, batch)

    def _report(
        self,
        row: Row,
        old: Record | None,
        record: Record,
        parent: int | None,
        name: str | None,
        batch: ChangeCollector,
    ) -> None:
        """Add to the batch what an update changes in the tree and in the counts of days."""
        if parent is None or name is None:
            if row.parent is not None or record.state in WITHDRAWN_STATES:
                self._went(row, record, batch)
            return
        if row.parent is None or row.name is None:
            self._appeared(row.ino, parent, name, record, batch)
            return
        was, now = (row.parent, row.name), (parent, name)
        when = max(record.created_ms, record.updated_ms)
        batch.count(row.parent, -1, -row.size, when, moved=was != now)
        batch.count(parent, 1, record.size, when, moved=was != now)
        content = old is None or old.fingerprint != record.fingerprint
        entries = (was, now) if was != now else ()
        batch.tell(ObjectChange(CHANGED, row.ino, parent, name, record, content, entries))

    def _went(
        self, row: Row, record: Record, batch: ChangeCollector, when_ms: int | None = None
    ) -> None:
        parent, name = row.parent or 0, row.name or ""
        entries = ((parent, name),) if parent else ()
        batch.tell(ObjectChange(REMOVED, row.ino, parent, name, record, False, entries))
        if parent:
            moved_ms = record.updated_ms if when_ms is None else when_ms
            batch.count(parent, -1, -row.size, moved_ms, moved=True)

    def drop(self, row: Row, when_ms: int, batch: ChangeCollector) -> None:
        """Remove an object that a complete listing, at ``when_ms``, did not have."""
        record = self._rows.readable(row)
        self._names.vacate(row, batch)
        sql = "UPDATE object SET state = ?, crc = 0, content = ? WHERE ino = ?"
        self._database.run(sql, MISSING, _content_of(record) if record else 0, row.ino)
        self._records.remove(row.ino)
        if record is not None:
            self._went(row, record, batch, when_ms)

    def resize(self, row: Row, size: int, batch: ChangeCollector) -> None:
        """Store the real length of an object's content, if its record states another one."""
        self._database.run("UPDATE object SET size = ? WHERE ino = ?", size, row.ino)
        if row.parent is not None:
            batch.count(row.parent, 0, size - row.size, 0, moved=False)

    def expect(self, row: Row) -> None:
        """Have the next record of an object applied, whatever is stored of it now."""
        self._database.run("UPDATE object SET crc = 0 WHERE ino = ?", row.ino)

    def _keep_source(self, ino: int, record: Record) -> None:
        """Store the record of an object; remove it if the object is withdrawn."""
        if record.state in LISTED_STATES:
            self._records.replace(ino, record.source)
        else:
            self._records.remove(ino)


def _outdated(row: Row, record: Record, crc: int) -> bool:
    """Return whether ``record`` has nothing new.

    Of two records with the same ``updatedTime`` (which has whole seconds) the one received later
    wins. But a withdrawn object stays withdrawn: a page requested earlier may still show it.
    """
    if record.updated_ms != row.updated_ms:
        return record.updated_ms < row.updated_ms
    return row.state in WITHDRAWN_STATES or (row.state == record.state and row.crc == crc)


def _was_found_out(old: Record, new: Record) -> bool:
    """Return whether the size of ``old`` was found by reading and is still valid.

    It is valid while the service states the same checksum. A size that the last record stated is
    no longer valid if the new record states another one: the service may say 0 first and fill in
    the size later. ``old`` has the size known now.
    """
    if not new.checksum or old.checksum != new.checksum:
        return False
    return old.size != new.size and old.size != parse_record(old.source, old.region).size


def _content_of(record: Record) -> int:
    """Return a hash of the fingerprint of the content, never 0."""
    digest = hashlib.blake2b(record.fingerprint.encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") or 1
