"""Collects what one transaction of the catalogue does, while it runs. Pure."""

from collections.abc import Callable

from phonofs.catalogue.directories import DirectoryDelta
from phonofs.catalogue.types import CREATED, ChangeSet, ObjectChange
from phonofs.model import Record


def created(record: Record) -> str:
    """The kind of change that a new object is, unless somebody knows better."""
    return CREATED


class ChangeCollector:
    """What one transaction does: changes in order, and what they mean for each day.

    kind_of  says what kind of change an object is that appears; "" if nothing happened to it, as
             it was there before and is known only now
    listed   whether no object that appears is reported, not even by its name: of a listing, only
             the directories matter
    """

    def __init__(self, kind_of: Callable[[Record], str] = created, *, listed: bool = False) -> None:
        self.kind_of = kind_of
        self.listed = listed
        self.changes = ChangeSet()
        self.deltas: dict[int, DirectoryDelta] = {}

    def tell(self, change: ObjectChange) -> None:
        """An object changed or went."""
        self.changes.objects.append(change)

    def appeared(self, ino: int, parent: int, name: str, record: Record) -> None:
        """An object is shown that was not."""
        if self.listed:
            return
        kind = self.kind_of(record)
        if kind:
            self.tell(ObjectChange(kind, ino, parent, name, record, False, ((parent, name),)))
        else:
            self.changes.add_directories({parent: (name,)})

    def count(self, parent: int, objects: int, size: int, when_ms: int, *, moved: bool) -> None:
        """Objects and bytes more or less in a day; ``moved`` if a name came, went or changed."""
        delta = self.deltas.setdefault(parent, DirectoryDelta())
        delta.objects += objects
        delta.size += size
        if moved:
            delta.moved = True
            delta.newest_ms = max(delta.newest_ms, when_ms)
