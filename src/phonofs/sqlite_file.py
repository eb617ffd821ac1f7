"""What the two stores do alike with an SQLite file: open it, make its schema, copy its log into it.

Used by the index of the cache and by the catalogue. Both write to a log (WAL) and never sync on the
event loop: :func:`checkpoint` does that, in a thread. All functions raise sqlite3.Error.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

WAIT_S = 1.0
"""How long to wait for another connection that has the file locked."""


def connect(path: Path | str, *pragmas: str) -> sqlite3.Connection:
    """Open or create a file, with further pragmas; every statement is committed by itself."""
    connection = sqlite3.connect(
        path, timeout=WAIT_S, isolation_level=None, check_same_thread=False
    )
    try:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "wal_autocheckpoint = 0",  # it syncs
            *pragmas,
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def make_schema(connection: sqlite3.Connection, schema: str, version: int) -> int:
    """Create the schema in a new file; return the version of the schema that the file has."""
    found = number(connection, "user_version")
    if not found:
        connection.executescript(f"BEGIN; {schema} PRAGMA user_version = {version}; COMMIT;")
    return found or version


def probe(connection: sqlite3.Connection) -> None:
    """Write a value that the file already has, to find out whether it can be written."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA user_version = {number(connection, 'user_version')}")


def number(connection: sqlite3.Connection, pragma: str) -> int:
    """Return the value of a pragma that is a number."""
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def checkpoint(path: Path | str) -> None:
    """Copy the log into the file; call it in a thread, because it syncs."""
    with closing(sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def primary_code(error: Exception) -> int:
    """Return SQLite's primary result code for an error; 0 if SQLite did not raise it."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
