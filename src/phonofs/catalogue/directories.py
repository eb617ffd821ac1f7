"""The directories that hold objects, with their counts and mtimes. Part of the catalogue.

A directory exists while it holds an object. Its mtime moves when a name in it comes, goes or
changes: to the newest change seen in it, or by one millisecond, so that it never goes back.
"""

from dataclasses import dataclass

from phonofs.catalogue.database import Database
from phonofs.catalogue.types import Entry
from phonofs.tree.layout import ROOT, Directory, directory_of, named


@dataclass(slots=True)
class DirectoryDelta:
    """What one transaction changed in a day: its objects, bytes, newest time, and any names."""

    objects: int = 0
    size: int = 0
    newest_ms: int = 0
    moved: bool = False


class Directories:
    """Owns the table ``directory`` and the list of regions shown.

    Invariants: the counts of a row are the sums over the rows below it, those of a day over its
    objects; a directory that was emptied keeps its row (and mtime) with 0 objects.
    """

    def __init__(self, database: Database, made_ms: int) -> None:
        self._database = database
        self._made_ms = made_ms
        self._regions: dict[int, str] = {}

    def show(self, regions: dict[int, str]) -> None:
        """Set the regions to show: index to name, in the order shown."""
        self._regions = regions

    @property
    def single(self) -> Directory | None:
        """The only region, whose years are shown at the root; None if there are several or none."""
        return Directory(next(iter(self._regions))) if len(self._regions) == 1 else None

    def shown_parent(self, of: Directory) -> int:
        """Return the inode number of the directory that ``of`` is shown in."""
        above = of.parent
        return ROOT if above is None or above == self.single else above.ino

    def shown_name(self, of: Directory) -> str:
        """Return the name of a directory; a region has the service's name."""
        return of.name or self._regions.get(of.region, "")

    def entry(self, ino: int) -> Entry | None:
        """Return the root, a region if there are several, or a directory that is not empty."""
        if ino == ROOT:
            return _entry(ROOT, "", self._root_mtime())
        found = directory_of(ino)
        if found is None or found.region not in self._regions or found == self.single:
            return None
        row = self._database.row("SELECT objects, mtime_ms FROM directory WHERE ino = ?", ino)
        if not found.year:
            return _entry(ino, self.shown_name(found), row[1] if row else self._made_ms)
        return _entry(ino, found.name, row[1]) if row and row[0] else None

    def _root_mtime(self) -> int:
        if self.single is None:
            return self._made_ms
        sql = "SELECT mtime_ms FROM directory WHERE ino = ?"
        row = self._database.row(sql, self.single.ino)
        return row[0] if row else self._made_ms

    def lookup(self, parent: int, name: str) -> Entry | None:
        """Return the directory called ``name`` in ``parent``: the root, a region, year or month."""
        above = self._above(parent)
        if above is None:
            for index, region in self._regions.items():
                if parent == ROOT and region == name:
                    return self.entry(Directory(index).ino)
            return None
        found = named(above, name)
        return self.entry(found.ino) if found else None

    def _above(self, parent: int) -> Directory | None:
        """Return the directory whose parts ``parent`` shows: for the root, the only region."""
        found = self.single if parent == ROOT else directory_of(parent)
        return None if parent != ROOT and found == self.single else found

    def children(self, parent: int) -> list[Entry]:
        """Return the directories in ``parent``, sorted by name."""
        above = self._above(parent)
        if above is None:
            inos = [Directory(index).ino for index in self._regions] if parent == ROOT else []
            found = [entry for entry in map(self.entry, inos) if entry]
            return sorted(found, key=lambda entry: entry.name)
        return [_entry(made.ino, made.name, mtime) for made, mtime in self._below(above)]

    def known(self, above: Directory) -> set[Directory]:
        """Return the directories directly below ``above`` that hold something."""
        return {made for made, _ in self._below(above)}

    def _below(self, above: Directory) -> list[tuple[Directory, int]]:
        if above.region not in self._regions:
            return []
        sql = "SELECT ino, mtime_ms FROM directory WHERE parent = ? AND objects > 0 ORDER BY ino"
        found = ((directory_of(ino), mtime) for ino, mtime in self._database.rows(sql, above.ino))
        return [(made, mtime) for made, mtime in found if made]

    def count(self, of: Directory) -> int:
        """Return how many objects a directory holds, whether its region is shown or not."""
        row = self._database.row("SELECT objects FROM directory WHERE ino = ?", of.ino)
        return int(row[0]) if row else 0

    def days_within(self, region: int, first: Directory, last: Directory) -> list[int]:
        """Return the inode numbers of the days, ``first`` to ``last``, that hold something."""
        sql = "SELECT ino FROM directory WHERE ino BETWEEN ? AND ? AND objects > 0 AND ino & 31"
        return [ino for (ino,) in self._database.rows(sql, first.ino, last.ino)]

    def totals(self) -> tuple[int, int]:
        """Return the number of objects, and their bytes, in the regions shown."""
        sql = "SELECT objects, bytes FROM directory WHERE ino = ?"
        rows = [self._database.row(sql, Directory(index).ino) for index in self._regions]
        return sum(row[0] for row in rows if row), sum(row[1] for row in rows if row)

    def settle(self, deltas: dict[int, DirectoryDelta]) -> dict[int, set[str]]:
        """Apply the changes of days to the counts and mtimes of all directories above them.

        Return the directories whose mtime moved, with the names of directories that came or went.
        """
        moved: dict[int, set[str]] = {}
        for ino, delta in deltas.items():
            day = directory_of(ino)
            assert day is not None, "objects lie in days"
            self._adjust(day, delta, moved)
        return moved

    def _adjust(self, of: Directory, delta: DirectoryDelta, moves: dict[int, set[str]]) -> None:
        sql = "SELECT objects, bytes, mtime_ms FROM directory WHERE ino = ?"
        objects, size, mtime = self._database.row(sql, of.ino) or (0, 0, 0)
        after = objects + delta.objects
        moved = max(mtime + 1, delta.newest_ms) if delta.moved else mtime
        self._database.run(
            "INSERT OR REPLACE INTO directory (ino, parent, objects, bytes, mtime_ms)"
            " VALUES (?, ?, ?, ?, ?)",
            *(of.ino, of.parent.ino if of.parent else ROOT, after, size + delta.size, moved),
        )
        if delta.moved:
            moves.setdefault(ROOT if of == self.single else of.ino, set())
        if of.parent is not None:
            came_or_went = bool(objects) != bool(after)
            if came_or_went:
                moves.setdefault(self.shown_parent(of), set()).add(of.name)
            above = DirectoryDelta(delta.objects, delta.size, moved, came_or_went)
            self._adjust(of.parent, above, moves)

    def recount(self) -> None:
        """Recompute all counts from the objects, after a change of the view."""
        kept = dict(self._database.rows("SELECT ino, mtime_ms FROM directory"))
        self._database.run("DELETE FROM directory")
        counted = self._database.rows(
            "SELECT parent, count(*), sum(size), max(max(created_ms, updated_ms)) FROM object"
            " WHERE parent IS NOT NULL GROUP BY parent ORDER BY parent"
        )
        deltas = {ino: DirectoryDelta(n, size, newest, True) for ino, n, size, newest in counted}
        self.settle(deltas)
        self._database.run_many(
            "UPDATE directory SET mtime_ms = max(mtime_ms, ?) WHERE ino = ?",
            [(mtime + 1, ino) for ino, mtime in kept.items()],
        )


def _entry(ino: int, name: str, mtime_ms: int) -> Entry:
    return Entry(ino, name, True, 0, mtime_ms, mtime_ms, False)
