"""The SQLite file under the catalogue: opened, checked, brought to the newest schema.

Threading: opened wherever the caller likes (a thread, when the schema has to move), then used on
the event loop only, one call at a time; what happens between BEGIN and COMMIT is never awaited,
so that no other task sees half of it.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from phonofs.errors import Unavailable, UsageError

log = logging.getLogger(__name__)

APPLICATION_ID = 0x70686F6E
"""``phon`` in the header of the file: another program's database is not taken for ours."""

WHOLE_CHECK_BYTES = 32 << 20
"""Up to this size the file is checked through at every opening (40 ms); above it, when it was
found faulty in use: a gigabyte takes seconds, and the tree must be there at once."""

WAL_PAGES = 4000
"""16 MiB of changes between two checkpoints: a listed day of 10,000 objects makes 2 or 3."""

MOST_VALUES = 900
"""In one statement: an SQLite before 3.32 takes 999."""

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class _Damaged(Exception):
    """The file cannot be trusted."""


class Database:
    """The connection. Owns it, the transaction in progress and the mark of a faulty file."""

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        """Open or make ``path``; a damaged file is set aside and made anew.

        ``migrations[n]`` takes schema ``n`` to ``n + 1``. Raises UsageError for a file of a newer
        version, one in use by another process, or a folder that cannot be written.
        """
        self.path = path
        self._suspect = path.with_name(path.name + ".suspect")
        try:
            self._connection = self._opened(migrations)
        except _Damaged as damage:
            aside = self._set_aside()
            log.error(
                "the catalogue %s is damaged (%s); it was set aside as %s and is built anew",
                path, damage, aside.name,
            )  # fmt: skip
            self._connection = self._opened(migrations)

    def _opened(self, migrations: Sequence[str]) -> sqlite3.Connection:
        connection = None
        try:
            whole = not _exists(self.path.with_name(self.path.name + "-wal"))
            _make_private(self.path)
            connection = sqlite3.connect(
                self.path, timeout=1.0, isolation_level=None, check_same_thread=False
            )
            self._prepare(connection, whole)
            _migrate(connection, migrations, self.path)
        except sqlite3.DatabaseError as error:
            _close(connection)
            if _code(error) in _DAMAGE:
                raise _Damaged(str(error)) from error
            raise UsageError(_sentence(self.path, error)) from error
        except OSError as error:
            _close(connection)
            raise UsageError(f"the catalogue {self.path} cannot be opened: {error}.") from error
        except BaseException:
            _close(connection)
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection, whole: bool) -> None:
        """Settings, then the checks. EXCLUSIVE: nobody else, so no waiting for anybody's lock."""
        for pragma in (
            "locking_mode = EXCLUSIVE",
            "journal_mode = WAL",
            "synchronous = NORMAL",
            f"wal_autocheckpoint = {WAL_PAGES}",
            "cache_size = -16384",
        ):
            connection.execute(f"PRAGMA {pragma}")
        if _number(connection, "application_id") not in (0, APPLICATION_ID):
            raise UsageError(f"{self.path} is not a catalogue; move it away.")
        pages, page_size = _number(connection, "page_count"), _number(connection, "page_size")
        size = self.path.stat().st_size
        if whole and size != pages * page_size:
            raise _Damaged(f"{size} bytes instead of {pages * page_size}")
        if size <= WHOLE_CHECK_BYTES or _exists(self._suspect):
            answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if answer != "ok":
                raise _Damaged(str(answer).partition("\n")[0])
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
            older.unlink(missing_ok=True)  # names and numbers of people: one is enough to look into
        os.replace(self.path, aside)
        return aside

    @property
    def state(self) -> int | None:
        """A number that is another one whenever a row has changed; None within a transaction."""
        return None if self._connection.in_transaction else self._connection.total_changes

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """All rows of a query. Raises Unavailable where the disk fails."""
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def row(self, sql: str, *values: Any) -> Any:
        """The first row of a query, or None."""
        try:
            return self._connection.execute(sql, values).fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def run(self, sql: str, *values: Any) -> None:
        """One statement."""
        self.row(sql, *values)

    def run_many(self, sql: str, values: Iterable[Any]) -> int:
        """One statement for each of many rows of values; how many rows were changed."""
        try:
            return self._connection.executemany(sql, values).rowcount
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def insert(self, into: str, rows: Sequence[tuple[Any, ...]], otherwise: str = "") -> int:
        """Insert many rows; how many were. ``into``: the table and its columns in brackets.

        Many go with one statement: twice as fast as one by one, where each counts the numbers of
        AUTOINCREMENT anew.
        """
        if not rows:
            return 0
        width = len(rows[0])
        many = MOST_VALUES // width
        one = f"({','.join('?' * width)})"
        begin = f"INSERT INTO {into} VALUES "  # noqa: S608 - constants of the callers
        together = begin + ",".join([one] * many) + otherwise
        whole = len(rows) - len(rows) % many
        try:
            execute = self._connection.execute
            done = sum(
                execute(together, tuple(chain.from_iterable(rows[start : start + many]))).rowcount
                for start in range(0, whole, many)
            )
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return done + max(0, self.run_many(begin + one + otherwise, rows[whole:]))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is written in the block. Nothing may be awaited in it."""
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
        """What to raise; a damaged file is marked, so that the next opening looks at it."""
        if _code(error) in _DAMAGE:
            with suppress(OSError):
                self._suspect.touch(mode=0o600)
            return Unavailable(
                f"the catalogue {self.path} is damaged ({error}); mount again to build it anew."
            )
        return Unavailable(_sentence(self.path, error))

    def close(self) -> None:
        """Write everything to the file and let it go."""
        _close(self._connection)


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _make_private(path: Path) -> None:
    """0600 in a 0700 folder, whatever the umask; SQLite's side files take the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _migrate(connection: sqlite3.Connection, migrations: Sequence[str], path: Path) -> None:
    version = _number(connection, "user_version")
    if version > len(migrations):
        raise UsageError(
            f"the catalogue {path} was written by a newer phonofs (schema {version}, this one "
            f"knows {len(migrations)}); update phonofs, or move the file away."
        )
    for number, script in enumerate(migrations[version:], version + 1):
        connection.executescript(
            f"BEGIN; {script}; PRAGMA user_version = {number};"
            f"PRAGMA application_id = {APPLICATION_ID}; COMMIT;"
        )


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
        connection.close()
