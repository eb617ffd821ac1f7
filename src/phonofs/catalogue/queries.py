"""Reads the objects of the catalogue: rows, entries and records. Part of the catalogue."""

# ruff: noqa: S608 - only constants are put into SQL texts here, never values

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple
from weakref import WeakValueDictionary

import msgspec

from phonofs.catalogue.database import AMONG, Database, among
from phonofs.catalogue.directories import Directories
from phonofs.catalogue.record_codec import Damaged
from phonofs.catalogue.records import Records
from phonofs.catalogue.types import Details, Entry, Listed
from phonofs.errors import Malformed
from phonofs.model import Record, State
from phonofs.service.records import parse_record

_ENTRY = "ino, name, size, iif(replaced, updated_ms, created_ms), updated_ms, state"

_LISTED = (
    "ino, name, size, iif(replaced, updated_ms, created_ms), updated_ms, created_ms, id, state,"
    " fingerprint"
)

_CLOSE = 5000
"""Inode numbers searched for the next objects of a day: half a millisecond."""

RECORDS_KEPT = 1024
"""Parsed records kept in memory: if many files are read in sequence, each record is needed first
for prefetching and again when its file is opened; an S3 client asks for its head and then for it.
5 KB each."""

ROWS_KEPT = 4096
"""Rows kept in memory, by number and by name, 0.6 KB each. To look one up takes 20 µs, a seventh of
a small GET, and an S3 client often asks for the head of an object before its content."""

LARGEST_KEPT = 20_000
"""The most entries of a day kept in memory after it was read, 0.3 KB each."""

MOST_COLLECTED = 16
"""Days whose entries are collected at a time. Together they have ``LARGEST_KEPT`` at most."""


class Row(NamedTuple):
    """A row of ``object``: see ``schema``."""

    ino: int
    region: int
    id: str
    parent: int | None
    name: str | None
    size: int
    created_ms: int
    updated_ms: int
    state: str
    crc: int
    fingerprint: str
    wanted: str | None = None
    replaced: int = 0
    measured: int = 0

    @property
    def order(self) -> tuple[int, str]:
        """The sort key that decides which of several objects has the plain name: the first."""
        return self.created_ms, self.id

    @property
    def place(self) -> tuple[int, str] | None:
        """The day it is shown in, and its name there; None if it is not shown."""
        return None if self.parent is None or self.name is None else (self.parent, self.name)


_SELECT = f"SELECT {', '.join(Row._fields)} FROM object WHERE"


class _Listing(list[Listed]):
    """A list that can be referred to weakly."""

    __slots__ = ("__weakref__",)


class ObjectQueries:
    """Reads the table ``object``, which ``Objects`` writes.

    Owns five caches. The records parsed last, each with its row: a record is valid only for exactly
    that row, which has its checksum. The rows read last, the entries of the day read last, and the
    listings that somebody has: valid until a row changes. The entries of days that are being
    listed, in any order: complete, because whoever writes the table says what it added, or that it
    did more.
    """

    def __init__(self, database: Database, directories: Directories, records: Records) -> None:
        self._database = database
        self._directories = directories
        self._records = records
        self._read: dict[int, tuple[Row, Record]] = {}
        self._known: dict[int | tuple[int, str], Row] = {}
        self._known_in: int | None = None
        self._day: tuple[int, int, Sequence[Entry]] | None = None
        self._collected: dict[int, list[Entry]] = {}
        self._listings: WeakValueDictionary[tuple[int, int | None], _Listing] = (
            WeakValueDictionary()
        )

    # entries

    def entry(self, ino: int) -> Entry | None:
        """Return the entry of an object that is shown, or None."""
        sql = f"SELECT {_ENTRY} FROM object WHERE ino = ? AND parent IS NOT NULL"
        row = self._database.row(sql, ino)
        return _entry(*row) if row else None

    def lookup(self, parent: int, name: str) -> Entry | None:
        """Return the entry called ``name`` in a day, or None. What is looked up is opened next."""
        known = self._rows_known()
        row = known.get((parent, name)) or self.holder(parent, name)
        if row is None:
            return None
        known[row.ino] = known[parent, name] = row
        mtime_ms = row.updated_ms if row.replaced else row.created_ms
        return _entry(row.ino, name, row.size, mtime_ms, row.updated_ms, row.state)

    def children(self, parent: int) -> Sequence[Entry]:
        """Return the entries of a day, sorted by name. Callers must not change the result.

        The last day is cached: ``ls -l`` often follows ``ls``, and ``grep -r`` opens a directory
        twice.
        """
        state = self._database.state
        if self._day is not None and self._day[:2] == (parent, state):
            return self._day[2]
        collected = self._collected.pop(parent, None)
        if collected is not None:
            entries = sorted(collected, key=attrgetter("name"))
        else:
            entries = self._entries(parent)
        self._day = None
        if state is not None and len(entries) <= LARGEST_KEPT:
            self._day = parent, state, entries
        return entries

    def _entries(self, parent: int) -> list[Entry]:
        sql = f"SELECT {_ENTRY} FROM object WHERE parent = ? ORDER BY name"
        archived = str(State.ARCHIVED)
        return [  # a call for each takes twice as long
            Entry(ino, name, False, size, mtime_ms, ctime_ms, kind == archived)
            for ino, name, size, mtime_ms, ctime_ms, kind in self._database.rows(sql, parent)
        ]

    def collect(self, parent: int) -> None:
        """Collect the entries of a day from now on; :meth:`children` need not read them then."""
        self._collected.pop(parent, None)
        self._collected[parent] = self._entries(parent)
        while len(self._collected) > MOST_COLLECTED:
            del self._collected[next(iter(self._collected))]

    def collects(self, parent: int) -> bool:
        """Return whether the entries of a day are collected."""
        return parent in self._collected

    def added(self, parent: int, entries: Iterable[Entry]) -> None:
        """Note entries that were added to a day and changed no other row."""
        self._collected[parent] += entries
        while sum(map(len, self._collected.values())) > LARGEST_KEPT:
            del self._collected[next(iter(self._collected))]

    def changed(self) -> None:
        """Note that rows may have changed in any other way: nothing is collected any more."""
        self._collected.clear()

    def listed(self, parent: int) -> list[Listed]:
        """Return the objects of a day, sorted by name, with their details.

        Whoever asks while somebody has that list gets it, too: one of 10,000 objects takes 6 MB.
        Callers must not change the result.
        """
        state = self._database.state
        listing = self._listings.get((parent, state))
        if listing is not None:
            return listing
        sql = f"SELECT {_LISTED} FROM object WHERE parent = ? ORDER BY name"
        listing = _Listing(self._database.rows(sql, parent))
        if state is not None:
            self._listings[parent, state] = listing
        return listing

    def listed_from(self, parent: int, name: str, most: int, *, behind: bool) -> list[Listed]:
        """Return the next objects of a day by name, with their details: ``name`` too, or not."""
        where = f"parent = ? AND name {'>' if behind else '>='} ? ORDER BY name LIMIT ?"
        return self._database.rows(
            f"SELECT {_LISTED} FROM object WHERE {where}", parent, name, most
        )

    def details(self, inos: Sequence[int]) -> dict[int, Details]:
        """Return the details of these objects, by inode number; those not there are left out."""
        sql = (
            f"SELECT ino, region, id, created_ms, state, fingerprint FROM object WHERE ino {AMONG}"
        )
        rows = self._database.rows(sql, among(inos))
        names = self._directories.region_name
        return {ino: Details(names(region), *others) for ino, region, *others in rows}

    # rows

    def _rows(self, where: str, *values: object) -> list[Row]:
        return [Row(*row) for row in self._database.rows(f"{_SELECT} {where}", *values)]

    def _row(self, where: str, *values: object) -> Row | None:
        found = self._database.row(f"{_SELECT} {where}", *values)
        return Row(*found) if found else None

    def row(self, ino: int) -> Row | None:
        """Return the row of an object, shown or not; None if there is none."""
        known = self._rows_known()
        row = known.get(ino) or self._row("ino = ?", ino)
        if row is not None:
            known[ino] = row
        return row

    def _rows_known(self) -> dict[int | tuple[int, str], Row]:
        """Return the rows read since one changed last, by number, and by day and name.

        A new dict within a transaction, which may be undone.
        """
        state = self._database.state
        if state != self._known_in or state is None or len(self._known) > ROWS_KEPT:
            self._known, self._known_in = {}, state
        return self._known

    def find(self, region: int, id: str) -> Row | None:
        """Return the row of an object by the service's identifier, or None."""
        return self._row("region = ? AND id = ?", region, id)

    def holder(self, parent: int, name: str) -> Row | None:
        """Return the row of the object that has a name in a day, or None."""
        return self._row("parent = ? AND name = ?", parent, name)

    def called(self, parent: int, name: str) -> list[Row]:
        """Return the rows of the objects of a day with a name (in a rebuild several), the first
        created first.
        """
        return self._rows("parent = ? AND name = ? ORDER BY created_ms, id", parent, name)

    def wanting(self, parent: int, name: str) -> list[Row]:
        """Return the rows of the objects of a day that want a name, the first created first."""
        return self._rows("parent = ? AND wanted = ? ORDER BY created_ms, id", parent, name)

    def of_day(self, parent: int) -> list[Row]:
        """Return the rows of a day."""
        return self._rows("parent = ?", parent)

    def inos_of_day(self, parent: int) -> list[int]:
        """Return the inode numbers of the objects of a day, in order; quick also for 10,000."""
        sql = "SELECT ino FROM object WHERE parent = ? ORDER BY ino"
        return [ino for (ino,) in self._database.rows(sql, parent)]

    def following(self, ino: int, count: int) -> list[Row]:
        """Return the rows of the next ``count`` objects after ``ino``, shown or not."""
        return self._rows("ino > ? ORDER BY ino LIMIT ?", ino, count)

    def numbered(self, inos: Sequence[int]) -> list[Row]:
        """Return the current rows of these objects, shown or not."""
        return self._rows(f"ino {AMONG}", among(inos))

    def known(self, region: int, ids: Sequence[str]) -> dict[str, Row]:
        """Return the rows of the known ones of these identifiers, by identifier."""
        where = f"region = ? AND id {AMONG}"
        return {row.id: row for row in self._rows(where, region, among(ids))}

    # records

    def after(self, row: Row, count: int, *, by_inode: bool) -> list[tuple[int, Record]]:
        """Return the next readable objects of a day; by inode, only among nearby numbers."""
        shown = (row.parent, str(State.AVAILABLE))
        if by_inode:  # use the rowid: the index of names would need a sort each time
            where = "+parent = ? AND state = ? AND ino > ? AND ino <= ? ORDER BY ino LIMIT ?"
            found = self._rows(where, *shown, row.ino, row.ino + _CLOSE, count)
        else:
            where = "parent = ? AND state = ? AND name > ? ORDER BY name LIMIT ?"
            found = self._rows(where, *shown, row.name, count)
        pairs = ((other.ino, self.readable(other)) for other in found)
        return [(ino, record) for ino, record in pairs if record]

    def record(self, row: Row) -> Record:
        """Return the record of a row, with the size known now.

        Raises Damaged if the stored text is damaged or missing, Malformed if it cannot be parsed.
        """
        kept = self._read.get(row.ino)
        if kept is not None and kept[0] == row:
            return kept[1]
        source = self._records.get(row.ino, row.crc)
        record = parse_record(source, self._directories.region_name(row.region))
        record = msgspec.structs.replace(record, size=row.size, state=row.state)
        if len(self._read) >= RECORDS_KEPT and row.ino not in self._read:
            del self._read[next(iter(self._read))]
        self._read[row.ino] = row, record
        return record

    def readable(self, row: Row) -> Record | None:
        """Return the record of a row, or None if it is missing or damaged."""
        try:
            return self.record(row)
        except (Damaged, Malformed):
            return None


def _entry(ino: int, name: str, size: int, mtime_ms: int, ctime_ms: int, state: str) -> Entry:
    return Entry(ino, name, False, size, mtime_ms, ctime_ms, state == State.ARCHIVED)
