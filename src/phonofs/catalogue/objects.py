"""Writes the objects of the catalogue: adds, updates and removes them. Part of the catalogue."""

import zlib
from collections.abc import Callable, Collection, Iterable
from itertools import repeat

import msgspec

from phonofs.catalogue.changes import ChangeCollector
from phonofs.catalogue.database import Database
from phonofs.catalogue.directories import Directories
from phonofs.catalogue.names import Names
from phonofs.catalogue.placement import Placement
from phonofs.catalogue.prepared_page import PreparedPage, prepare
from phonofs.catalogue.queries import ObjectQueries, Row
from phonofs.catalogue.records import Records
from phonofs.catalogue.types import CHANGED, REMOVED, Entry, ObjectChange
from phonofs.model import LISTED_STATES, WITHDRAWN_STATES, Page, Record, State

MISSING = "MISSING"
"""Our own state of an object that a complete listing did not have; not a state of the service."""

_NEW = Row._fields[:-3]
"""The columns set for an object with its plain name; the others have their defaults."""

_INTO = f"object ({', '.join(_NEW)})"


class Objects:
    """Owns the table ``object`` and the next inode number.

    Invariants: an inode number is assigned only once; an object that is shown has a record, and
    one that is withdrawn has none. ``Names`` assigns the names, ``Records`` keeps the records.
    Every write happens in a transaction of the catalogue.
    """

    def __init__(
        self,
        database: Database,
        directories: Directories,
        placement: Placement,
        rows: ObjectQueries,
        names: Names,
        records: Records,
    ) -> None:
        self._database = database
        self._directories = directories
        self._placement = placement
        self._rows = rows
        self._names = names
        self._records = records
        self.load()

    def load(self) -> None:
        """Read the next inode number from the file, at the start and after a failed transaction."""
        self._rows.changed()
        sql = "SELECT seq FROM sqlite_sequence WHERE name = 'object'"
        self._next_ino: int = self._database.row(sql)[0] + 1

    def put(self, records: Iterable[Record], batch: ChangeCollector) -> None:
        """Apply each record, unless the catalogue has it, or a newer one of its object."""
        by_region: dict[str, list[Record]] = {}
        for record in records:
            by_region.setdefault(record.region, []).append(record)
        for name, some in by_region.items():
            region = self._directories.region_index(name)
            known = self._rows.known(region, [record.id for record in some])
            fresh = [record for record in some if record.id not in known]
            others = [record for record in some if record.id in known]
            if fresh:
                page = prepare(Page(fresh, len(fresh), last=True), name, region, self._placement)
                others += [fresh[at] for at in self._insert(page, region, batch, fresh.__getitem__)]
            for record in others:
                row = known.pop(record.id, None)  # a later record of this object meets another row
                if row is None or _is_news(row, *_version(record)):
                    self._put(record, region, batch)

    def take(self, page: PreparedPage, batch: ChangeCollector) -> None:
        """Apply the records of a prepared page, as :meth:`put` does."""
        region = self._directories.region_index(page.region)
        known = self._rows.known(region, page.ids[:1])  # pages overlap by one record
        left = self._insert(page, region, batch, page.record, known)
        if len(left) > len(known):
            known = self._rows.known(region, [page.ids[at] for at in left])
        for at in left:
            row = known.get(page.ids[at])
            if row is None or _is_news(row, page.updated[at], page.states[at], page.crcs[at]):
                self._put(page.record(at), region, batch)

    def _insert(
        self,
        page: PreparedPage,
        region: int,
        batch: ChangeCollector,
        record: Callable[[int], Record],
        known: Collection[str] = (),
    ) -> list[int]:
        """Add those objects of a page that are new and whose plain names are free: nearly all.

        Return the positions of the others. ``record`` returns the record at a position; ``known``
        has ids that need not be tried.
        """
        first, count = self._next_ino, len(page.ids)
        rows = zip(
            range(first, first + count), repeat(region), page.ids, page.parents, page.names,
            page.sizes, page.created, page.updated, page.states, page.crcs, page.fingerprints,
            strict=False,
        )  # fmt: skip
        shown = [row for row in rows if row[3] is not None and row[2] not in known]
        new = [row[0] for row in shown]
        if self._database.insert(_INTO, shown, " ON CONFLICT DO NOTHING") < len(shown):
            sql = "SELECT ino FROM object WHERE ino >= ? ORDER BY ino"
            new = [ino for (ino,) in self._database.rows(sql, first)]
        self._next_ino = new[-1] + 1 if new else first
        self._records.add(first, page.batches, {*new})
        added = [ino - first for ino in new]
        for parent in {page.parents[at] for at in added} - {None}:
            some = [at for at in added if page.parents[at] == parent]
            newest_ms = max(max(page.created[at], page.updated[at]) for at in some)
            size = sum(page.sizes[at] for at in some)
            batch.count(parent, len(some), size, newest_ms, moved=True)
            if self._rows.collects(parent):
                self._rows.added(parent, _entries(page, first, some))
            for at in () if batch.listed else some:
                batch.appeared(first + at, parent, page.names[at], record(at))
        return sorted({*range(count)}.difference(ino - first for ino in new))

    def _put(self, record: Record, region: int, batch: ChangeCollector) -> None:
        """Apply one record, unless the catalogue has it or a newer one."""
        row = self._rows.find(region, record.id) or self._add(record, region)
        if _is_news(row, *_version(record)):
            self._update(row, record, batch)

    def _add(self, record: Record, region: int) -> Row:
        """Add an object that is not shown yet."""
        times = (record.created_ms, record.updated_ms)
        row = Row(self._next_ino, region, record.id, None, None, record.size, *times, "", 0, "")
        self._next_ino += 1
        self._database.insert(_INTO, [row[: len(_NEW)]])
        return row

    def _update(self, row: Row, record: Record, batch: ChangeCollector) -> None:
        self._rows.changed()
        content = record.fingerprint
        version = _version(record)
        measured = bool(row.measured) and row.fingerprint == content
        if measured:
            record = msgspec.structs.replace(record, size=row.size)
        parent = self._placement.parent(record, row.region)
        if row.place and (row.parent, row.created_ms) != (parent, record.created_ms):
            self._names.vacate(row, batch)
        name, wanted = None, None
        if parent is not None:
            name, wanted = self._names.free_name(record, parent, row.ino, batch)
        listed = record.state in LISTED_STATES
        replaced = row.replaced or (listed and row.fingerprint not in ("", content))
        self._database.run(
            "UPDATE object SET parent = ?, name = ?, wanted = ?, size = ?, created_ms = ?,"
            " updated_ms = ?, state = ?, crc = ?, fingerprint = ?, replaced = ?, measured = ?"
            " WHERE ino = ?",
            *(parent, name, wanted, record.size, record.created_ms, *version),
            content if listed else row.fingerprint,
            *(int(replaced), int(measured), row.ino),
        )
        self._records.replace(row.ino, record.source if listed else None)
        self._report(row, record, (parent, name), batch)
        if row.parent == parent and row.name != name:
            self._names.pass_on_name(row, batch)

    def _report(
        self, row: Row, record: Record, now: tuple[int | None, str | None], batch: ChangeCollector
    ) -> None:
        """Add to the batch what an update changes in the tree and in the counts of days."""
        parent, name = now
        when_ms = max(record.created_ms, record.updated_ms)
        if parent is None or name is None:
            if row.place or record.state in WITHDRAWN_STATES:
                self._went(row, record, record.updated_ms, batch)
        elif row.place is None:
            batch.count(parent, 1, record.size, when_ms, moved=True)
            if not batch.listed:
                batch.appeared(row.ino, parent, name, record)
        else:
            entries = (row.place, (parent, name)) if row.place != now else ()
            batch.count(row.place[0], -1, -row.size, when_ms, moved=bool(entries))
            batch.count(parent, 1, record.size, when_ms, moved=bool(entries))
            content = row.fingerprint != record.fingerprint
            batch.tell(ObjectChange(CHANGED, row.ino, parent, name, record, content, entries))

    def _went(self, row: Row, record: Record | None, when_ms: int, batch: ChangeCollector) -> None:
        """Add an object that left the tree; nobody is told if its ``record`` is unknown."""
        if row.place:
            batch.count(row.place[0], -1, -row.size, when_ms, moved=True)
        if record is not None:
            entries = (row.place,) if row.place else ()
            place = row.place or (0, "")
            batch.tell(ObjectChange(REMOVED, row.ino, *place, record, False, entries))

    def drop(self, row: Row, when_ms: int, batch: ChangeCollector) -> None:
        """Remove an object that a complete listing, at ``when_ms``, did not have."""
        record = self._rows.readable(row)
        self._rows.changed()
        self._names.vacate(row, batch)
        self._database.run("UPDATE object SET state = ?, crc = 0 WHERE ino = ?", MISSING, row.ino)
        self._records.replace(row.ino, None)
        self._went(row, record, when_ms, batch)

    def resize(self, row: Row, size: int, batch: ChangeCollector) -> None:
        """Store the real length of an object's content, if its record states another one."""
        self._rows.changed()
        self._database.run("UPDATE object SET size = ?, measured = 1 WHERE ino = ?", size, row.ino)
        if row.parent is not None:
            batch.count(row.parent, 0, size - row.size, 0, moved=False)

    def expect(self, row: Row) -> None:
        """Have the next record of an object applied, whatever is stored of it now."""
        self._database.run("UPDATE object SET crc = 0 WHERE ino = ?", row.ino)


def _entries(page: PreparedPage, first: int, positions: Iterable[int]) -> Iterable[Entry]:
    """Yield the entries of new objects of a page, of which the first would have ``first``."""
    for at in positions:
        archived = page.states[at] == State.ARCHIVED
        times = page.created[at], page.updated[at]
        yield Entry(first + at, page.names[at], False, page.sizes[at], *times, archived)


def _version(record: Record) -> tuple[int, str, int]:
    """Return what :func:`_is_news` compares: ``updatedTime``, state and CRC-32."""
    return record.updated_ms, record.state, zlib.crc32(record.source)


def _is_news(row: Row, updated_ms: int, state: str, crc: int) -> bool:
    """Return whether a record of an object has anything new.

    Of two records with the same ``updatedTime`` (which has whole seconds) the one received later
    wins. But a withdrawn object stays withdrawn: a page requested earlier may still show it.
    """
    if updated_ms != row.updated_ms:
        return updated_ms > row.updated_ms
    return row.state not in WITHDRAWN_STATES and (row.state, row.crc) != (state, crc)
