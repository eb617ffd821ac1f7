"""Assigns the names of the objects of a day. Part of the catalogue."""

# ruff: noqa: S608 - only constants are put into SQL texts here, never values

from phonofs.catalogue.changes import ChangeCollector
from phonofs.catalogue.database import Database
from phonofs.catalogue.queries import COLUMNS, CatalogueQueries, Row
from phonofs.catalogue.regions import Regions
from phonofs.catalogue.types import CHANGED, ObjectChange
from phonofs.model import Record


class Names:
    """Owns the columns ``name`` and ``rank``.

    Invariants: ``(parent, name)`` is unique. Of the objects of a day with the same plain name,
    the one created first has it (rank 0), and the others have a longer one (rank 1 or more).
    """

    def __init__(self, database: Database, regions: Regions, rows: CatalogueQueries) -> None:
        self._database = database
        self._regions = regions
        self._rows = rows

    def free_name(
        self, record: Record, parent: int, ino: int, batch: ChangeCollector
    ) -> tuple[str, int]:
        """Return a free name in a day and its rank; an object created later gives up its name."""
        name = self._regions.name(record, 0)
        holder = self._rows.holder(parent, name)
        if holder is None or holder.ino == ino:
            return name, 0
        if holder.rank == 0 and (record.created_ms, record.id) < holder.order:
            self._give_way(holder, ino, name, batch)
            return name, 0
        return self.longer_name(record, parent, ino)

    def longer_name(self, record: Record, parent: int, ino: int, but: str = "") -> tuple[str, int]:
        """Return the first free longer name, other than ``but``, and its rank."""
        for rank in range(1, 1000):
            name = self._regions.name(record, rank)
            holder = self._rows.holder(parent, name)
            if name != but and (holder is None or holder.ino == ino):
                return name, rank
        raise AssertionError("a name with a hash of the id is free")

    def lengthen(self, row: Row) -> None:
        """Give a longer name to an object whose plain name another one has."""
        record = self._rows.record(row)
        assert record is not None
        assert row.parent is not None
        name, rank = self.longer_name(record, row.parent, row.ino, but=row.name or "")
        self._rename(row, name, rank)

    def _give_way(self, holder: Row, ino: int, name: str, batch: ChangeCollector) -> None:
        """Give ``holder`` a longer name, since its plain name goes to ``ino``."""
        record = self._rows.record(holder)
        assert record is not None, "what is shown has a source"
        assert holder.parent is not None
        longer, rank = self.longer_name(record, holder.parent, holder.ino, but=name)
        self._renamed(holder, longer, rank, record, batch)

    def _renamed(
        self, row: Row, name: str, rank: int, record: Record, batch: ChangeCollector
    ) -> None:
        self._rename(row, name, rank)
        assert row.parent is not None
        assert row.name is not None
        entries = ((row.parent, row.name), (row.parent, name))
        batch.tell(ObjectChange(CHANGED, row.ino, row.parent, name, record, False, entries))
        batch.count(row.parent, 0, 0, 0, moved=True)

    def _rename(self, row: Row, name: str, rank: int) -> None:
        sql = "UPDATE object SET name = ?, rank = ? WHERE ino = ?"
        self._database.run(sql, name, rank, row.ino)

    def vacate(self, row: Row, batch: ChangeCollector) -> None:
        """Remove an object from its day; pass its plain name on to the next object."""
        sql = "UPDATE object SET parent = NULL, name = NULL, rank = 0 WHERE ino = ?"
        self._database.run(sql, row.ino)
        self.pass_on_name(row, batch)

    def pass_on_name(self, row: Row, batch: ChangeCollector) -> None:
        """Give the plain name of ``row`` to the first created of the objects that wait for it."""
        if (
            row.parent is None
            or row.rank
            or row.name is None
            or self._rows.holder(row.parent, row.name)
        ):
            return
        sql = f"SELECT {COLUMNS} FROM object WHERE parent = ? AND rank > 0"
        waiting = (Row(*found) for found in self._database.rows(sql, row.parent))
        for other in sorted(waiting, key=lambda other: other.order):
            record = self._rows.record(other)
            if record is not None and self._regions.name(record, 0) == row.name:
                self._renamed(other, row.name, 0, record, batch)
                return
