"""The index of the cache: which blocks of which object are on disk, and which was used last.

One SQLite connection, used on the event loop only: each call is short (10 µs for a row by its key).
A killed process loses no row. A power cut may lose the last ones, because nothing syncs them; then
their files are orphans, which the maintenance task removes. A block that did not reach the disk is
found by its CRC. Nothing in a damaged index is trusted: a new one is made, and all files that the
old one had rows for are removed.

``object.open`` is set before a byte of an object is written, and cleared when its row is final: so
after a kill the objects with an unknown charge are found without a scan. ``object.used`` increases
with every use: it is the order of eviction.
"""

import contextlib
import hashlib
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import starmap
from typing import Any, NamedTuple

from phonofs.cache import index_file
from phonofs.cache.index_file import is_damage, say_damaged
from phonofs.model import Record
from phonofs.sqlite_file import number, probe

KEY_BYTES = 16

Packed = bytes
"""Numbers as little-endian or big-endian u32, as this machine stores them."""


@lru_cache(maxsize=4096)  # a small file is opened again and again
def key_of(region: str, id: str, fingerprint: str) -> bytes:
    """Return the key of a content in the cache: a hash, so no text of the service is in a path."""
    text = "\0".join((region, id, fingerprint)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=KEY_BYTES).digest()


def storable(text: str) -> str:
    """Return the text without lone surrogates, which JSON may hold and SQLite refuses."""
    return text.encode("utf-8", "backslashreplace").decode()


class Row(NamedTuple):
    """What the index knows of one content; one that it does not know has the defaults.

    key       a hash of region, id and fingerprint; names the file
    size      length of the object in bytes
    bytes     how many of them are on disk
    verified  whether the whole object had the right checksum
    present   the blocks on disk, packed
    crcs      their CRCs, packed
    charge    bytes charged to the budget for its file
    open      whether more may be written in this run
    """

    key: bytes
    region: str
    id: str
    checksum: str
    size: int
    bytes: int = 0
    verified: bool = False
    present: Packed = b""
    crcs: Packed = b""
    charge: int = 0
    open: bool = False

    @classmethod
    def of(cls, record: Record) -> "Row":
        """Return the row of an object that the index does not know."""
        key = key_of(record.region, record.id, record.fingerprint)
        region, id, checksum = map(storable, (record.region, record.id, record.checksum))
        return cls(key, region, id, checksum, record.size)


_READ = (
    "SELECT key, region, id, checksum, size, bytes, verified, present, crcs, charge, open, seal"
    " FROM object"
)


class Index:
    """The open index. Owns the connection. All methods raise sqlite3.Error.

    count     how many objects it has, once :meth:`totals` was called
    replaced  whether it replaced a damaged one
    """

    def __init__(self, directory_fd: int, *, replaced: bool = False) -> None:
        self.count = 0
        self.replaced = replaced
        self._touched: dict[bytes, int] = {}
        self._db, self._used = index_file.connect(directory_fd)

    @classmethod
    def open(cls, directory_fd: int) -> "Index":
        """Open the index in a directory; a damaged one is replaced by an empty one."""
        try:
            return cls(directory_fd)
        except sqlite3.DatabaseError as error:
            if not is_damage(error, opening=True):
                raise
            say_damaged(error)
            return cls.renew(directory_fd, damaged=True)

    @classmethod
    def renew(cls, directory_fd: int, *, damaged: bool) -> "Index":
        """Replace the index by an empty one; ``damaged`` if that is the reason."""
        index_file.remove(directory_fd)
        return cls(directory_fd, replaced=damaged)

    @property
    def key_id(self) -> int:
        """The ``key_id`` of the codec that wrote all files; 0 for no encryption.

        UNSETTLED if there may be files without a row.
        """
        return number(self._db, "application_id")

    def set_key_id(self, key_id: int) -> None:
        """Record that all files have a row, and are written by this codec."""
        self._db.execute(f"PRAGMA application_id = {int(key_id)}")

    def declare_all(self, rows: Iterable[Row]) -> None:
        """Record that bytes of these objects are about to be written."""
        rows = list(rows)
        with self._transaction():
            new = self._insert(rows)
            self._db.executemany(
                "UPDATE object SET open = 1 WHERE key = ?", [(row.key,) for row in rows]
            )
        self.count += new

    def save(self, rows: Iterable[Row]) -> None:
        """Write rows whose bytes are on disk, in one transaction."""
        rows = list(rows)
        with self._transaction():
            new = self._insert(rows)
            self._db.executemany(
                "UPDATE object SET size = ?, bytes = ?, verified = ?, present = ?, crcs = ?,"
                " charge = ?, open = ?, seal = ?, used = ? WHERE key = ?",
                [(*row[4:], _seal(row), self._next(), row.key) for row in rows],
            )
        self.count += new

    def _insert(self, rows: list[Row]) -> int:
        """Insert the rows that are new; return how many were."""
        return self._db.executemany(
            "INSERT INTO object(key, region, id, checksum, size, used, open)"
            " VALUES(?, ?, ?, ?, ?, ?, 1) ON CONFLICT DO NOTHING",
            [(*row[:5], self._next()) for row in rows],
        ).rowcount

    def row(self, key: bytes) -> Row | None:
        """Return the row of an object; None if there is none.

        Of a damaged row only the charge is used: then no blocks are known.
        """
        found = self._db.execute(f"{_READ} WHERE key = ?", (key,)).fetchone()
        return _row(found) if found else None

    def rows(self) -> Iterator[Row]:
        """Yield every row, the least recently used first; for commands, since it is slow."""
        self.flush()
        return map(_row, self._db.execute(f"{_READ} ORDER BY used"))

    def keys_of(self, region: str, id: str) -> Iterator[tuple[bytes, int]]:
        """Yield key and charge of every content of an object."""
        return self._charges(
            "SELECT key, charge FROM object WHERE region = ? AND id = ?", (region, id)
        )

    def keys_between(self, first: bytes, last: bytes) -> Iterator[tuple[bytes, int]]:
        """Yield key and charge of all content with ``first <= key < last``."""
        return self._charges(
            "SELECT key, charge FROM object WHERE key >= ? AND key < ?", (first, last)
        )

    def oldest(self, n: int) -> list[tuple[bytes, int]]:
        """Return key and charge of the ``n`` least recently used objects, the oldest first."""
        self.flush()
        return list(self._charges("SELECT key, charge FROM object ORDER BY used LIMIT ?", (n,)))

    def left_open(self) -> Iterator[tuple[bytes, int]]:
        """Yield key and charge of the objects whose row was not final when the process ended."""
        return self._charges("SELECT key, charge FROM object WHERE open = 1")

    def set_charges(self, charges: Iterable[tuple[bytes, int]]) -> None:
        """Set the charges of these objects, and make their rows final."""
        self._many(
            "UPDATE object SET open = 0, charge = ? WHERE key = ?",
            [(charge, key) for key, charge in charges],
        )

    def delete(self, keys: Iterable[bytes]) -> None:
        """Delete the rows of these objects."""
        gone = list(keys)
        for key in gone:
            self._touched.pop(key, None)
        self.count -= self._many("DELETE FROM object WHERE key = ?", [(key,) for key in gone])

    def touch(self, key: bytes) -> None:
        """Note that the object was used; :meth:`flush` writes that to the file."""
        self._touched[key] = self._next()

    def flush(self) -> None:
        """Write to the file what :meth:`touch` noted."""
        if self._touched:
            touched, self._touched = self._touched, {}
            self._many(
                "UPDATE object SET used = ? WHERE key = ?",
                [(used, key) for key, used in touched.items()],
            )

    def totals(self) -> tuple[int, int]:
        """Return the number of objects, and the sum of their charges.

        Reads one entry of an SQLite index per object.
        """
        (objects, charge, least) = self._db.execute(
            "SELECT count(*), total(charge), min(charge) FROM object"
        ).fetchone()
        if least is not None and least < 0:
            raise sqlite3.DatabaseError("a charge is negative")
        self.count = objects
        return objects, int(charge)

    def check(self) -> None:
        """Read every page of the file. Raises sqlite3.DatabaseError if one is damaged."""
        ((answer,),) = self._db.execute("PRAGMA integrity_check(1)").fetchall()
        if answer != "ok":
            raise sqlite3.DatabaseError(str(answer).replace("\n", ": "))

    def probe(self) -> None:
        """Find out whether the file can be written."""
        probe(self._db)

    def close(self) -> None:
        """Write the order of use, and close the file."""
        try:
            self.flush()
        finally:
            self._db.close()

    def abandon(self) -> None:
        """Close a damaged index without writing."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def _next(self) -> int:
        self._used += 1
        return self._used

    def _charges(self, query: str, values: tuple[object, ...] = ()) -> Iterator[tuple[bytes, int]]:
        return starmap(_charge, self._db.execute(query, values))

    def _many(self, statement: str, values: list[tuple[object, ...]]) -> int:
        """Execute a statement for each of the values; return how many rows it changed."""
        if not values:
            return 0
        with self._transaction():
            return max(0, self._db.executemany(statement, values).rowcount)

    def _transaction(self) -> sqlite3.Connection:
        """Begin a transaction; the connection ends it, as a context manager."""
        self._db.execute("BEGIN IMMEDIATE")
        return self._db


def _charge(key: object, charge: object) -> tuple[bytes, int]:
    """Return key and charge of a row.

    Raises sqlite3.DatabaseError if they are not what was written: the page is damaged.
    """
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise sqlite3.DatabaseError("a key is malformed")
    if not isinstance(charge, int) or charge < 0:
        raise sqlite3.DatabaseError("a charge is malformed")
    return key, charge


def _row(found: tuple[Any, ...]) -> Row:
    *values, seal = found
    row = Row(*values)
    _charge(row.key, row.charge)
    if seal == _seal(row):
        return row
    if not isinstance(row.size, int) or row.size < 0:
        raise sqlite3.DatabaseError("a size is malformed")
    region, id, checksum = map(str, row[1:4])
    return Row(row.key, region, id, checksum, row.size, charge=row.charge)


def _seal(row: Row) -> bytes:
    """Return a hash of all that a row claims, which shows whether the row was damaged."""
    claims = (sys.byteorder, *row[:6], bool(row.verified), row.present, row.crcs)
    return hashlib.blake2b(repr(claims).encode(), digest_size=8).digest()
