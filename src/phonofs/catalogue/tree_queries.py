"""Reads the tree: entries, paths and places of directories and objects. Part of the catalogue."""

from collections.abc import Callable, Sequence

from phonofs.catalogue.database import Database
from phonofs.catalogue.directories import Directories
from phonofs.catalogue.notes import Notes
from phonofs.catalogue.queries import ObjectQueries, Row
from phonofs.catalogue.records import Records
from phonofs.catalogue.types import Details, Entry, Listed
from phonofs.errors import NoSuchName
from phonofs.model import Record
from phonofs.tree.layout import ROOT, Directory, directory_of, is_directory


class TreeQueries:
    """The part of the catalogue that only reads. Objects are in days, all else is directories.

    notes  what else is remembered of the account
    """

    def __init__(self, database: Database, now_ms: Callable[[], int]) -> None:
        self._database = database
        self.notes = Notes(database)
        made_ms = self.notes.recall("made_ms")
        if made_ms is None:
            self.notes.remember("made_ms", made_ms := now_ms())
        self._directories = Directories(database, int(made_ms))
        self._records = Records(database)
        self._rows = ObjectQueries(database, self._directories, self._records)

    def entry(self, ino: int) -> Entry | None:
        """Return the entry with an inode number; None if there is none."""
        return self._directories.entry(ino) if is_directory(ino) else self._rows.entry(ino)

    def lookup(self, parent_ino: int, name: str) -> Entry | None:
        """Return the entry called ``name`` in a directory; None if there is none."""
        found = directory_of(parent_ino)
        if found is not None and found.day:
            return self._rows.lookup(parent_ino, name)
        return self._directories.lookup(parent_ino, name)

    def children(self, ino: int) -> Sequence[Entry]:
        """Return the entries of a directory, sorted by name. Callers must not change the result."""
        found = directory_of(ino)
        return self._rows.children(ino) if found and found.day else self._directories.children(ino)

    def collect(self, ino: int) -> None:
        """Expect a listing of a day: keep the entries that it adds, for :meth:`children`."""
        self._rows.collect(ino)

    def listed(self, ino: int) -> tuple[str, list[Listed]] | None:
        """Return the region of a day and its objects, sorted by name; None if it is no day."""
        found = directory_of(ino)
        if found is None or not found.day:
            return None
        return self.region_of(found), self._rows.listed(ino)

    def listed_from(self, day: int, name: str, most: int, *, behind: bool) -> list[Listed]:
        """Return the next ``most`` objects of a day by name: from ``name`` on, or ``behind`` it."""
        return self._rows.listed_from(day, name, most, behind=behind)

    def details(self, inos: Sequence[int]) -> dict[int, Details]:
        """Return the details of objects, by inode number; those not there are left out."""
        return self._rows.details(inos)

    def parent(self, ino: int) -> int:
        """Return the directory that holds ``ino``; the root holds itself. Raises NoSuchName."""
        if ino == ROOT:
            return ROOT
        found = directory_of(ino)
        if found is not None:
            return self._directories.shown_parent(found)
        return self._shown(ino)[1][0]

    def path(self, ino: int) -> str:
        """Return the path below the mount point, without a leading slash. Raises NoSuchName."""
        if ino == ROOT:
            return ""
        found = directory_of(ino)
        if found is None:
            parent, name = self._shown(ino)[1]
        else:
            parent, name = (
                self._directories.shown_parent(found),
                self._directories.shown_name(found),
            )
        above = self.path(parent)
        return f"{above}/{name}" if above else name

    def _shown(self, ino: int) -> tuple[Row, tuple[int, str]]:
        """Return the row of an object that is shown, and its place. Raises NoSuchName."""
        row = self._rows.row(ino)
        if row is None or row.place is None:
            raise NoSuchName(f"inode {ino} is not in the tree")
        return row, row.place

    def find(self, region: str, id: str) -> int | None:
        """Return the inode number of the object with this ``id``; None if it is not shown."""
        index = self._directories.known_region(region)
        row = self._rows.find(index, id) if index is not None else None
        return row.ino if row and row.parent is not None else None

    def siblings(self, ino: int, n: int, *, by_inode: bool = False) -> list[tuple[int, Record]]:
        """Return the next readable objects of its day, in the order of inode numbers or names."""
        row = self._rows.row(ino)
        if row is None or row.parent is None:
            return []
        return self._rows.after(row, n, by_inode=by_inode)

    def is_empty(self) -> bool:
        """Return whether the catalogue never had an object, shown or not."""
        return self._database.row("SELECT 1 FROM object LIMIT 1") is None

    def known(self, above: Directory) -> set[Directory]:
        """Return the directories directly below ``above`` that are known to hold something."""
        return self._directories.known(above)

    def shown_directory(self, ino: int) -> Directory | None:
        """Return the region, year, month or day with this number; None for a root above regions."""
        return self._directories.single if ino == ROOT else directory_of(ino)

    def region_of(self, directory: Directory) -> str:
        """Return the name of the region that a directory belongs to."""
        return self._directories.region_name(directory.region)

    def regions(self) -> list[str]:
        """Return the regions shown, as last set; empty if they were never set."""
        return list(self.notes.recall("regions", []))

    def discovered(self) -> list[str]:
        """Return the regions that the service last named, or those shown if it never named any."""
        return list(self.notes.recall("discovered") or self.regions())

    def has_objects(self, region: str) -> bool:
        """Return whether any object of a region is in its directories, shown or not."""
        index = self._directories.known_region(region)
        return index is not None and self._directories.count(Directory(index)) > 0
