"""The connection to the database of the catalogue: queries, transactions, checkpoints.

Threading: opened in any thread, then used on the event loop only, one call at a time. Nothing is
awaited between BEGIN and COMMIT, so that no other task sees half of a transaction.
"""

import logging
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from phonofs import sqlite_file
from phonofs.catalogue.database_file import DatabaseFile, NoDisk, close, is_damage, sentence
from phonofs.errors import CatalogueError

log = logging.getLogger(__name__)

MOST_VALUES = 10_000
"""The most values in one statement: SQLite allows 32,766 (3.32; STRICT tables need 3.37)."""

AMONG = "IN (SELECT value FROM json_each(?))"
"""Compares a column with any number of values, which :func:`among` makes one parameter of."""


def among(values: Collection[object]) -> str:
    """Return values as the parameter of AMONG."""
    return msgspec.json.encode(values).decode()


class Database:
    """The connection. Owns it, the file and the transaction in progress.

    only_in_memory  why nothing is written to the file, as a sentence; empty if it is written

    A commit only writes to the write-ahead log and never syncs. :meth:`checkpoint` copies the log
    into the file, in a thread.
    """

    def __init__(self, path: Path) -> None:
        """Open or create ``path``; a file that is damaged or has another schema is set aside.

        Raises UsageError if another process uses the file, if it belongs to another program, or
        if the directory cannot be written.
        """
        self.path = path
        self.only_in_memory = ""
        self._former_changes = 0
        self._file = DatabaseFile(path)
        try:
            self._connection = self._file.open()
        except NoDisk as error:
            self._say_in_memory(error)
            self._connection = self._file.in_memory(self._file.content())

    def leave_disk(self, error: Exception) -> None:
        """Continue in memory, if the disk fails although it could be written at the start.

        The database is then empty if it cannot be read. Raises CatalogueError if there is not
        enough memory.
        """
        content = b""
        with suppress(sqlite3.Error, MemoryError):
            content = self._connection.serialize()
        self._former_changes += self._connection.total_changes + 1
        close(self._connection)
        self._say_in_memory(error)
        self._connection = self._file.in_memory(content)

    def _say_in_memory(self, error: Exception) -> None:
        self.only_in_memory = (
            f"the catalogue {self.path} cannot be written ({error}): what is found out is kept in "
            "memory, until the next mount"
        )
        log.warning("%s", self.only_in_memory)

    @property
    def state(self) -> int | None:
        """A number that differs whenever a row has changed; None within a transaction."""
        if self._connection.in_transaction:
            return None
        return self._former_changes + self._connection.total_changes

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

    def run_many(self, sql: str, values: Iterable[Any]) -> None:
        """Run one statement for each of many rows of values. Raises as :meth:`rows` does."""
        try:
            self._connection.executemany(sql, values)
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
            with self._connection:
                yield
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: sqlite3.Error) -> Exception:
        """Return the error to raise; have a damaged file checked when it is next opened."""
        if not is_damage(error):
            return CatalogueError(sentence(self.path, error))
        self._file.suspect()
        return CatalogueError(
            f"the catalogue {self.path} is damaged ({error}); mount again to build it anew."
        )

    def log_bytes(self) -> int:
        """Return the size of the write-ahead log, in bytes; 0 in memory."""
        return 0 if self.only_in_memory else self._file.log_bytes()

    def checkpoint(self) -> None:
        """Copy the log into the file; call it in a thread, while the event loop runs.

        Raises CatalogueError if the disk fails.
        """
        if self.only_in_memory:
            return
        try:
            sqlite_file.checkpoint(self.path)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Write everything to the file, close it and unlock it."""
        close(self._connection)
        self._file.unlock()
