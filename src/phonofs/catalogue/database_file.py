"""The SQLite file of the catalogue: locks, opens and checks it, and sets a damaged one aside.

If the disk cannot be written, the content goes into memory. Used by ``database``.
"""

import errno
import fcntl
import logging
import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

from phonofs.catalogue.schema import SCHEMA, VERSION
from phonofs.errors import CatalogueError, UsageError
from phonofs.sqlite_file import connect, make_schema, number, primary_code, probe

log = logging.getLogger(__name__)

APPLICATION_ID = 0x70686F6E
"""``phon`` in the file header, so that another program's database is not taken for ours."""

WHOLE_CHECK_BYTES = 32 << 20
"""A file up to this size is checked completely whenever it is opened (40 ms). A larger one is
checked only if it was found damaged in use: a gigabyte takes seconds, and a mount must not wait."""

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
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_IN_MEMORY_DIRECTORY = "/dev/shm"  # noqa: S108 - our own directory in it is 0700


class NoDisk(Exception):
    """The disk is full, read-only or failing."""


class _Unusable(Exception):
    """The file is damaged or has another schema; the message completes "the catalogue X …"."""


class DatabaseFile:
    """Owns the lock on the file (``flock``) and the mark of one that was found damaged in use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log = path.with_name(path.name + "-wal")
        self._suspect = path.with_name(path.name + ".suspect")
        self._lock = -1

    def open(self) -> sqlite3.Connection:
        """Open the file, or create it. One that is damaged or has another schema is set aside.

        Raises NoDisk. Raises UsageError if another process uses the file, if it belongs to
        another program, or if the directory cannot be written.
        """
        try:
            return self._opened()
        except _Unusable as unusable:
            try:
                aside = self._set_aside()
            except OSError as error:
                raise NoDisk(error.strerror) from error
            log.error(
                "the catalogue %s %s; it was set aside as %s and is built anew",
                self.path, unusable, aside.name,
            )  # fmt: skip
            return self._opened()

    def _opened(self) -> sqlite3.Connection:
        connection = None
        try:
            whole = not os.path.lexists(self._log)
            self.unlock()
            self._lock = _make_private(self.path)
            connection = connect(
                self.path,
                "cache_size = -16384",
                "secure_delete = ON",  # withdrawn records must not stay readable in free pages
            )
            self._check(connection, whole)
            _make_schema(connection)
            probe(connection)
        except BaseException as error:
            close(connection)
            if isinstance(error, sqlite3.DatabaseError | OSError):
                raise self._reason(error) from error
            raise
        return connection

    def _reason(self, error: sqlite3.DatabaseError | OSError) -> Exception:
        """Return what to raise if the file cannot be opened."""
        if isinstance(error, sqlite3.DatabaseError):
            if is_damage(error):
                return _Unusable(f"is damaged ({error})")
            disk = primary_code(error) in _DISK_SQLITE
            return NoDisk(str(error)) if disk else UsageError(sentence(self.path, error))
        why = error.strerror or str(error)
        if error.errno in _DISK:
            return NoDisk(why)
        return UsageError(f"the catalogue {self.path} cannot be opened: {why}.")

    def _check(self, connection: sqlite3.Connection, whole: bool) -> None:
        """Check that the file is ours and not damaged; ``whole``: it has no log."""
        if number(connection, "application_id") not in (0, APPLICATION_ID):
            raise UsageError(f"{self.path} is not a catalogue; move it away.")
        pages, page_size = number(connection, "page_count"), number(connection, "page_size")
        size = self.path.stat().st_size
        if whole and size != pages * page_size:
            raise _Unusable(f"is damaged ({size} bytes instead of {pages * page_size})")
        if size <= WHOLE_CHECK_BYTES or os.path.lexists(self._suspect):
            _check_whole(connection)
        self._suspect.unlink(missing_ok=True)

    def _set_aside(self) -> Path:
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        for beside in (self._log, self.path.with_name(self.path.name + "-shm"), self._suspect):
            beside.unlink(missing_ok=True)
        for older in self.path.parent.glob(f"{self.path.name}.damaged-*"):
            older.unlink(missing_ok=True)  # it has personal data: keep one file, for diagnosis
        os.replace(self.path, aside)
        return aside

    def suspect(self) -> None:
        """Have the file checked completely when it is next opened."""
        with suppress(OSError):
            self._suspect.touch(mode=0o600)

    def log_bytes(self) -> int:
        """Return the size of the write-ahead log, in bytes."""
        with suppress(OSError):
            return self._log.stat().st_size
        return 0

    def content(self) -> bytes:
        """Return the database as one file that needs no log; empty if it cannot be read."""
        try:
            if 0 < self.path.stat().st_size <= LARGEST_IN_MEMORY:
                return _merged(self.path, self._log) if self.log_bytes() else self.path.read_bytes()
        except (OSError, sqlite3.Error) as error:
            log.warning("the catalogue %s cannot be read: %s", self.path, error)
        return b""

    def in_memory(self, kept: bytes) -> sqlite3.Connection:
        """Return a database in memory with the content ``kept``, or empty if that is damaged.

        Raises CatalogueError if there is not enough memory.
        """
        for content in (_without_log(kept), b""):
            connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            try:
                if content:
                    connection.deserialize(content)
                    _check_whole(connection)
                _make_schema(connection)
                return connection
            except BaseException as error:
                connection.close()
                if not isinstance(error, sqlite3.Error | _Unusable):
                    raise
                log.warning("the catalogue %s cannot be read (%s)", self.path, error)
        raise CatalogueError(f"there is no memory for the catalogue {self.path}.")

    def unlock(self) -> None:
        """Unlock the file. Call it only after SQLite closed the file: closing any descriptor of
        it releases the locks that SQLite holds (fcntl(2)).
        """
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error means that the file is damaged."""
    return primary_code(error) in _DAMAGE


def sentence(path: Path, error: sqlite3.Error) -> str:
    """Return what an error of SQLite says, for a user."""
    if primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"the catalogue {path} is in use by another phonofs."
    return f"the catalogue {path} cannot be used: {error}."


def close(connection: sqlite3.Connection | None) -> None:
    """Close a connection, if there is one."""
    if connection is not None:
        with suppress(sqlite3.Error):  # the next mount copies the rest of the log
            connection.close()


def _check_whole(connection: sqlite3.Connection) -> None:
    answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if answer != "ok":
        first = str(answer).partition("\n")[0]
        raise _Unusable(f"is damaged ({first})")


def _without_log(content: bytes) -> bytes:
    """Clear the mark of a log, bytes 18 and 19 (SQLite's file format, 1.3.3); memory has none."""
    return content[:18] + b"\1\1" + content[20:] if content else b""


def _merged(path: Path, log_file: Path) -> bytes:
    """Return a database merged with its log; done in memory, since the disk cannot be written."""
    with tempfile.TemporaryDirectory(prefix="phonofs-", dir=_IN_MEMORY_DIRECTORY) as directory:
        copy = Path(directory, path.name)
        shutil.copyfile(path, copy)
        shutil.copyfile(log_file, copy.with_name(log_file.name))
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        return copy.read_bytes()


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
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise UsageError(f"the catalogue {path} is in use by another phonofs.") from error
        raise
    return descriptor


def _make_schema(connection: sqlite3.Connection) -> None:
    """Create the schema in a new file. Raises _Unusable if the file has another version of it."""
    schema = f"{SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
    version = make_schema(connection, schema, VERSION)
    if version != VERSION:
        raise _Unusable(f"has schema {version}, this phonofs needs {VERSION}")
