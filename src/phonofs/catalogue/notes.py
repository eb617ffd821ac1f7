"""Notes about the account, among them its customers. Part of the catalogue."""

from collections.abc import Iterable
from typing import Any

import msgspec

from phonofs.catalogue.database import Database

MOST_CUSTOMERS = 1000
"""Customers noted per account; if there are more, a rotated key is not recognised."""


class Notes:
    """Owns the table ``metadata``.

    customers  the ``customerId`` of every record ever applied, but no new one after MOST_CUSTOMERS
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.load()

    def load(self) -> None:
        """Read the customers, at the start and after a failed transaction."""
        self.customers = frozenset(map(str, self.recall("customers", ())))

    def remember(self, key: str, value: Any) -> None:
        """Store a note in place of an earlier one: any JSON value."""
        sql = "INSERT OR REPLACE INTO metadata (key, value) VALUES (?, ?)"
        self._database.run(sql, key, msgspec.json.encode(value).decode())

    def recall(self, key: str, otherwise: Any = None) -> Any:
        """Return a note; ``otherwise`` if there is none."""
        row = self._database.row("SELECT value FROM metadata WHERE key = ?", key)
        return msgspec.json.decode(row[0]) if row else otherwise

    def add_customers(self, seen: Iterable[str]) -> None:
        """Note customers whose objects are in the catalogue. A transaction is optional."""
        new = set(seen) - self.customers - {""}
        if new and len(self.customers) < MOST_CUSTOMERS:
            self.customers = self.customers.union(new)
            self.remember("customers", sorted(self.customers))
