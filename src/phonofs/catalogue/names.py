"""Assigns the names of the objects of a day. Part of the catalogue."""

from itertools import count

from phonofs.catalogue.changes import ChangeCollector
from phonofs.catalogue.database import Database
from phonofs.catalogue.placement import Placement
from phonofs.catalogue.queries import ObjectQueries, Row
from phonofs.catalogue.types import CHANGED, ObjectChange
from phonofs.model import Record


class Names:
    """Owns the columns ``name`` and ``wanted``.

    Invariants: ``(parent, name)`` is unique. Of the objects of a day with the same plain name,
    the one created first has it; the others have a longer one, and the plain one as ``wanted``.
    """

    def __init__(self, database: Database, placement: Placement, rows: ObjectQueries) -> None:
        self._database = database
        self._placement = placement
        self._rows = rows

    def free_name(
        self, record: Record, parent: int, ino: int, batch: ChangeCollector
    ) -> tuple[str, str | None]:
        """Return a free name in a day, and the plain name if that is taken.

        An object that was created later gives up its plain name.
        """
        plain = self._placement.name(record)
        holder = self._rows.holder(parent, plain)
        if holder is None or holder.ino == ino:
            return plain, None
        other = self._rows.readable(holder)
        later = holder.wanted is None and holder.order > (record.created_ms, record.id)
        if other is None or not later:
            return self._longer_name(record, parent, ino, plain), plain
        self._rename(holder, self._longer_name(other, parent, holder.ino, plain), plain)
        self._tell(holder, other, batch)
        return plain, None

    def _longer_name(self, record: Record, parent: int, ino: int, plain: str) -> str:
        """Return the first longer name that no other object has."""
        for variant in count(1):
            name = self._placement.name(record, variant)
            holder = self._rows.holder(parent, name)
            if name != plain and (holder is None or holder.ino == ino):
                return name
        raise AssertionError("names with a hash of the id are free")

    def lengthen(self, row: Row) -> None:
        """Give a longer name to an object whose plain name another one has."""
        assert row.parent is not None
        assert row.name is not None
        longer = self._longer_name(self._rows.record(row), row.parent, row.ino, row.name)
        self._rename(row, longer, row.name)

    def _rename(self, row: Row, name: str, wanted: str | None) -> None:
        sql = "UPDATE object SET name = ?, wanted = ? WHERE ino = ?"
        self._database.run(sql, name, wanted, row.ino)

    def _tell(self, before: Row, record: Record, batch: ChangeCollector) -> None:
        """Report an object that was renamed within its day."""
        now = self._rows.row(before.ino)
        assert now is not None
        assert now.place is not None
        assert before.place is not None
        entries = (before.place, now.place)
        batch.tell(ObjectChange(CHANGED, now.ino, *now.place, record, False, entries))
        batch.count(now.place[0], 0, 0, 0, moved=True)

    def vacate(self, row: Row, batch: ChangeCollector) -> None:
        """Remove an object from its day; pass its plain name on to the next object."""
        sql = "UPDATE object SET parent = NULL, name = NULL, wanted = NULL WHERE ino = ?"
        self._database.run(sql, row.ino)
        self.pass_on_name(row, batch)

    def pass_on_name(self, row: Row, batch: ChangeCollector) -> None:
        """Give the former name of ``row`` to the first created of the objects that want it."""
        if row.place is None or self._rows.holder(*row.place):
            return
        for heir in self._rows.wanting(*row.place):
            record = self._rows.readable(heir)
            if record is not None:
                self._rename(heir, row.place[1], None)
                self._tell(heir, record, batch)
                return
