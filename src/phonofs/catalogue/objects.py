"""The objects of the catalogue: rows, names, inode numbers; part of the catalogue."""

# ruff: noqa: S608 - what is put into SQL texts here are constants, never values

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from phonofs.catalogue.database import Database
from phonofs.catalogue.folders import Delta
from phonofs.catalogue.packing import pack, unpack
from phonofs.catalogue.sight import Sight
from phonofs.catalogue.words import CHANGED, CREATED, REMOVED, Change, Entry
from phonofs.css.records import parse_record
from phonofs.errors import Malformed
from phonofs.model import LISTED_STATES, WITHDRAWN_STATES, Record, State


class Damaged(Malformed):
    """What the catalogue kept of a record is not what was put there."""


MISSING = "MISSING"
"""Our own state of an object that a complete listing did not have; the service has no such."""

_CLOSE = 5000
"""Inode numbers that are looked through for the next of a day: half a millisecond."""

COLUMNS = "ino, region, id, parent, name, rank, size, created_ms, updated_ms, state, crc"
_INSERT = f"INSERT INTO object ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
_ENTRY = "ino, name, size, created_ms, updated_ms, state"


class Row(NamedTuple):
    """A row of ``object``: see ``schema``."""

    ino: int
    region: int
    id: str
    parent: int | None
    name: str | None
    rank: int
    size: int
    created_ms: int
    updated_ms: int
    state: str
    crc: int

    @property
    def order(self) -> tuple[int, str]:
        """Who of several has the plain name: the one created first."""
        return self.created_ms, self.id


class Batch:
    """What one transaction does: changes in order, and what they mean for each day."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.deltas: dict[int, Delta] = {}

    def count(self, parent: int, objects: int, size: int, when_ms: int, *, moved: bool) -> None:
        """Objects and bytes more or less in a day; ``moved`` if a name came, went or changed."""
        delta = self.deltas.setdefault(parent, Delta())
        delta.objects += objects
        delta.size += size
        if moved:
            delta.moved = True
            delta.newest_ms = max(delta.newest_ms, when_ms)


class Objects:
    """Owns the tables ``object`` and ``source`` and the next inode number.

    Invariants: ``(parent, name)`` is unique; of the objects of a day whose plain names are equal
    the one created first has it (rank 0), the others a longer one (rank 1 or more); a row with
    a parent has a source. Every write happens in a transaction of the catalogue.
    """

    def __init__(self, database: Database, sight: Sight) -> None:
        self._database = database
        self._sight = sight
        sql = "SELECT seq FROM sqlite_sequence WHERE name = 'object'"
        self._next_ino: int = database.row(sql)[0] + 1

    def recover(self) -> None:
        """After a transaction that failed: the number given out last is the file's again."""
        sql = "SELECT seq FROM sqlite_sequence WHERE name = 'object'"
        self._next_ino = self._database.row(sql)[0] + 1

    # reading

    def entry(self, ino: int) -> Entry | None:
        """An object that is shown."""
        sql = f"SELECT {_ENTRY} FROM object WHERE ino = ? AND parent IS NOT NULL"
        row = self._database.row(sql, ino)
        return _entry(*row) if row else None

    def lookup(self, parent: int, name: str) -> Entry | None:
        """The object called ``name`` in a day."""
        sql = f"SELECT {_ENTRY} FROM object WHERE parent = ? AND name = ?"
        row = self._database.row(sql, parent, name)
        return _entry(*row) if row else None

    def children(self, parent: int) -> list[Entry]:
        """The objects of a day, sorted by name."""
        sql = f"SELECT {_ENTRY} FROM object WHERE parent = ? ORDER BY name"
        return [_entry(*row) for row in self._database.rows(sql, parent)]

    def row(self, ino: int) -> Row | None:
        """The row of an object, shown or not."""
        found = self._database.row(f"SELECT {COLUMNS} FROM object WHERE ino = ?", ino)
        return Row(*found) if found else None

    def find(self, region: int, id: str) -> Row | None:
        """The row of an object by the service's identifier."""
        sql = f"SELECT {COLUMNS} FROM object WHERE region = ? AND id = ?"
        found = self._database.row(sql, region, id)
        return Row(*found) if found else None

    def of_day(self, parent: int) -> list[Row]:
        """The rows of a day."""
        sql = f"SELECT {COLUMNS} FROM object WHERE parent = ?"
        return [Row(*row) for row in self._database.rows(sql, parent)]

    def after(self, row: Row, count: int, *, by_inode: bool) -> list[tuple[int, Record]]:
        """The next readable objects of a day; by inode only among those that came close by."""
        if by_inode:  # by the rowid: the index of names would have to be sorted each time
            where = "ino > ? AND ino <= ? AND +parent = ? AND state = ? ORDER BY ino"
            values: tuple[int | str | None, ...] = (row.ino, row.ino + _CLOSE, row.parent)
        else:
            where = "name > ? AND parent = ? AND state = ? ORDER BY name"
            values = (row.name, row.parent)
        sql = f"SELECT {COLUMNS} FROM object WHERE {where} LIMIT ?"
        found = self._database.rows(sql, *values, str(State.AVAILABLE), count)
        pairs = ((other.ino, self._readable(other)) for other in (Row(*one) for one in found))
        return [(ino, record) for ino, record in pairs if record]

    def record(self, row: Row) -> Record | None:
        """The record of a row, with the size as it is known by now; None where none is kept.

        Raises Damaged when what is kept is not what was put there.
        """
        found = self._database.row("SELECT text FROM source WHERE ino = ?", row.ino)
        return self.unpacked(row, found[0]) if found else None

    def _readable(self, row: Row) -> Record | None:
        """The record of a row where it is kept and whole; what replaces it needs no more."""
        try:
            return self.record(row)
        except Malformed:
            return None

    def unpacked(self, row: Row, packed: bytes) -> Record:
        """The record of a row from its packed source."""
        try:
            source = unpack(packed)
        except ValueError as error:
            raise Damaged(f"object {row.id} in the catalogue is damaged: {error}") from error
        if zlib.crc32(source) != row.crc:
            raise Damaged(f"object {row.id} in the catalogue is damaged: wrong checksum")
        record = parse_record(source, self._sight.region_name(row.region))
        return msgspec.structs.replace(record, size=row.size, state=row.state)

    # writing

    def put(self, records: Iterable[Record], batch: Batch) -> None:
        """Take in records, each unless something as new or newer is known."""
        fresh: list[Record] = []
        for record in records:
            region = self._sight.region_index(record.region)
            row = self.find(region, record.id)
            if row is None:
                fresh.append(record)
            elif not _outdated(row, record, crc := zlib.crc32(record.source)):
                self._update(row, record, crc, batch)
        for record in self._add_plain(fresh, batch):
            region = self._sight.region_index(record.region)
            row = self.find(region, record.id)
            crc = zlib.crc32(record.source)
            if row is None:
                self._add(record, region, crc, batch)
            elif not _outdated(row, record, crc):
                self._update(row, record, crc, batch)

    def _add_plain(self, records: Sequence[Record], batch: Batch) -> list[Record]:
        """Add at once the new objects whose plain names are free: nearly all there are.

        Returns the others: not shown, of an equal name, or twice among ``records``.
        """
        others: list[Record] = []
        plain: dict[tuple[int, str], Record] = {}
        ids: set[tuple[str, str]] = set()
        for record in records:
            parent = self._sight.parent(record, self._sight.region_index(record.region))
            place = (parent, self._sight.name(record, 0)) if parent is not None else None
            identity = (record.region, record.id)
            if place is None or place in plain or identity in ids:
                others.append(record)
            else:
                plain[place] = record
                ids.add(identity)
        for place in [place for place in plain if self._holder(*place)]:
            others.append(plain.pop(place))
        self._insert(plain, batch)
        return others

    def _insert(self, plain: Mapping[tuple[int, str], Record], batch: Batch) -> None:
        rows, sources = [], []
        for (parent, name), record in plain.items():
            ino, crc = self._next_ino, zlib.crc32(record.source)
            self._next_ino += 1
            region = self._sight.region_index(record.region)
            times = (record.created_ms, record.updated_ms)
            rows.append(
                (ino, region, record.id, parent, name, 0, record.size, *times, record.state, crc)
            )
            sources.append((ino, pack(record.source)))
            self._appeared(ino, parent, name, record, batch)
        self._database.run_many(_INSERT, rows)
        self._database.run_many("INSERT INTO source (ino, text) VALUES (?, ?)", sources)

    def _add(self, record: Record, region: int, crc: int, batch: Batch) -> None:
        ino, parent = self._next_ino, self._sight.parent(record, region)
        name, rank = None, 0
        if parent is not None:
            name, rank = self._free_name(record, parent, ino, batch)
        self._next_ino += 1
        self._database.run(
            _INSERT,
            *(ino, region, record.id, parent, name, rank, record.size),
            *(record.created_ms, record.updated_ms, record.state, crc),
        )
        self._keep_source(ino, record)
        if parent is not None and name is not None:
            self._appeared(ino, parent, name, record, batch)
        elif record.state in WITHDRAWN_STATES:
            batch.changes.append(Change(REMOVED, ino, 0, "", record))

    def _appeared(self, ino: int, parent: int, name: str, record: Record, batch: Batch) -> None:
        when = max(record.created_ms, record.updated_ms)
        batch.count(parent, 1, record.size, when, moved=True)
        entries = ((parent, name),)
        batch.changes.append(Change(CREATED, ino, parent, name, record, False, entries))

    def _update(self, row: Row, record: Record, crc: int, batch: Batch) -> None:
        old = self._readable(row)
        size = row.size if old and _same_content(old, record) else record.size
        record = msgspec.structs.replace(record, size=size)
        parent = self._sight.parent(record, row.region)
        name, rank = None, 0
        if row.parent is not None and (row.parent, row.created_ms) != (parent, record.created_ms):
            self._vacate(row, batch)
        if parent is not None:
            name, rank = self._free_name(record, parent, row.ino, batch)
        self._database.run(
            "UPDATE object SET parent = ?, name = ?, rank = ?, size = ?, created_ms = ?,"
            " updated_ms = ?, state = ?, crc = ? WHERE ino = ?",
            *(parent, name, rank, size, record.created_ms, record.updated_ms),
            *(record.state, crc, row.ino),
        )
        self._keep_source(row.ino, record)
        self._report(row, old, record, parent, name, batch)
        if row.parent == parent and row.name != name:
            self._pass_on_name(row, batch)

    def _report(
        self,
        row: Row,
        old: Record | None,
        record: Record,
        parent: int | None,
        name: str | None,
        batch: Batch,
    ) -> None:
        """The change that an update means for the tree, and for the days."""
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
        batch.changes.append(Change(CHANGED, row.ino, parent, name, record, content, entries))

    def _went(self, row: Row, record: Record, batch: Batch) -> None:
        parent, name = row.parent or 0, row.name or ""
        entries = ((parent, name),) if parent else ()
        batch.changes.append(Change(REMOVED, row.ino, parent, name, record, False, entries))
        if parent:
            batch.count(parent, -1, -row.size, record.updated_ms, moved=True)

    def drop(self, row: Row, when_ms: int, batch: Batch) -> None:
        """Take an object out that a complete listing, at ``when_ms``, did not have."""
        record = self._readable(row)
        self._vacate(row, batch)
        sql = "UPDATE object SET state = ?, crc = 0 WHERE ino = ?"
        self._database.run(sql, MISSING, row.ino)
        self._database.run("DELETE FROM source WHERE ino = ?", row.ino)
        if record is not None:
            self._went(row, msgspec.structs.replace(record, updated_ms=when_ms), batch)
            batch.changes[-1].record = record

    def resize(self, row: Row, size: int, batch: Batch) -> None:
        """The real length of an object's content, where it is not what its record says."""
        self._database.run("UPDATE object SET size = ? WHERE ino = ?", size, row.ino)
        if row.parent is not None:
            batch.count(row.parent, 0, size - row.size, 0, moved=False)

    def expect(self, row: Row) -> None:
        """Take the record of a row anew when it is told next, whatever was kept of it."""
        self._database.run("UPDATE object SET crc = 0 WHERE ino = ?", row.ino)

    def _keep_source(self, ino: int, record: Record) -> None:
        """What is withdrawn is not kept."""
        if record.state in LISTED_STATES:
            sql = "INSERT OR REPLACE INTO source (ino, text) VALUES (?, ?)"
            self._database.run(sql, ino, pack(record.source))
        else:
            self._database.run("DELETE FROM source WHERE ino = ?", ino)

    # names

    def _free_name(self, record: Record, parent: int, ino: int, batch: Batch) -> tuple[str, int]:
        """Its name in a day, and which variant; a later object gives way to an earlier one."""
        name = self._sight.name(record, 0)
        holder = self._holder(parent, name)
        if holder is None or holder.ino == ino:
            return name, 0
        if holder.rank == 0 and (record.created_ms, record.id) < holder.order:
            self._rename(holder, None, 0)
            self._give_way(holder, ino, name, batch)
            return name, 0
        return self._longer_name(record, parent, ino)

    def _longer_name(self, record: Record, parent: int, ino: int, but: str = "") -> tuple[str, int]:
        for rank in range(1, 1000):
            name = self._sight.name(record, rank)
            holder = self._holder(parent, name)
            if name != but and (holder is None or holder.ino == ino):
                return name, rank
        raise AssertionError("a name with a hash of the id is free")

    def lengthen(self, row: Row) -> None:
        """Give an object, whose plain name another one has, a longer one."""
        record = self.record(row)
        assert record is not None
        assert row.parent is not None
        name, rank = self._longer_name(record, row.parent, row.ino, but=row.name or "")
        self._rename(row, name, rank)

    def _give_way(self, holder: Row, ino: int, name: str, batch: Batch) -> None:
        """``holder`` had the plain name that now goes to ``ino``."""
        record = self.record(holder)
        assert record is not None, "what is shown has a source"
        assert holder.parent is not None
        longer, rank = self._longer_name(record, holder.parent, holder.ino, but=name)
        self._renamed(holder, longer, rank, record, batch)

    def _renamed(self, row: Row, name: str, rank: int, record: Record, batch: Batch) -> None:
        self._rename(row, name, rank)
        assert row.parent is not None
        assert row.name is not None
        entries = ((row.parent, row.name), (row.parent, name))
        batch.changes.append(Change(CHANGED, row.ino, row.parent, name, record, False, entries))
        batch.count(row.parent, 0, 0, 0, moved=True)

    def _rename(self, row: Row, name: str | None, rank: int) -> None:
        sql = "UPDATE object SET name = ?, rank = ? WHERE ino = ?"
        self._database.run(sql, name, rank, row.ino)

    def _vacate(self, row: Row, batch: Batch) -> None:
        """Take an object out of its day; who waited for its plain name gets it."""
        sql = "UPDATE object SET parent = NULL, name = NULL, rank = 0 WHERE ino = ?"
        self._database.run(sql, row.ino)
        self._pass_on_name(row, batch)

    def _pass_on_name(self, row: Row, batch: Batch) -> None:
        """The plain name ``row`` had goes to the first of those that would have it."""
        if row.parent is None or row.rank or row.name is None or self._holder(row.parent, row.name):
            return
        sql = f"SELECT {COLUMNS} FROM object WHERE parent = ? AND rank > 0"
        waiting = (Row(*found) for found in self._database.rows(sql, row.parent))
        for other in sorted(waiting, key=lambda other: other.order):
            record = self.record(other)
            if record is not None and self._sight.name(record, 0) == row.name:
                self._renamed(other, row.name, 0, record, batch)
                return

    def _holder(self, parent: int, name: str) -> Row | None:
        sql = f"SELECT {COLUMNS} FROM object WHERE parent = ? AND name = ?"
        found = self._database.row(sql, parent, name)
        return Row(*found) if found else None


def _outdated(row: Row, record: Record, crc: int) -> bool:
    """Whether ``record`` says nothing new.

    Of two with the same ``updatedTime`` (it has whole seconds) the one that comes later counts,
    but what was withdrawn stays so: a page that was on its way may still show it.
    """
    if record.updated_ms != row.updated_ms:
        return record.updated_ms < row.updated_ms
    return row.state in WITHDRAWN_STATES or (row.state == record.state and row.crc == crc)


def _same_content(old: Record, new: Record) -> bool:
    """Whether the size found out by reading still counts: the service promises the same bytes."""
    return bool(new.checksum) and old.checksum == new.checksum


def _entry(ino: int, name: str, size: int, created_ms: int, updated_ms: int, state: str) -> Entry:
    return Entry(ino, name, False, size, created_ms, updated_ms, state == State.ARCHIVED)
