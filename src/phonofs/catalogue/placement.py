"""Computes in which day and under which name a record is shown. Pure: works in any process."""

from zoneinfo import ZoneInfo

from phonofs.catalogue.types import TreeOptions
from phonofs.model import Record
from phonofs.tree.layout import Calendar, day_directory
from phonofs.tree.naming import Template, file_name


class Placement:
    """The options of the tree and what is derived from it.

    options    which objects are shown, and how
    calendar   the days of the time zone shown
    since_ms   nothing created before this time is shown or requested (epoch ms); 0 for no bound

    ``_last_day`` is the day found last: start and stop (epoch ms), region, inode number.
    """

    def __init__(self, options: TreeOptions) -> None:
        """Raises UsageError if the template is invalid."""
        Template.parse(options.template)
        self.options = options
        self.calendar = Calendar(ZoneInfo(options.timezone))
        self.since_ms = self.calendar.start_ms(options.since) if options.since else 0
        self._states = frozenset(options.scope.states)
        self._types = frozenset(options.scope.types)
        self._last_day = (0, 0, 0, 0)

    def parent(self, record: Record, region: int) -> int | None:
        """Return the inode number of the day a record is shown in; None if it is not shown."""
        types = self._types
        if (
            record.created_ms < self.since_ms
            or record.state not in self._states
            or (types and record.type not in types)
        ):
            return None
        return self._day(record.created_ms, region)

    def _day(self, created_ms: int, region: int) -> int:
        """Return the inode number of a day, mostly that of the last call: records come sorted."""
        start_ms, stop_ms, of_region, ino = self._last_day
        if of_region != region or not start_ms <= created_ms < stop_ms:
            day = day_directory(region, self.calendar.day_of(created_ms))
            ino = day.ino
            self._last_day = (*self.calendar.span_ms(day), region, ino)
        return ino

    def name(self, record: Record, variant: int = 0) -> str:
        """Return the file name of a record; ``variant`` 0 is its plain name."""
        return file_name(record, self.options.template, self.calendar.zone, variant)
