"""SQLite connections of which a statement fails, also the COMMIT at the end of a transaction."""

import sqlite3
from collections.abc import Callable

import pytest


def look_at_statements(monkeypatch: pytest.MonkeyPatch, look: Callable[[str], None]) -> None:
    """Have ``look`` called with each statement of the connections made from now on, before it runs.

    It may raise sqlite3.Error, as if the statement had failed.
    """
    real = sqlite3.connect

    class Connection(sqlite3.Connection):
        def execute(self, statement, *rest):
            look(statement)
            return super().execute(statement, *rest)

        def executemany(self, statement, *rest):
            look(statement)
            return super().executemany(statement, *rest)

        def __exit__(self, kind, error, traceback):
            if kind is None:
                try:
                    look("COMMIT")
                except sqlite3.Error as failed:
                    super().__exit__(type(failed), failed, failed.__traceback__)
                    raise
            return super().__exit__(kind, error, traceback)

    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **named: real(*args, **named, factory=Connection)
    )
