"""Which spans of creation time were listed, and up to when each region's changes are known.

Stored as spans of UTC ms, not as days, so that nothing has to be listed again for another time
zone; and separately for each scope, since a listing of some types says nothing about others.
"""

# ruff: noqa: S608 - only constants are put into SQL texts here, never values

from phonofs.catalogue.database import Database
from phonofs.catalogue.types import Scope
from phonofs.ranges import Ranges


class Coverage:
    """Owns the tables ``scope``, ``listed`` and ``watermark``, their copy in memory, and the
    column ``region.newest_ms``.

    Invariants: ``listed`` contains a moment only if the catalogue has all objects of the scope
    created then, as far as the service showed them at the time of the listing. For objects
    created before the watermark and in ``listed``, all changes up to the watermark are known.
    """

    def __init__(self, database: Database, scope: Scope) -> None:
        self._database = database
        self._scope = scope
        self.load()

    def load(self) -> None:
        """Read everything from the file, at the start and after a failed transaction."""
        self._id = self._find(self._scope)
        self._listed: dict[int, Ranges] = {}
        sql = "SELECT region, start_ms, stop_ms FROM listed WHERE scope = ?"
        for region, start_ms, stop_ms in self._database.rows(sql, self._id):
            self.listed(region).add(start_ms, stop_ms)
        sql = "SELECT region, updated_ms FROM watermark WHERE scope = ?"
        self._watermarks: dict[int, int] = dict(self._database.rows(sql, self._id))

    def _find(self, scope: Scope) -> int:
        types = "\n".join(sorted(set(scope.types)))
        sql = "SELECT id FROM scope WHERE types = ? AND archived = ?"
        row = self._database.row(sql, types, scope.archived)
        if row is None:
            sql_new = "INSERT INTO scope (types, archived) VALUES (?, ?)"
            self._database.run(sql_new, types, scope.archived)
            row = self._database.row(sql, types, scope.archived)
            self._inherit(scope, row[0])
        return int(row[0])

    def _inherit(self, scope: Scope, new: int) -> None:
        """Copy the spans and watermarks of a wider scope to a new, narrower one."""
        sql = (
            "SELECT id, types, archived FROM scope LEFT JOIN watermark ON scope = id"
            " WHERE id <> ? GROUP BY id ORDER BY max(coalesce(updated_ms, 0)) DESC, id"
        )
        for old, types, archived in self._database.rows(sql, new):
            if scope.within(Scope(tuple(types.split("\n")) if types else (), bool(archived))):
                for table, rest in (("listed", "start_ms, stop_ms"), ("watermark", "updated_ms")):
                    self._database.run(
                        f"INSERT INTO {table} (scope, region, {rest})"
                        f" SELECT ?, region, {rest} FROM {table} WHERE scope = ?",
                        *(new, old),
                    )
                return

    def listed(self, region: int) -> Ranges:
        """Return the listed spans of a region. Callers must not change the result."""
        return self._listed.setdefault(region, Ranges())

    def mark(self, region: int, start_ms: int, stop_ms: int) -> None:
        """Mark ``[start_ms, stop_ms)`` as listed. Call within a transaction."""
        spans = self.listed(region)
        if not spans.covers(start_ms, stop_ms):
            spans.add(start_ms, stop_ms)
            self._write(region)

    def unmark(self, region: int, start_ms: int, stop_ms: int) -> None:
        """Have ``[start_ms, stop_ms)`` listed again. Call within a transaction."""
        self.listed(region).remove(start_ms, stop_ms)
        self._write(region)

    def _write(self, region: int) -> None:
        sql = "DELETE FROM listed WHERE scope = ? AND region = ?"
        self._database.run(sql, self._id, region)
        self._database.run_many(
            "INSERT INTO listed (scope, region, start_ms, stop_ms) VALUES (?, ?, ?, ?)",
            [(self._id, region, start, stop) for start, stop in self.listed(region)],
        )

    def forget(self, region: int) -> None:
        """Mark nothing of a region as listed. Call within a transaction."""
        self._listed.pop(region, None)
        self._write(region)

    def watermark(self, region: int) -> int | None:
        """Return the ``updatedTime`` (epoch ms) up to which changes are known, or None."""
        return self._watermarks.get(region)

    def set_watermark(self, region: int, updated_ms: int) -> None:
        """Store up to which ``updatedTime`` changes are known. Call within a transaction."""
        sql = "INSERT OR REPLACE INTO watermark (scope, region, updated_ms) VALUES (?, ?, ?)"
        self._database.run(sql, self._id, region, updated_ms)
        self._watermarks[region] = updated_ms

    def newest_ms(self, region: int) -> int:
        """Return the newest plausible ``updatedTime`` ever seen in any scope; 0 for none."""
        return int(self._database.row("SELECT newest_ms FROM region WHERE idx = ?", region)[0])

    def note_newest(self, region: int, updated_ms: int) -> None:
        """Store an ``updatedTime`` if it is the newest. Call within a transaction."""
        sql = "UPDATE region SET newest_ms = ? WHERE idx = ? AND newest_ms < ?"
        self._database.run(sql, updated_ms, region, updated_ms)
