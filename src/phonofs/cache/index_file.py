"""The SQLite file of the index: its schema; opens and removes it, and tells damage.

Used by :mod:`phonofs.cache.index`, and by whoever has to do with the file alone. It is opened by
the descriptor of its directory, and never through a link.
"""

import contextlib
import logging
import os
import sqlite3
import stat
from pathlib import Path

from phonofs import sqlite_file
from phonofs.sqlite_file import make_schema, primary_code

log = logging.getLogger(__name__)

NAME = "index.sqlite"
_FILES = (NAME, f"{NAME}-wal", f"{NAME}-shm", f"{NAME}-journal")

UNSETTLED = -2
"""The ``key_id`` of an index that is new: there may still be files of an earlier one."""

VERSION = 4
_SCHEMA = f"""
CREATE TABLE object (
    key BLOB NOT NULL UNIQUE,
    region TEXT NOT NULL,
    id TEXT NOT NULL,
    checksum TEXT NOT NULL,
    size INTEGER NOT NULL,
    bytes INTEGER NOT NULL DEFAULT 0,
    verified INTEGER NOT NULL DEFAULT 0,
    charge INTEGER NOT NULL DEFAULT 0,
    open INTEGER NOT NULL,
    used INTEGER NOT NULL,
    seal BLOB NOT NULL DEFAULT x'',
    present BLOB NOT NULL DEFAULT x'',
    crcs BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE INDEX object_used ON object(used, charge);
CREATE INDEX object_id ON object(region, id);
CREATE INDEX object_open ON object(open) WHERE open = 1;
PRAGMA application_id = {UNSETTLED};
"""

_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_CONSTRAINT,  # no statement violates one in an intact index
        sqlite3.SQLITE_MISMATCH,
    }
)


def is_damage(error: Exception, *, opening: bool = False) -> bool:
    """Return whether the index is damaged; all other errors (locked, full, I/O) can pass.

    SQLite finds a damaged page only when it reads that page, so any call can raise this. When an
    index is opened (``opening``), a plain SQLITE_ERROR ("no such table") is damage too: the schema
    is read then.
    """
    code = primary_code(error)
    if not code:  # raised by this package
        return type(error) is sqlite3.DatabaseError
    return code in _DAMAGE or (opening and code == sqlite3.SQLITE_ERROR)


def say_damaged(error: Exception) -> None:
    """Log that the index is damaged."""
    log.warning("the index of the cache is damaged (%s); the cache starts empty", error)


def connect(directory_fd: int) -> tuple[sqlite3.Connection, int]:
    """Open the index in a directory, or create it; return the largest ``used`` too.

    Raises sqlite3.Error or OSError.
    """
    _prepare(directory_fd)
    connection = sqlite_file.connect(path(directory_fd), "temp_store = MEMORY")
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")  # a damaged page
    try:
        version = make_schema(connection, _SCHEMA, VERSION)
        if version != VERSION:
            raise sqlite3.DatabaseError(f"it has version {version}, not {VERSION}")
        (used,) = connection.execute("SELECT max(used) FROM object").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection, used or 0


def remove(directory_fd: int) -> None:
    """Remove the index. Raises OSError."""
    for name in _FILES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory_fd)


def key_id_of(directory: Path) -> int:
    """Return the ``key_id`` of the codec in an index that is not open; -1 if there is no index.

    UNSETTLED if there may be files of an earlier one. It is SQLite's application id: four bytes at
    offset 68 of the file (SQLite's file format, 1.3).
    """
    try:
        with (directory / NAME).open("rb") as file:
            head = file.read(72)
    except OSError:
        return -1
    return int.from_bytes(head[68:72], "big", signed=True) if len(head) == 72 else -1


def path(directory_fd: int) -> str:
    """Return the path of the index in a directory, by the descriptor of that."""
    return f"/proc/self/fd/{directory_fd}/{NAME}"


def _prepare(directory_fd: int) -> None:
    """Create the file with mode 0600, which SQLite gives its other files too.

    Links and pipes in the place of a file are removed.
    """
    for name in _FILES:
        try:
            found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.unlink(name, dir_fd=directory_fd)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(NAME, flags, 0o600, dir_fd=directory_fd))
