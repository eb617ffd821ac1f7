"""What of the account is shown, and the numbers of its regions; part of the catalogue."""

from phonofs.catalogue.database import Database
from phonofs.catalogue.placement import Placement
from phonofs.catalogue.types import View
from phonofs.errors import Malformed
from phonofs.tree.layout import MAX_REGIONS


class Regions(Placement):
    """Owns the table ``region``.

    Invariant: a region's index is given when it is first seen and never changes, so that the
    inode numbers of its folders never do.
    """

    def __init__(self, database: Database, view: View) -> None:
        """Raises UsageError for a template that cannot be used."""
        super().__init__(view)
        self._database = database
        self._index: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self.load()

    def load(self) -> None:
        """Take the regions as the file has them."""
        rows = self._database.rows("SELECT name, idx FROM region")
        self._index = dict(rows)
        self._names = {index: name for name, index in rows}

    def region_name(self, index: int) -> str:
        """The service's word for a region."""
        return self._names[index]

    def region_index(self, name: str) -> int:
        """The index of a region; a new one gets the next. Call within a transaction."""
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
        """The index of a region that was seen."""
        return self._index.get(name)
