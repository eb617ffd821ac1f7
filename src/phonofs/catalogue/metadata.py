"""Notes of other packages, stored with the catalogue: any JSON value."""

from typing import Any

import msgspec

from phonofs.catalogue.database import Database


class Metadata:
    """Owns the table ``metadata``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, key: str, value: Any) -> None:
        """Store a note in place of an earlier one."""
        sql = "INSERT OR REPLACE INTO metadata (key, value) VALUES (?, ?)"
        self._database.run(sql, key, msgspec.json.encode(value).decode())

    def get(self, key: str, otherwise: Any = None) -> Any:
        """Return a note; ``otherwise`` if there is none."""
        row = self._database.row("SELECT value FROM metadata WHERE key = ?", key)
        return msgspec.json.decode(row[0]) if row else otherwise
