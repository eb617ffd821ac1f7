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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from phonofs.cache import index_file
from phonofs.cache.blocks import BlockChecksums
from phonofs.cache.index_file import is_damage, say_damaged

KEY_BYTES = 16


class Identity(NamedTuple):
    """One content: the key is a hash of region, id and fingerprint, and names the file."""

    key: bytes
    region: str
    id: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one object.

    size      length of the object in bytes
    bytes     how many of them are on disk
    charge    bytes charged to the budget for its file
    verified  whether the whole object had the right checksum
    """

    identity: Identity
    size: int
    bytes: int
    charge: int
    verified: bool


class Saved(NamedTuple):
    """A row to write: ``present`` and ``crcs`` are its blocks on disk, packed.

    ``final``: nothing more will be written in this run.
    """

    row: Row
    present: bytes
    crcs: bytes
    final: bool


_DECLARE = (
    "INSERT INTO object(key, region, id, checksum, size, used, open)"
    " VALUES(?, ?, ?, ?, ?, ?, 1) ON CONFLICT(key) DO UPDATE SET open = 1 RETURNING used"
)


class Index:
    """The open index. Owns the connection. All methods raise sqlite3.Error.

    count     how many objects it has, once :meth:`totals` was called
    replaced  whether it replaced a damaged one
    """

    def __init__(
        self, directory_fd: int, on_new: Callable[[], None], *, replaced: bool = False
    ) -> None:
        self.count = 0
        self.replaced = replaced
        self._touched: dict[bytes, int] = {}
        self._db = index_file.connect(directory_fd, on_new)
        try:
            (last,) = self._db.execute("SELECT max(used) FROM object").fetchone()
        except BaseException:
            self._db.close()
            raise
        self._used: int = last or 0

    @classmethod
    def open(cls, directory_fd: int, on_new: Callable[[], None]) -> "Index":
        """Open the index in a directory; a damaged one is replaced by an empty one.

        ``on_new`` is called before an empty one is made: it has to remove the files, which will
        have no rows.
        """
        try:
            return cls(directory_fd, on_new)
        except sqlite3.DatabaseError as error:
            if not is_damage(error, opening=True):
                raise
            say_damaged(error)
            return cls.renew(directory_fd, on_new, damaged=True)

    @classmethod
    def renew(
        cls, directory_fd: int, on_new: Callable[[], None], *, damaged: bool = False
    ) -> "Index":
        """Replace the index by an empty one; ``damaged`` if that is the reason."""
        index_file.remove(directory_fd)
        return cls(directory_fd, on_new, replaced=damaged)

    @property
    def key_id(self) -> int:
        """The ``key_id`` of the codec that wrote the content; 0 for no encryption."""
        (key_id,) = self._db.execute("PRAGMA application_id").fetchone()
        return int(key_id)

    def set_key_id(self, key_id: int) -> None:
        """Record which codec writes the content from now on."""
        self._db.execute(f"PRAGMA application_id = {int(key_id)}")

    def declare_all(self, objects: Iterable[tuple[Identity, int]]) -> None:
        """Record that bytes of these objects, each with its size, are about to be written."""
        with self._transaction():
            new = sum([self._declare(identity, size) for identity, size in objects])
        self.count += new

    def _declare(self, identity: Identity, size: int) -> bool:
        """Declare one object; return whether it is new. An existing row keeps its ``used``."""
        now = self._next()
        (used,) = self._db.execute(_DECLARE, (*identity, size, now)).fetchone()
        return bool(used == now)

    def save(self, rows: Iterable[Saved]) -> None:
        """Write rows whose bytes are on disk, in one transaction."""
        with self._transaction():
            new = sum([self._save(saved) for saved in rows])
        self.count += new

    def _save(self, saved: Saved) -> bool:
        """Save one row; return whether it is new."""
        row = saved.row
        new = self._declare(row.identity, row.size)
        (number,) = self._db.execute(
            "UPDATE object SET size = ?, bytes = ?, charge = ?, used = ?, open = ?, verified = ?"
            " WHERE key = ? RETURNING number",
            (
                *(row.size, row.bytes, row.charge, self._next()),
                *(not saved.final, row.verified, row.identity.key),
            ),
        ).fetchone()
        seal = _seal(row, saved.present, saved.crcs)
        self._db.execute(
            "INSERT OR REPLACE INTO blocks VALUES(?, ?, ?, ?)",
            (number, saved.present, saved.crcs, seal),
        )
        return new

    def load(self, key: bytes) -> tuple[Row, BlockChecksums] | None:
        """Return the row of an object, and its blocks; None if there is no row.

        Of a damaged row only the charge is used: then no blocks are known.
        """
        found = self._db.execute(
            "SELECT key, region, id, checksum, size, bytes, charge, verified, present, crcs, seal"
            " FROM object LEFT JOIN blocks USING(number) WHERE key = ?",
            (key,),
        ).fetchone()
        if found is None:
            return None
        row, (present, crcs, seal) = _row(found), found[8:]
        if present is None or seal != _seal(row, present, crcs):
            return Row(row.identity, row.size, 0, row.charge, verified=False), BlockChecksums()
        return row, BlockChecksums.unpack(present, crcs)

    def row(self, key: bytes) -> Row | None:
        """Return the row of an object, without its blocks."""
        found = self._db.execute(
            "SELECT key, region, id, checksum, size, bytes, charge, verified"
            " FROM object WHERE key = ?",
            (key,),
        ).fetchone()
        return _row(found) if found else None

    def rows(self) -> Iterator[Row]:
        """Yield every row, the least recently used first; for commands, since it is slow."""
        self.flush()
        for found in self._db.execute(
            "SELECT key, region, id, checksum, size, bytes, charge, verified"
            " FROM object ORDER BY used"
        ):
            yield _row(found)

    def keys_of(self, region: str, id: str) -> list[tuple[bytes, int]]:
        """Return key and charge of every content of an object."""
        return self._charges(
            "SELECT key, charge FROM object WHERE region = ? AND id = ?", (region, id)
        )

    def keys_between(self, first: bytes, last: bytes) -> list[tuple[bytes, int]]:
        """Return key and charge of all content with ``first <= key < last``."""
        return self._charges(
            "SELECT key, charge FROM object WHERE key >= ? AND key < ?", (first, last)
        )

    def oldest(self) -> Iterator[tuple[bytes, int]]:
        """Yield key and charge, the least recently used first; rows may be deleted meanwhile."""
        self.flush()
        after = -1
        while True:
            batch = self._db.execute(
                "SELECT used, key, charge FROM object WHERE used > ? ORDER BY used LIMIT 64",
                (after,),
            ).fetchall()
            if not batch:
                return
            after = batch[-1][0]
            yield from (_charge(*row[1:]) for row in batch)

    def left_open(self) -> list[tuple[bytes, int]]:
        """Return key and charge of the objects whose row was not final when the process ended."""
        return self._charges("SELECT key, charge FROM object WHERE open = 1")

    def settle(self, charges: Iterable[tuple[bytes, int]]) -> None:
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
        """Write a value that the file already has, to find out whether it can be written."""
        with self._transaction():
            self._db.execute(f"PRAGMA user_version = {index_file.VERSION}")

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

    def _charges(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[bytes, int]]:
        return [_charge(*row) for row in self._db.execute(query, values)]

    def _many(self, statement: str, values: list[tuple[object, ...]]) -> int:
        """Execute a statement for each of the values; return how many rows it changed."""
        if not values:
            return 0
        with self._transaction():
            return max(0, self._db.executemany(statement, values).rowcount)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # SQLite has ended it already if the disk is full. The first error is the one to raise.
            with contextlib.suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            raise


def _charge(key: object, charge: object) -> tuple[bytes, int]:
    """Return key and charge of a row.

    Raises sqlite3.DatabaseError if they are not what was written: the page is damaged.
    """
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise sqlite3.DatabaseError("a key is malformed")
    if not isinstance(charge, int) or charge < 0:
        raise sqlite3.DatabaseError("a charge is malformed")
    return key, charge


def _row(found: tuple[object, ...]) -> Row:
    _, region, id, checksum, size, held, _, verified = found[:8]
    key, charge = _charge(found[0], found[6])
    if not isinstance(size, int) or not isinstance(held, int) or not 0 <= held <= size:
        raise sqlite3.DatabaseError("a size is malformed")
    identity = Identity(key, str(region), str(id), str(checksum))
    return Row(identity, size, held, charge, bool(verified))


def _seal(row: Row, present: bytes, crcs: bytes) -> bytes:
    """Return a hash of a row, which shows whether the row was damaged."""
    digest = hashlib.blake2b(row.identity.key, digest_size=8)
    digest.update(f"|{row.identity.checksum}|{row.size}|{int(row.verified)}|".encode())
    digest.update(present)
    digest.update(crcs)
    return digest.digest()
