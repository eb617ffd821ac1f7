"""What of the account is shown, where and under which name; part of the catalogue."""

from zoneinfo import ZoneInfo

from phonofs.catalogue.database import Database
from phonofs.catalogue.words import View
from phonofs.errors import Malformed
from phonofs.model import Record
from phonofs.tree.layout import MAX_REGIONS, Calendar, day_folder
from phonofs.tree.naming import Template, file_name


class Sight:
    """Owns the table ``region`` and the calendar of the view.

    ``_last_day`` is the day found last: start and stop (epoch ms), region, inode number.

    Invariant: a region's index is given when it is first seen and never changes, so that the
    inode numbers of its folders never do.
    """

    def __init__(self, database: Database, view: View) -> None:
        """Raises UsageError for a template that cannot be used."""
        Template.parse(view.template)
        self.view = view
        self.calendar = Calendar(ZoneInfo(view.timezone))
        self.since_ms = self.calendar.start_ms(view.since) if view.since else 0
        self._database = database
        self._states = frozenset(view.scope.states)
        self._types = frozenset(view.scope.types)
        self._last_day = (0, 0, 0, 0)
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

    def parent(self, record: Record, region: int) -> int | None:
        """The inode number of the day a record is shown in; None if it is not shown."""
        types = self._types
        if (
            record.created_ms < self.since_ms
            or record.state not in self._states
            or (types and record.type not in types)
        ):
            return None
        return self._day(record.created_ms, region)

    def _day(self, created_ms: int, region: int) -> int:
        """The inode number of a day; records come sorted, so it is mostly that of the last."""
        start_ms, stop_ms, of_region, ino = self._last_day
        if of_region != region or not start_ms <= created_ms < stop_ms:
            day = day_folder(region, self.calendar.day_of(created_ms))
            ino = day.ino
            self._last_day = (*self.calendar.span_ms(day), region, ino)
        return ino

    def name(self, record: Record, variant: int) -> str:
        """Its file name."""
        return file_name(record, self.view.template, self.calendar.zone, variant)
