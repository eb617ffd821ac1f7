"""What is shown of the account, and the indexes of its regions. Part of the catalogue."""

from phonofs.catalogue.database import Database
from phonofs.catalogue.placement import Placement
from phonofs.catalogue.types import View
from phonofs.errors import Malformed
from phonofs.tree.layout import MAX_REGIONS


class Regions(Placement):
    """Owns the table ``region``.

    Invariant: a region gets its index when it is first seen and keeps it, so that the inode
    numbers of its directories never change.
    """

    def __init__(self, database: Database, view: View) -> None:
        """Raises UsageError if the template is invalid."""
        super().__init__(view)
        self._database = database
        self._index: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self.load()

    def load(self) -> None:
        """Read the regions from the file."""
        rows = self._database.rows("SELECT name, idx FROM region")
        self._index = dict(rows)
        self._names = {index: name for name, index in rows}

    def region_name(self, index: int) -> str:
        """Return the service's name of a region."""
        return self._names[index]

    def region_index(self, name: str) -> int:
        """Return the index of a region; a new region gets the next one. Call within a transaction.

        Raises Malformed if there are too many regions.
        """
        found = self._index.get(name)
        if found is None:
            found = len(self._index)
            if found >= MAX_REGIONS:
                raise Malformed(f"the service has more than {MAX_REGIONS} regions.")
            self._database.run("INSERT INTO region (idx, name) VALUES (?, ?)", found, name)
            self._index[name] = found
            self._names[found] = name
        return found

    def known_region(self, name: str) -> int | None:
        """Return the index of a region; None if it was never seen."""
        return self._index.get(name)
