"""The catalogue: everything known about the account, on disk, as a tree.

The file system reads names, attributes, listings and records from it; the lister and the follower
write what the service returns. Threading: :meth:`Catalogue.open` and :meth:`Catalogue.checkpoint`
may run in a thread. Everything else is called on the event loop, is short (a lookup 10 µs, a page
of 100 records 3 to 5 ms) and never awaits, so each call is a critical section. Three invariants
rely on this: names are unique in a day, the counts of directories agree with the objects, and an
inode number is assigned only once.
"""

import logging
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec

from phonofs.catalogue.changes import ChangeCollector
from phonofs.catalogue.coverage import Coverage
from phonofs.catalogue.database import Database
from phonofs.catalogue.facets import FacetStore
from phonofs.catalogue.names import Names
from phonofs.catalogue.objects import Objects
from phonofs.catalogue.placement import Placement
from phonofs.catalogue.prepared_page import PreparedPage, prepare
from phonofs.catalogue.queries import Row
from phonofs.catalogue.rebuild import rebuild
from phonofs.catalogue.record_codec import Damaged
from phonofs.catalogue.text_sizes import TextSizes
from phonofs.catalogue.tree_queries import TreeQueries
from phonofs.catalogue.types import (
    CHANGED,
    CREATED,
    REMOVED,
    ChangeSet,
    Details,
    Entry,
    ObjectChange,
    TreeOptions,
)
from phonofs.errors import CatalogueError, Malformed, NoSuchName
from phonofs.model import Page, Record
from phonofs.tree.layout import day_directory
from phonofs.tree.sanitize import clean

log = logging.getLogger(__name__)

__all__ = [
    "CHANGED",
    "CREATED",
    "REMOVED",
    "Catalogue",
    "ChangeSet",
    "Details",
    "Entry",
    "ObjectChange",
    "TreeOptions",
]

RECORDS_AT_ONCE = 100
"""Records read in one step, 3 to 6 ms."""

MOST_UNCHECKED = 20_000
"""Records of one listing that are stored however full the disk is: 40 MB, twice a large day."""


class Catalogue(TreeQueries):
    """The stored tree of the account. Owns the database and the totals; its parts own the tables.

    placement   the options of the tree, and in which day and under which name it shows a record
    coverage    how far each region is known
    facets      what searches look at in each record
    text_sizes  how long the texts are that are made of objects

    Invariant: the copies in memory (regions, spans, totals, next inode number) agree with the
    file after each call, even one that failed.
    """

    def __init__(self, database: Database, options: TreeOptions, now_ms: Callable[[], int]) -> None:
        """Use :meth:`open`."""
        self.placement = Placement(options)
        super().__init__(database, now_ms)
        self._names = Names(database, self.placement, self._rows)
        parts = (self._directories, self.placement, self._rows, self._names, self._records)
        self._objects = Objects(database, *parts)
        self.coverage = Coverage(database, options.scope, self._writing, now_ms)
        self.facets = FacetStore(
            database,
            self._directories,
            self._rows,
            self._records,
            self._writing,
            self._list_again,
        )
        self.text_sizes = TextSizes(database, self._writing)
        with self._writing():
            self.coverage.inherit()
            self._place_again(options)
        self._show()

    @classmethod
    def open(
        cls,
        path: Path,
        options: TreeOptions,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> "Catalogue":
        """Open or create the catalogue at ``path``; may run in a thread.

        If the options changed since last time, recompute days and names from the stored records (a
        minute for a million). Raises UsageError if the template is bad, or if the file is in use
        or not writable. A file that is damaged or has another schema is set aside and rebuilt.
        """
        database = Database(path)
        try:
            try:
                return cls(database, options, now_ms)
            except CatalogueError as error:
                database.leave_disk(error)
                return cls(database, options, now_ms)
        except BaseException:
            database.close()
            raise

    @property
    def only_in_memory(self) -> str:
        """Why nothing is written to the file, as a sentence; empty if the file is written."""
        return self._database.only_in_memory

    def log_bytes(self) -> int:
        """Return the size of the write-ahead log, in bytes."""
        return self._database.log_bytes()

    def checkpoint(self) -> None:
        """Copy the write-ahead log into the file. Raises CatalogueError.

        This is the only method to be called in a thread while the event loop runs.
        """
        self._database.checkpoint()

    def check_free_space(
        self, records: int, min_free_bytes: int, what: str, most: int = MOST_UNCHECKED
    ) -> None:
        """Raise CatalogueError if the disk is too full for this many records of ``what``.

        Up to ``most`` records are stored however full the disk is, so that a full disk does not
        make directories unreadable. More of them (a listing may be endless) are stored only while
        ``min_free_bytes`` are free.
        """
        path = self._database.path
        with suppress(OSError):
            if records > most and shutil.disk_usage(path).free < min_free_bytes:
                raise CatalogueError(
                    f"{what} cannot be listed: there are more than {most} objects, and the"
                    f" disk of {path} has less free space than 'cache_min_free'"
                )

    def close(self) -> None:
        """Close the file. Nothing may be called afterwards."""
        self._database.close()

    def _place_again(self, options: TreeOptions) -> None:
        """Recompute days and names if the file was written with other options."""
        encoded = msgspec.json.decode(msgspec.json.encode(options))
        before = self.notes.recall("view")
        if before == encoded:
            return
        if before is not None:
            log.info("other options of the tree than last time: days and names are computed anew")
            parts = (self.placement, self._rows, self._names, self._directories)
            for row in rebuild(self._database, *parts):
                self._list_again(row)
        self.notes.remember("view", encoded)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Run a transaction; if it fails, reload the copies in memory from the file."""
        try:
            with self._database.transaction():
                yield
        except BaseException:
            self._load()
            raise

    def _load(self) -> None:
        """Read the copies in memory again from the file."""
        self._directories.load()
        self._objects.load()
        self._records.load()
        self.coverage.load()
        self.notes.load()
        self._totals = self._directories.totals()

    # records

    def record(self, ino: int) -> Record:
        """Return the record of an object that is shown.

        Raises NoSuchName if it is not shown, Malformed if the stored record is damaged.
        """
        row, _ = self._shown(ino)
        return self._record(row)

    def records_of(
        self, day: int, among: Collection[int] | None = None
    ) -> Iterator[list[tuple[int, str, Record]]]:
        """Yield inode number, name and record of all objects of a day, some at each step.

        Or of those objects of the day that are ``among`` some. The caller may let others run
        between two steps: what has left the day meanwhile is left out. Raises Malformed as
        :meth:`record` does.
        """
        # In the order in which records are stored.
        inos = self._rows.inos_of_day(day) if among is None else sorted(among)
        for start in range(0, len(inos), RECORDS_AT_ONCE):
            rows = self._rows.numbered(inos[start : start + RECORDS_AT_ONCE])
            shown = sorted(row for row in rows if row.parent == day)
            yield [(row.ino, row.name or "", self._record(row)) for row in shown]

    def _record(self, row: Row) -> Record:
        try:
            return self._rows.record(row)
        except Damaged as damaged:
            with self._writing():
                self._list_again(row)
            raise Malformed(
                f"object {row.id} in the catalogue is damaged; list its day again"
            ) from damaged

    def _list_again(self, row: Row) -> None:
        """Have the day of an object with a damaged record listed when it is next opened."""
        log.warning("object %s in the catalogue is damaged; its day is listed again", row.id)
        calendar, region = self.placement.calendar, self._directories.region_name(row.region)
        day = day_directory(row.region, calendar.day_of(row.created_ms))
        self._objects.expect(row)
        self.coverage.unmark(region, *calendar.span_ms(day))

    def totals(self) -> tuple[int, int]:
        """Return the number of objects in the regions shown and their bytes, from memory."""
        return self._totals

    # what the service says

    def apply(
        self, records: Sequence[Record], *, listed: bool = False, watermark: int | None = None
    ) -> ChangeSet:
        """Apply records, in any order, even repeated or late ones; return what that changed.

        New objects count as created. If the records are ``listed``, new objects existed before,
        and only the directories that changed are returned. If the records come from a poll that
        began at ``watermark``, a new object counts as created, changed or existing before,
        depending on its times.

        The newer ``updatedTime`` wins. An object that is withdrawn, or in a state that is not
        listed, leaves the tree. Raises CatalogueError if the disk fails: then nothing is applied.
        """
        kind_of = CREATED if watermark is None else partial(self._kind_of, watermark)
        batch = ChangeCollector(kind_of, listed=listed)
        with self._writing():
            self._objects.put(records, batch)
            self.notes.add_customers({record.customer for record in records})
            for region in {record.region for record in records}:
                times = [record.updated_ms for record in records if record.region == region]
                self.coverage.note_newest(region, times)
            self._complete(batch)
        return batch.changes

    def _kind_of(self, watermark: int, record: Record) -> str:
        """Return the kind of change of a new object of a poll; "" if it existed before."""
        spans = self.coverage.listed(record.region)
        if record.created_ms >= watermark or spans.covers(record.created_ms, record.created_ms + 1):
            return CREATED
        return CHANGED if record.updated_ms >= watermark else ""

    def prepare(self, page: Page, region: str) -> PreparedPage:
        """Prepare a page for :meth:`take`."""
        return prepare(page, region, self.region_index(region), self.placement)

    def take(self, pages: Sequence[PreparedPage], *, listed: bool = True) -> ChangeSet:
        """Apply prepared pages; return what that changed. They are as records in :meth:`apply`."""
        batch = ChangeCollector(listed=listed)
        with self._writing():
            for page in pages:
                self._objects.take(page, batch)
                self.notes.add_customers(page.customers)
                self.coverage.note_newest(page.region, page.updated)
            self._complete(batch)
        return batch.changes

    def known_objects(self, region: str, start_ms: int, end_ms: int) -> dict[int, int]:
        """Map the inode number of each object shown created in the span to its ``updatedTime``.

        Call it before a listing, and pass the result to :meth:`reconcile` afterwards.
        """
        return {
            row.ino: row.updated_ms
            for parent in self.days_of(region, start_ms, end_ms)
            for row in self._rows.of_day(parent)
            if start_ms <= row.created_ms < end_ms
        }

    def reconcile(
        self, before: Mapping[int, int], seen_ids: Collection[str], listed_at: int
    ) -> ChangeSet:
        """Remove the objects that a complete listing did not have; return what that changed.

        The listing had the objects ``seen_ids`` and no others, and ended at ``listed_at`` (epoch
        ms). An object is removed if it was known ``before`` the listing (:meth:`known_objects`),
        was not seen by it, and did not change while it ran.
        """
        batch = ChangeCollector()
        with self._writing():
            for row in self._rows.numbered([*before]):
                unchanged = row.parent and row.updated_ms == before[row.ino]
                if unchanged and row.id not in seen_ids:
                    now = self._rows.row(row.ino)  # the drop before may have renamed it
                    if now is not None:
                        self._objects.drop(now, listed_at, batch)
            self._complete(batch)
        return batch.changes

    def days_of(self, region: str, start_ms: int, end_ms: int) -> list[int]:
        """Return the inode numbers of the days, in a span of time, that hold something."""
        index = self._directories.known_region(region)
        if index is None or start_ms >= end_ms:
            return []
        days = (self.placement.calendar.day_of(moment) for moment in (start_ms, end_ms - 1))
        first, last = (day_directory(index, day) for day in days)
        return self._directories.days_within(first, last)

    def set_size(self, ino: int, size: int) -> bool:
        """Store the real length of an object's content, in bytes; return whether it is new."""
        row = self._rows.row(ino)
        if row is None or row.size == size:
            return False
        batch = ChangeCollector()
        try:
            with self._writing():
                self._objects.resize(row, size, batch)
                self._complete(batch)
        except CatalogueError as error:
            log.warning("the size of object %s could not be noted: %s", row.id, error)
            return False
        return row.parent is not None

    def touched(self, ino: int) -> ChangeSet:
        """Return the change to report if the bytes served of an object so far were wrong."""
        try:
            _, place = self._shown(ino)
        except NoSuchName:
            return ChangeSet()
        record, path = self.record(ino), self.path(ino)
        return ChangeSet([ObjectChange(CHANGED, ino, *place, record, True, path=path)])

    def _complete(self, batch: ChangeCollector) -> None:
        """Update the directories, and add paths and directories to the changes."""
        changes = batch.changes
        above = {ino: self.path(ino) for ino in {one.parent_ino for one in changes.objects} if ino}
        for change in changes.objects:
            if change.parent_ino:
                change.path = f"{above[change.parent_ino]}/{change.name}"
        if batch.deltas:
            changes.add_directories(self._directories.apply(batch.deltas))
            self._totals = self._directories.totals()

    # regions

    def discover(self, names: Sequence[str]) -> list[str]:
        """Note the regions that the service names; return the regions to show.

        A known region that the service no longer names is shown while it holds objects: only a
        listing can tell that they are gone.
        """
        kept = [name for name in self.discovered() if name not in names and self.has_objects(name)]
        found = [*names, *kept]
        if self.notes.recall("discovered") != found:
            try:
                self.notes.remember("discovered", found)
            except CatalogueError as error:  # the disk fails: the regions will be requested again
                log.warning("the regions are not noted: %s", error)
        return found

    def begin(self, names: Sequence[str]) -> None:
        """Set the regions when a mount starts; if the disk fails, continue in memory."""
        try:
            self.set_regions(names)
        except CatalogueError as error:
            self._database.leave_disk(error)
            self._load()  # the database may be empty now
            self.set_regions(names)

    def set_regions(self, names: Sequence[str]) -> None:
        """Set the regions to show. Raises Malformed if a name cannot be that of a directory."""
        for name in names:
            if not name or clean(name) != name or name.isdecimal():
                raise Malformed(f"{name!r} is not a region.")
        wanted = list(dict.fromkeys(names))
        with self._writing():
            for name in wanted:
                self._directories.region_index(name)
            self.notes.remember("regions", wanted)
        self._show()

    def _show(self) -> None:
        self._directories.show(self.regions())
        self._totals = self._directories.totals()

    def region_index(self, region: str) -> int:
        """Return the number of a region in the inode numbers of its directories."""
        return self._directories.region_index(region)
