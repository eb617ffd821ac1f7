"""Reads the rows of objects. Part of the catalogue."""

# ruff: noqa: S608 - only constants are put into SQL texts here, never values

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import msgspec
from cachetools import LRUCache

from phonofs.catalogue.database import MOST_VALUES, Database
from phonofs.catalogue.records import RecordStore
from phonofs.catalogue.regions import Regions
from phonofs.catalogue.types import Entry
from phonofs.errors import Malformed
from phonofs.model import Record, State
from phonofs.service.records import parse_record

FIRST_COLUMNS = "ino, region, id, parent, name, rank, size, created_ms, updated_ms, state, crc"
"""The columns set for a new object; the others have their defaults."""

COLUMNS = f"{FIRST_COLUMNS}, replaced, content"
_ENTRY = "ino, name, size, iif(replaced, updated_ms, created_ms), updated_ms, state"

_AT_ONCE = MOST_VALUES - 1
"""Values looked for in one query, which has the region or the day, too."""

_CLOSE = 5000
"""Inode numbers searched for the next objects of a day: half a millisecond."""


_Value = TypeVar("_Value")


class Damaged(Exception):
    """The stored text of a record is damaged or missing."""


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
    replaced: int
    content: int

    @property
    def order(self) -> tuple[int, str]:
        """The sort key that decides which of several objects has the plain name: the first."""
        return self.created_ms, self.id


RECORDS_KEPT = 128
"""Parsed records kept in memory: if many files are read in sequence, each record is needed first
for prefetching and again when its file is opened."""

LARGEST_KEPT = 20_000
"""The most entries of a day kept in memory after it was read, 0.3 KB each."""


class CatalogueQueries:
    """Reads the table ``object``, which ``Objects`` writes.

    Owns two caches. The records read last, each with its row: a record is valid only for exactly
    that row, which has its checksum. The entries of the day read last: valid until a row changes.
    """

    def __init__(self, database: Database, regions: Regions, records: RecordStore) -> None:
        self._database = database
        self._regions = regions
        self._records = records
        self._read: LRUCache[int, tuple[Row, Record]] = LRUCache(RECORDS_KEPT)
        self._day: tuple[int, int, Sequence[Entry]] | None = None

    def entry(self, ino: int) -> Entry | None:
        """Return the entry of an object that is shown, or None."""
        sql = f"SELECT {_ENTRY} FROM object WHERE ino = ? AND parent IS NOT NULL"
        row = self._database.row(sql, ino)
        return _entry(*row) if row else None

    def lookup(self, parent: int, name: str) -> Entry | None:
        """Return the entry called ``name`` in a day, or None."""
        sql = f"SELECT {_ENTRY} FROM object WHERE parent = ? AND name = ?"
        row = self._database.row(sql, parent, name)
        return _entry(*row) if row else None

    def children(self, parent: int) -> Sequence[Entry]:
        """Return the entries of a day, sorted by name. Callers must not change the result.

        The last day is cached: ``ls -l`` often follows ``ls``, and ``grep -r`` opens a directory
        twice.
        """
        state = self._database.state
        if self._day is not None and self._day[:2] == (parent, state):
            return self._day[2]
        sql = f"SELECT {_ENTRY} FROM object WHERE parent = ? ORDER BY name"
        entries = [_entry(*row) for row in self._database.rows(sql, parent)]
        self._day = None
        if state is not None and len(entries) <= LARGEST_KEPT:
            self._day = parent, state, entries
        return entries

    def row(self, ino: int) -> Row | None:
        """Return the row of an object, shown or not; None if there is none."""
        found = self._database.row(f"SELECT {COLUMNS} FROM object WHERE ino = ?", ino)
        return Row(*found) if found else None

    def numbered(self, inos: Sequence[int]) -> list[Row]:
        """Return the current rows of these objects, shown or not."""
        found: list[Row] = []
        for some in _some(inos):
            sql = f"SELECT {COLUMNS} FROM object WHERE ino IN ({_marks(some)})"
            found.extend(Row(*row) for row in self._database.rows(sql, *some))
        return found

    def find(self, region: int, id: str) -> Row | None:
        """Return the row of an object by the service's identifier, or None."""
        sql = f"SELECT {COLUMNS} FROM object WHERE region = ? AND id = ?"
        found = self._database.row(sql, region, id)
        return Row(*found) if found else None

    def known(self, region: int, ids: Sequence[str]) -> dict[str, Row]:
        """Return the rows of the known ones of these identifiers, by identifier."""
        found: dict[str, Row] = {}
        for some in _some(ids):
            sql = f"SELECT {COLUMNS} FROM object WHERE region = ? AND id IN ({_marks(some)})"
            rows = self._database.rows(sql, region, *some)
            found.update((row[2], Row(*row)) for row in rows)
        return found

    def taken(self, parent: int, names: Sequence[str]) -> set[str]:
        """Return those of ``names`` that are taken in a day."""
        found: set[str] = set()
        for some in _some(names):
            sql = f"SELECT name FROM object WHERE parent = ? AND name IN ({_marks(some)})"
            found.update(name for (name,) in self._database.rows(sql, parent, *some))
        return found

    def of_day(self, parent: int) -> list[Row]:
        """Return the rows of a day."""
        sql = f"SELECT {COLUMNS} FROM object WHERE parent = ?"
        return [Row(*row) for row in self._database.rows(sql, parent)]

    def after(self, row: Row, count: int, *, by_inode: bool) -> list[tuple[int, Record]]:
        """Return the next readable objects of a day; by inode, only among nearby numbers."""
        if by_inode:  # use the rowid: the index of names would need a sort each time
            where = "ino > ? AND ino <= ? AND +parent = ? AND state = ? ORDER BY ino"
            values: tuple[int | str | None, ...] = (row.ino, row.ino + _CLOSE, row.parent)
        else:
            where = "name > ? AND parent = ? AND state = ? ORDER BY name"
            values = (row.name, row.parent)
        sql = f"SELECT {COLUMNS} FROM object WHERE {where} LIMIT ?"
        found = self._database.rows(sql, *values, str(State.AVAILABLE), count)
        pairs = ((other.ino, self.readable(other)) for other in (Row(*one) for one in found))
        return [(ino, record) for ino, record in pairs if record]

    def record(self, row: Row) -> Record | None:
        """Return the record of a row, with the size known now; None if none is stored.

        Raises Damaged if the stored text is damaged or missing, Malformed if it cannot be parsed.
        """
        kept = self._read.get(row.ino)
        if kept is not None and kept[0] == row:
            return kept[1]
        try:
            source = self._records.get(row.ino)
        except ValueError as error:
            raise Damaged(f"object {row.id} in the catalogue is damaged: {error}") from error
        if source is None:
            if row.parent is not None:
                raise Damaged(f"object {row.id} in the catalogue is damaged: its record is gone")
            return None
        record = self._parsed(row, source)
        self._read[row.ino] = row, record
        return record

    def readable(self, row: Row) -> Record | None:
        """Return the record of a row, or None if it is missing or damaged."""
        try:
            return self.record(row)
        except (Damaged, Malformed):
            return None

    def _parsed(self, row: Row, source: bytes) -> Record:
        if zlib.crc32(source) != row.crc:
            raise Damaged(f"object {row.id} in the catalogue is damaged: wrong checksum")
        record = parse_record(source, self._regions.region_name(row.region))
        return msgspec.structs.replace(record, size=row.size, state=row.state)

    def holder(self, parent: int, name: str) -> Row | None:
        """Return the row of the object that has a name in a day, or None."""
        sql = f"SELECT {COLUMNS} FROM object WHERE parent = ? AND name = ?"
        found = self._database.row(sql, parent, name)
        return Row(*found) if found else None


def _some(values: Sequence[_Value]) -> Iterator[Sequence[_Value]]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _entry(ino: int, name: str, size: int, mtime_ms: int, ctime_ms: int, state: str) -> Entry:
    return Entry(ino, name, False, size, mtime_ms, ctime_ms, state == State.ARCHIVED)
