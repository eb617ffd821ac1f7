"""The SQLite file of the catalogue: opens and checks it, or creates it.

Threading: opened in any thread, then used on the event loop only, one call at a time. Nothing is
awaited between BEGIN and COMMIT, so that no other task sees half of a transaction.
"""

import errno
import fcntl
import logging
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from phonofs.catalogue.schema import SCHEMA, VERSION
from phonofs.errors import CatalogueError, UsageError

log = logging.getLogger(__name__)

APPLICATION_ID = 0x70686F6E
"""``phon`` in the file header, so that another program's database is not taken for ours."""

WHOLE_CHECK_BYTES = 32 << 20
"""A file up to this size is checked completely whenever it is opened (40 ms). A larger one is
checked only if it was found damaged in use: a gigabyte takes seconds, and a mount must not wait."""

MOST_VALUES = 10_000
"""The most values in one statement: SQLite allows 32,766 (3.32; STRICT tables need 3.37)."""

LARGEST_IN_MEMORY = 512 << 20
"""A larger file is not read into memory; this is half a million objects."""

_DISK = frozenset({errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO})
_DISK_SQLITE = frozenset(
    {
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,  # the file was opened before, so its log cannot be created
    }
)

_IN_MEMORY_DIRECTORY = "/dev/shm"  # noqa: S108 - our own directory in it is 0700

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class _Unusable(Exception):
    """The file is damaged or has another schema; the message completes "the catalogue X …"."""


class _NoDisk(Exception):
    """The disk is full, read-only or failing."""


class Database:
    """The connection. Owns it, the transaction in progress and the mark of a damaged file.

    only_in_memory  why nothing is written to the file, as a sentence; empty if it is written

    A commit only writes to the write-ahead log and never syncs. :meth:`checkpoint` copies the log
    into the file, in a thread. The file is locked with ``flock`` while it is open.
    """

    def __init__(self, path: Path) -> None:
        """Open or create ``path``; a file that is damaged or has another schema is set aside.

        Raises UsageError if another process uses the file, if it belongs to another program, or
        if the directory cannot be written.
        """
        self.path = path
        self._suspect = path.with_name(path.name + ".suspect")
        self.only_in_memory = ""
        self._lock = -1
        try:
            self._connection = self._opened_or_renewed()
        except _NoDisk as error:
            self._say_in_memory(str(error))
            self._connection = self._in_memory(self._content())

    def _opened_or_renewed(self) -> sqlite3.Connection:
        try:
            return self._opened()
        except _Unusable as unusable:
            try:
                aside = self._set_aside()
            except OSError as error:
                raise _NoDisk(error.strerror) from error
            log.error(
                "the catalogue %s %s; it was set aside as %s and is built anew",
                self.path, unusable, aside.name,
            )  # fmt: skip
            return self._opened()

    def leave_disk(self, error: Exception) -> None:
        """Continue in memory, if the disk fails after :func:`_probe` succeeded.

        The database is then empty if it cannot be read. Raises CatalogueError if there is not
        enough memory.
        """
        content = b""
        with suppress(sqlite3.Error, MemoryError):
            content = self._connection.serialize()
        _close(self._connection)
        self._say_in_memory(str(error))
        self._connection = self._in_memory(_without_log(content))

    def _say_in_memory(self, why: str) -> None:
        self.only_in_memory = (
            f"the catalogue {self.path} cannot be written ({why}): what is found out is kept in "
            "memory, until the next mount"
        )
        log.warning("%s", self.only_in_memory)

    def _in_memory(self, kept: bytes) -> sqlite3.Connection:
        """Return a database in memory with the content ``kept``, or empty if that is damaged."""
        for content in (kept, b""):
            connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            try:
                if content:
                    connection.deserialize(content)
                    _check_whole(connection)
                _make_schema(connection)
            except (sqlite3.Error, _Unusable) as error:
                connection.close()
                log.warning("the catalogue %s cannot be read (%s)", self.path, error)
                continue
            except BaseException:
                connection.close()
                raise
            return connection
        raise CatalogueError(f"there is no memory for the catalogue {self.path}.")

    def _content(self) -> bytes:
        """Return the database as one file that needs no log; empty if it cannot be read."""
        log_file = self.path.with_name(self.path.name + "-wal")
        try:
            if not 0 < self.path.stat().st_size <= LARGEST_IN_MEMORY:
                return b""
            if _exists(log_file) and log_file.stat().st_size:
                content = _merged(self.path, log_file)
            else:
                content = self.path.read_bytes()
        except (OSError, sqlite3.Error) as error:
            log.warning("the catalogue %s cannot be read: %s", self.path, error)
            return b""
        return _without_log(content)

    def _opened(self) -> sqlite3.Connection:
        connection = None
        try:
            whole = not _exists(self.path.with_name(self.path.name + "-wal"))
            self._unlock()
            self._lock = _make_private(self.path)
            connection = sqlite3.connect(
                self.path, timeout=1.0, isolation_level=None, check_same_thread=False
            )
            self._prepare(connection, whole)
            _make_schema(connection)
            _probe(connection)
        except sqlite3.DatabaseError as error:
            _close(connection)
            if _code(error) in _DAMAGE:
                raise _Unusable(f"is damaged ({error})") from error
            if _code(error) in _DISK_SQLITE:
                raise _NoDisk(str(error)) from error
            raise UsageError(_sentence(self.path, error)) from error
        except OSError as error:
            _close(connection)
            if error.errno in _DISK:
                raise _NoDisk(error.strerror) from error
            why = error.strerror or error
            raise UsageError(f"the catalogue {self.path} cannot be opened: {why}.") from error
        except BaseException:
            _close(connection)
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection, whole: bool) -> None:
        """Configure the connection, then check the file."""
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "wal_autocheckpoint = 0",  # it syncs, so the event loop must not do it
            "cache_size = -16384",
            "secure_delete = ON",  # withdrawn records must not stay readable in free pages
        ):
            connection.execute(f"PRAGMA {pragma}")
        if _number(connection, "application_id") not in (0, APPLICATION_ID):
            raise UsageError(f"{self.path} is not a catalogue; move it away.")
        pages, page_size = _number(connection, "page_count"), _number(connection, "page_size")
        size = self.path.stat().st_size
        if whole and size != pages * page_size:
            raise _Unusable(f"is damaged ({size} bytes instead of {pages * page_size})")
        if size <= WHOLE_CHECK_BYTES or _exists(self._suspect):
            _check_whole(connection)
        with suppress(FileNotFoundError):
            self._suspect.unlink()

    def _set_aside(self) -> Path:
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                self.path.with_name(self.path.name + suffix).unlink()
        with suppress(FileNotFoundError):
            self._suspect.unlink()
        for older in self.path.parent.glob(f"{self.path.name}.damaged-*"):
            older.unlink(missing_ok=True)  # it has personal data: keep one file, for diagnosis
        os.replace(self.path, aside)
        return aside

    @property
    def state(self) -> int | None:
        """A number that differs whenever a row has changed; None within a transaction."""
        return None if self._connection.in_transaction else self._connection.total_changes

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """Return all rows of a query. Raises CatalogueError if the disk fails."""
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def row(self, sql: str, *values: Any) -> Any:
        """Return the first row of a query, or None. Raises as :meth:`rows` does."""
        try:
            return self._connection.execute(sql, values).fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def run(self, sql: str, *values: Any) -> None:
        """Run one statement. Raises as :meth:`rows` does."""
        self.row(sql, *values)

    def run_many(self, sql: str, values: Iterable[Any]) -> int:
        """Run one statement for each of many rows of values; return how many rows it changed."""
        try:
            return self._connection.executemany(sql, values).rowcount
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def insert(self, into: str, rows: Sequence[tuple[Any, ...]], otherwise: str = "") -> int:
        """Insert rows; return how many were inserted.

        ``into`` is the table with its columns in parentheses. One statement inserts many rows:
        twice as fast as one by one, where each updates the counter of AUTOINCREMENT.
        """
        done = 0
        many = MOST_VALUES // len(rows[0]) if rows else 1
        for start in range(0, len(rows), many):
            some = rows[start : start + many]
            marks = ",".join([f"({','.join('?' * len(some[0]))})"] * len(some))
            sql = f"INSERT INTO {into} VALUES {marks}{otherwise}"  # noqa: S608 - constants
            try:
                done += self._connection.execute(sql, (*chain.from_iterable(some),)).rowcount
            except sqlite3.Error as error:
                raise self._failed(error) from error
        return done

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write everything in the block or nothing. Nothing may be awaited in it."""
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            raise

    def _failed(self, error: sqlite3.Error) -> Exception:
        """Return the error to raise; mark a damaged file, so that the next opening checks it."""
        if _code(error) in _DAMAGE:
            with suppress(OSError):
                self._suspect.touch(mode=0o600)
            return CatalogueError(
                f"the catalogue {self.path} is damaged ({error}); mount again to build it anew."
            )
        return CatalogueError(_sentence(self.path, error))

    def log_bytes(self) -> int:
        """Return the size of the write-ahead log, in bytes; 0 in memory."""
        if self.only_in_memory:
            return 0
        with suppress(OSError):
            return self.path.with_name(self.path.name + "-wal").stat().st_size
        return 0

    def checkpoint(self) -> None:
        """Copy the log into the file; call it in a thread, while the event loop runs.

        Raises CatalogueError if the disk fails.
        """
        if self.only_in_memory:
            return
        try:
            connection = sqlite3.connect(self.path, timeout=1.0, isolation_level=None)
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Write everything to the file, close it and unlock it."""
        _close(self._connection)
        self._unlock()

    def _unlock(self) -> None:
        """Unlock the file. Call it only after SQLite closed the file: closing any descriptor of
        it releases the locks that SQLite holds (fcntl(2)).
        """
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _check_whole(connection: sqlite3.Connection) -> None:
    answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if answer != "ok":
        first = str(answer).partition("\n")[0]
        raise _Unusable(f"is damaged ({first})")


def _probe(connection: sqlite3.Connection) -> None:
    """Write a value that the file already has, to find out now whether the disk can be written."""
    version = _number(connection, "user_version")
    connection.executescript(f"BEGIN IMMEDIATE; PRAGMA user_version = {version}; COMMIT;")


def _without_log(content: bytes) -> bytes:
    """Clear the mark of a log, bytes 18 and 19 (SQLite's file format, 1.3.3); memory has none."""
    return content[:18] + b"\1\1" + content[20:] if content else b""


def _merged(path: Path, log_file: Path) -> bytes:
    """Return a database merged with its log; done in memory, since the disk cannot be written."""
    with tempfile.TemporaryDirectory(prefix="phonofs-", dir=_IN_MEMORY_DIRECTORY) as directory:
        copy = Path(directory, path.name)
        shutil.copyfile(path, copy)
        shutil.copyfile(log_file, copy.with_name(log_file.name))
        connection = sqlite3.connect(copy)
        try:
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        finally:
            connection.close()
        return copy.read_bytes()


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _make_private(path: Path) -> int:
    """Create the file with mode 0600 in a 0700 directory, whatever the umask, and lock it.

    SQLite gives its other files the same mode. Returns a descriptor that holds the lock. Raises
    UsageError if another process holds it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise UsageError(f"the catalogue {path} is in use by another phonofs.") from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _make_schema(connection: sqlite3.Connection) -> None:
    """Create the schema in a new file. Raises _Unusable if the file has another version of it."""
    version = _number(connection, "user_version")
    if version == 0:
        connection.executescript(
            f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION};"
            f"PRAGMA application_id = {APPLICATION_ID}; COMMIT;"
        )
    elif version != VERSION:
        raise _Unusable(f"has schema {version}, this phonofs needs {VERSION}")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _sentence(path: Path, error: sqlite3.Error) -> str:
    if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"the catalogue {path} is in use by another phonofs."
    return f"the catalogue {path} cannot be used: {error}."


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with suppress(sqlite3.Error):  # the next mount copies the rest of the log
            connection.close()
