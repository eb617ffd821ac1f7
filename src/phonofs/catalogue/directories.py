"""The directories that hold objects, with their counts and mtimes. Part of the catalogue.

A directory exists while it holds an object. Its mtime moves when a name in it comes, goes or
changes: to the newest change seen in it, or by one millisecond, so that it never goes back.
"""

from collections.abc import Iterable

from phonofs.catalogue.changes import DirectoryDelta
from phonofs.catalogue.database import Database
from phonofs.catalogue.types import Entry
from phonofs.errors import Malformed
from phonofs.tree.layout import MAX_REGIONS, ROOT, Directory, directory_of, named


class Directories:
    """Owns the tables ``region`` and ``directory``, and the list of regions shown.

    Invariants: a region gets its index when it is first seen and keeps it, so that the inode
    numbers of its directories never change. The counts of a row are the sums over the rows below
    it, those of a day over its objects; a directory that was emptied keeps its row (and mtime)
    with 0 objects.
    """

    def __init__(self, database: Database, made_ms: int) -> None:
        """``made_ms``: the mtime of a directory that never held anything."""
        self._database = database
        self._made_ms = made_ms
        self._shown: list[int] = []
        self.load()

    def load(self) -> None:
        """Read the regions from the file, at the start and after a failed transaction."""
        rows = self._database.rows("SELECT name FROM region ORDER BY idx")
        self._names: list[str] = [name for (name,) in rows]

    # regions

    def region_name(self, index: int) -> str:
        """Return the service's name of a region."""
        return self._names[index]

    def known_region(self, name: str) -> int | None:
        """Return the index of a region; None if it was never seen."""
        return self._names.index(name) if name in self._names else None

    def region_index(self, name: str) -> int:
        """Return the index of a region; a new region gets the next one. Call within a transaction.

        Raises Malformed if there are too many regions.
        """
        if name not in self._names:
            if len(self._names) >= MAX_REGIONS:
                raise Malformed(f"the service has more than {MAX_REGIONS} regions.")
            sql = "INSERT INTO region (idx, name) VALUES (?, ?)"
            self._database.run(sql, len(self._names), name)
            self._names.append(name)
        return self._names.index(name)

    def show(self, names: Iterable[str]) -> None:
        """Set the regions to show, all of them known, in the order shown."""
        self._shown = [self.region_index(name) for name in names]

    @property
    def single(self) -> Directory | None:
        """The only region, whose years are shown at the root; None if there are several or none."""
        return Directory(self._shown[0]) if len(self._shown) == 1 else None

    # the tree

    def shown_parent(self, directory: Directory) -> int:
        """Return the inode number of the directory that ``directory`` is shown in."""
        above = directory.parent
        return ROOT if above is None or above == self.single else above.ino

    def shown_name(self, directory: Directory) -> str:
        """Return the name of a directory; a region has the service's name."""
        return directory.name or self.region_name(directory.region)

    def entry(self, ino: int) -> Entry | None:
        """Return the root, a region if there are several, or a directory that is not empty."""
        found = self.single if ino == ROOT else directory_of(ino)
        if ino == ROOT:
            return _entry(ROOT, "", (found and self._row(found)[2]) or self._made_ms)
        if found is None or found.region not in self._shown or found == self.single:
            return None
        objects, _, mtime_ms = self._row(found)
        if found.year and not objects:
            return None
        return _entry(ino, self.shown_name(found), mtime_ms or self._made_ms)

    def lookup(self, parent: int, name: str) -> Entry | None:
        """Return the directory called ``name`` in ``parent``: the root, a region, year or month."""
        above = self._above(parent)
        if above is not None:
            found = named(above, name)
            return self.entry(found.ino) if found else None
        return next((entry for entry in self.children(parent) if entry.name == name), None)

    def _above(self, parent: int) -> Directory | None:
        """Return the directory whose parts ``parent`` shows: for the root, the only region."""
        found = self.single if parent == ROOT else directory_of(parent)
        return None if parent != ROOT and found == self.single else found

    def children(self, parent: int) -> list[Entry]:
        """Return the directories in ``parent``, sorted by name."""
        above = self._above(parent)
        if above is not None:
            return [_entry(made.ino, made.name, mtime) for made, mtime in self._below(above)]
        shown = self._shown if parent == ROOT else []
        found = [entry for index in shown if (entry := self.entry(Directory(index).ino))]
        return sorted(found, key=lambda entry: entry.name)

    def known(self, above: Directory) -> set[Directory]:
        """Return the directories directly below ``above`` that hold something."""
        return {made for made, _ in self._below(above)}

    def _below(self, above: Directory) -> list[tuple[Directory, int]]:
        if above.region not in self._shown:
            return []
        sql = "SELECT ino, mtime_ms FROM directory WHERE parent = ? AND objects > 0 ORDER BY ino"
        found = ((directory_of(ino), mtime) for ino, mtime in self._database.rows(sql, above.ino))
        return [(made, mtime) for made, mtime in found if made]

    # counts

    def _row(self, directory: Directory) -> tuple[int, int, int]:
        """Return objects, bytes and mtime (epoch ms), zeros if nothing was ever in it."""
        sql = "SELECT objects, bytes, mtime_ms FROM directory WHERE ino = ?"
        return self._database.row(sql, directory.ino) or (0, 0, 0)

    def count(self, directory: Directory) -> int:
        """Return how many objects a directory holds, whether its region is shown or not."""
        return self._row(directory)[0]

    def days_within(self, first: Directory, last: Directory) -> list[int]:
        """Return the inode numbers of the days, ``first`` to ``last``, that hold something."""
        sql = "SELECT ino FROM directory WHERE ino BETWEEN ? AND ? AND objects > 0 AND ino & 31"
        return [ino for (ino,) in self._database.rows(sql, first.ino, last.ino)]

    def totals(self) -> tuple[int, int]:
        """Return the number of objects, and their bytes, in the regions shown."""
        rows = [self._row(Directory(index)) for index in self._shown]
        return sum(row[0] for row in rows), sum(row[1] for row in rows)

    def apply(self, deltas: dict[int, DirectoryDelta]) -> dict[int, set[str]]:
        """Apply the changes of days to the counts and mtimes of all directories above them.

        Return the directories whose mtime moved, with the names of directories that came or went.
        """
        moved: dict[int, set[str]] = {}
        for ino, delta in deltas.items():
            day = directory_of(ino)
            assert day is not None, "objects lie in days"
            self._adjust(day, delta, moved)
        return moved

    def _adjust(
        self, directory: Directory, delta: DirectoryDelta, moves: dict[int, set[str]]
    ) -> None:
        objects, size, mtime = self._row(directory)
        after = objects + delta.objects
        moved = max(mtime + 1, delta.newest_ms) if delta.moved else mtime
        above = directory.parent
        self._database.run(
            "INSERT OR REPLACE INTO directory (ino, parent, objects, bytes, mtime_ms)"
            " VALUES (?, ?, ?, ?, ?)",
            *(directory.ino, above.ino if above else ROOT, after, size + delta.size, moved),
        )
        if delta.moved:
            moves.setdefault(ROOT if directory == self.single else directory.ino, set())
        if above is not None:
            came_or_went = bool(objects) != bool(after)
            if came_or_went:
                moves.setdefault(self.shown_parent(directory), set()).add(directory.name)
            self._adjust(
                above, DirectoryDelta(delta.objects, delta.size, moved, came_or_went), moves
            )

    def recount(self) -> None:
        """Recompute all counts from the objects, after a change of the options."""
        kept = dict(self._database.rows("SELECT ino, mtime_ms FROM directory"))
        self._database.run("DELETE FROM directory")
        counted = self._database.rows(
            "SELECT parent, count(*), sum(size), max(max(created_ms, updated_ms)) FROM object"
            " WHERE parent IS NOT NULL GROUP BY parent ORDER BY parent"
        )
        self.apply({ino: DirectoryDelta(n, size, ms, True) for ino, n, size, ms in counted})
        self._database.run_many(
            "UPDATE directory SET mtime_ms = max(mtime_ms, ?) WHERE ino = ?",
            [(mtime + 1, ino) for ino, mtime in kept.items()],
        )


def _entry(ino: int, name: str, mtime_ms: int) -> Entry:
    return Entry(ino, name, True, 0, mtime_ms, mtime_ms, False)
