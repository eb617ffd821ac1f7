"""The index of the cache: which blocks of which object are on disk, and who was used last.

SQLite, WAL, one connection used on the event loop only (each call is short: a row by its key
takes some 10 µs). ``synchronous=NORMAL``: a killed process loses nothing, a power cut may lose
the last rows, and then their files are orphans that the maintenance task removes. A row whose
bytes did not reach the disk is found by the CRC of every block. Nothing in a damaged index is
trusted: it is made anew, and every file that it had a row for is removed.

``object.open`` is set before a byte of an object is written and cleared when its row is
final. So after a kill the objects whose cost is not known are found without a scan.
``object.used`` counts up with every use: the order of eviction.
"""

import contextlib
import hashlib
import logging
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from phonofs.cache.blocks import BlockChecksums

log = logging.getLogger(__name__)

NAME = "index.sqlite"
_FILES = (NAME, f"{NAME}-wal", f"{NAME}-shm", f"{NAME}-journal")
_VERSION = 3
KEY_BYTES = 16

_SCHEMA = """
CREATE TABLE object (
    number INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    region TEXT NOT NULL,
    id TEXT NOT NULL,
    checksum TEXT NOT NULL,
    size INTEGER NOT NULL,
    bytes INTEGER NOT NULL DEFAULT 0,
    charge INTEGER NOT NULL DEFAULT 0,
    used INTEGER NOT NULL,
    open INTEGER NOT NULL,
    verified INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX object_used ON object(used, charge);
CREATE INDEX object_id ON object(region, id);
CREATE INDEX object_open ON object(open) WHERE open = 1;
CREATE TABLE blocks (
    number INTEGER PRIMARY KEY,
    present BLOB NOT NULL,
    crcs BLOB NOT NULL,
    seal BLOB NOT NULL
) STRICT;
CREATE TRIGGER object_gone AFTER DELETE ON object
    BEGIN DELETE FROM blocks WHERE number = OLD.number; END;
"""


class Identity(NamedTuple):
    """Which content: the key is a hash of region, id and fingerprint, and names the file."""

    key: bytes
    region: str
    id: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one object.

    size, bytes, charge   the object's length, its bytes on disk, what they cost there
    verified              whether the whole of it had the right checksum
    """

    identity: Identity
    size: int
    bytes: int
    charge: int
    verified: bool


class Saved(NamedTuple):
    """A row to be written: ``present`` and ``crcs`` are its blocks on disk, packed.

    ``final``: nothing more is going to be written in this run.
    """

    row: Row
    present: bytes
    crcs: bytes
    final: bool


_DECLARE = (
    "INSERT INTO object(key, region, id, checksum, size, used, open)"
    " VALUES(?, ?, ?, ?, ?, ?, 1) ON CONFLICT(key) DO UPDATE SET open = 1 RETURNING used"
)

_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_CONSTRAINT,  # no statement here breaks one in a sound index
        sqlite3.SQLITE_MISMATCH,
    }
)


def is_damage(error: Exception) -> bool:
    """Whether the index itself is broken; the other errors (locked, full, I/O) pass by themselves.

    SQLite tells of a damaged page only when that page is read, so this can come at any call.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # one that is raised here
        return type(error) is sqlite3.DatabaseError
    return code & 0xFF in _DAMAGE


class Index:
    """The open index. Owner of the connection; it raises ``sqlite3.Error`` as it is.

    count     how many objects it has, once :meth:`totals` was asked
    replaced  whether it was made in the place of a damaged one
    """

    def __init__(
        self, folder_fd: int, on_new: Callable[[], None], *, replaced: bool = False
    ) -> None:
        self.count = 0
        self.replaced = replaced
        self._touched: dict[bytes, int] = {}
        self._db = _connect(folder_fd, on_new)
        try:
            (last,) = self._db.execute("SELECT max(used) FROM object").fetchone()
        except BaseException:
            self._db.close()
            raise
        self._used: int = last or 0

    @classmethod
    def open(cls, folder_fd: int, on_new: Callable[[], None]) -> "Index":
        """Open the index in that folder; a damaged one is removed, and an empty one made.

        ``on_new`` is called before an empty one is made: it has to remove the files, of
        which no row will tell.
        """
        try:
            return cls(folder_fd, on_new)
        except sqlite3.DatabaseError as error:
            # A plain SQLITE_ERROR ("no such table") is damage too: the schema is read here.
            if not is_damage(error) and _code(error) != sqlite3.SQLITE_ERROR:
                raise
            say_damaged(error)
            return cls.renew(folder_fd, on_new, damaged=True)

    @classmethod
    def renew(cls, folder_fd: int, on_new: Callable[[], None], *, damaged: bool = False) -> "Index":
        """Remove the index and make an empty one; ``damaged``: since it was damaged."""
        remove(folder_fd)
        return cls(folder_fd, on_new, replaced=damaged)

    @property
    def mark(self) -> int:
        """The mark of the cipher that its contents were written with; 0 for none."""
        (mark,) = self._db.execute("PRAGMA application_id").fetchone()
        return int(mark)

    def set_mark(self, mark: int) -> None:
        """From now on contents are written with the cipher of this mark."""
        self._db.execute(f"PRAGMA application_id = {int(mark)}")

    def declare_all(self, objects: Iterable[tuple[Identity, int]]) -> None:
        """Note that bytes of these objects, each with its size, are going to be on disk."""
        with self._transaction():
            new = sum([self._declare(identity, size) for identity, size in objects])
        self.count += new

    def _declare(self, identity: Identity, size: int) -> bool:
        """Declare one object; return whether it is new. A row that was there keeps its ``used``."""
        now = self._next()
        (used,) = self._db.execute(_DECLARE, (*identity, size, now)).fetchone()
        return bool(used == now)

    def save(self, rows: Iterable[Saved]) -> None:
        """Note which blocks are on disk; their bytes are there already."""
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
        """Return what is known of an object and of its blocks; None if there is no row.

        A row that is damaged says only what is charged: none of its blocks are known.
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
        """Return what is known of an object, without its blocks."""
        found = self._db.execute(
            "SELECT key, region, id, checksum, size, bytes, charge, verified"
            " FROM object WHERE key = ?",
            (key,),
        ).fetchone()
        return _row(found) if found else None

    def rows(self) -> Iterator[Row]:
        """Yield every object, the least recently used first; for a person, not for a mount."""
        self.flush()
        for found in self._db.execute(
            "SELECT key, region, id, checksum, size, bytes, charge, verified"
            " FROM object ORDER BY used"
        ):
            yield _row(found)

    def keys_of(self, region: str, id: str) -> list[tuple[bytes, int]]:
        """Return key and charge of every fingerprint of an object."""
        return self._charges(
            "SELECT key, charge FROM object WHERE region = ? AND id = ?", (region, id)
        )

    def keys_between(self, first: bytes, last: bytes) -> list[tuple[bytes, int]]:
        """Return key and charge of the objects with ``first <= key < last``."""
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
        """Note what these objects take on disk: their rows are final."""
        self._many(
            "UPDATE object SET open = 0, charge = ? WHERE key = ?",
            [(charge, key) for key, charge in charges],
        )

    def delete(self, keys: Iterable[bytes]) -> None:
        """Forget objects."""
        gone = list(keys)
        for key in gone:
            self._touched.pop(key, None)
        self.count -= self._many("DELETE FROM object WHERE key = ?", [(key,) for key in gone])

    def touch(self, key: bytes) -> None:
        """Note that the object was used; :meth:`flush` writes it down."""
        self._touched[key] = self._next()

    def flush(self) -> None:
        """Write the order of use down."""
        if self._touched:
            touched, self._touched = self._touched, {}
            self._many(
                "UPDATE object SET used = ? WHERE key = ?",
                [(used, key) for key, used in touched.items()],
            )

    def totals(self) -> tuple[int, int]:
        """Return how many objects there are, and what they take on disk.

        Reads one entry of an index for each.
        """
        (objects, charge, least) = self._db.execute(
            "SELECT count(*), total(charge), min(charge) FROM object"
        ).fetchone()
        if least is not None and least < 0:
            raise sqlite3.DatabaseError("a charge is negative")
        self.count = objects
        return objects, int(charge)

    def check(self) -> None:
        """Look at every page of the index. sqlite3.DatabaseError for a damaged one."""
        ((answer,),) = self._db.execute("PRAGMA integrity_check(1)").fetchall()
        if answer != "ok":
            raise sqlite3.DatabaseError(str(answer).replace("\n", ": "))

    def probe(self) -> None:
        """Write something; sqlite3.Error if that fails."""
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute(f"PRAGMA user_version = {_VERSION}")
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Write what is left and close."""
        try:
            self.flush()
        finally:
            self._db.close()

    def abandon(self) -> None:
        """Close a damaged index, writing nothing."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def _next(self) -> int:
        self._used += 1
        return self._used

    def _charges(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[bytes, int]]:
        return [_charge(*row) for row in self._db.execute(query, values)]

    def _many(self, statement: str, values: list[tuple[object, ...]]) -> int:
        """Execute a statement with each of the values; return how many rows that changed."""
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
            # A full disk has ended it already. The first error is the one to tell.
            with contextlib.suppress(sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            raise


def checkpoint(folder_fd: int) -> None:
    """Bring the log into the index; in a thread, because it syncs."""
    connection = sqlite3.connect(_path(folder_fd), isolation_level=None, timeout=1.0)
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    finally:
        connection.close()


def say_damaged(error: Exception) -> None:
    """Log that the index is damaged."""
    log.warning("the index of the cache is damaged (%s); the cache starts empty", error)


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", -1)) & 0xFF


def _charge(key: object, charge: object) -> tuple[bytes, int]:
    """Return key and charge of a row; sqlite3.DatabaseError if a damaged page gave other things."""
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise sqlite3.DatabaseError("a key is not one")
    if not isinstance(charge, int) or charge < 0:
        raise sqlite3.DatabaseError("a charge is not a size")
    return key, charge


def mark_of(folder: Path) -> int:
    """Return the mark of the cipher in the index of a folder that is not open; -1 if there is none.

    It is SQLite's application id: four bytes at offset 68 of the file (its file format, 1.3).
    """
    try:
        with (folder / NAME).open("rb") as file:
            head = file.read(72)
    except OSError:
        return -1
    return int.from_bytes(head[68:72], "big") if len(head) == 72 else -1


def _row(found: tuple[object, ...]) -> Row:
    _, region, id, checksum, size, held, _, verified = found[:8]
    key, charge = _charge(found[0], found[6])
    if not isinstance(size, int) or not isinstance(held, int) or not 0 <= held <= size:
        raise sqlite3.DatabaseError("a size is not one")
    identity = Identity(key, str(region), str(id), str(checksum))
    return Row(identity, size, held, charge, bool(verified))


def _seal(row: Row, present: bytes, crcs: bytes) -> bytes:
    """Return a hash over what a row says, which shows whether a page of the index is damaged."""
    digest = hashlib.blake2b(row.identity.key, digest_size=8)
    digest.update(f"|{row.identity.checksum}|{row.size}|{int(row.verified)}|".encode())
    digest.update(present)
    digest.update(crcs)
    return digest.digest()


def _path(folder_fd: int) -> str:
    return f"/proc/self/fd/{folder_fd}/{NAME}"


def _connect(folder_fd: int, on_new: Callable[[], None]) -> sqlite3.Connection:
    _prepare(folder_fd)
    connection = sqlite3.connect(_path(folder_fd), isolation_level=None, timeout=1.0)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")  # a damaged page
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # it syncs: see checkpoint()
        connection.execute("PRAGMA temp_store = MEMORY")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            on_new()
            connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {_VERSION};COMMIT;")
        elif version != _VERSION:
            raise sqlite3.DatabaseError(f"it has version {version}, not {_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(folder_fd: int) -> None:
    """Make the file 0600, from which SQLite takes the mode of its others; no links, no pipes."""
    for name in _FILES:
        try:
            found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.unlink(name, dir_fd=folder_fd)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(NAME, flags, 0o600, dir_fd=folder_fd))


def remove(folder_fd: int) -> None:
    """Remove the index; OSError if that fails."""
    for name in _FILES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder_fd)
