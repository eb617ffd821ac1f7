"""Collects the changes of one transaction of the catalogue. Pure."""

from collections.abc import Callable

from phonofs.catalogue.directories import DirectoryDelta
from phonofs.catalogue.types import CREATED, ChangeSet, ObjectChange
from phonofs.model import Record


def created(record: Record) -> str:
    """Return the kind of change of a new object: the default of ``kind_of``."""
    return CREATED


class ChangeCollector:
    """The changes of one transaction in order, and their effect on the counts of each day.

    kind_of  returns the kind of change of an object that appears; "" if nothing happened to it:
             it existed before and is known only now
    listed   whether objects that appear are not reported, not even by name: in a listing, only
             the changed directories matter
    """

    def __init__(self, kind_of: Callable[[Record], str] = created, *, listed: bool = False) -> None:
        self.kind_of = kind_of
        self.listed = listed
        self.changes = ChangeSet()
        self.deltas: dict[int, DirectoryDelta] = {}

    def tell(self, change: ObjectChange) -> None:
        """Add the change of an object."""
        self.changes.objects.append(change)

    def appeared(self, ino: int, parent: int, name: str, record: Record) -> None:
        """Add an object that is now shown and was not before."""
        if self.listed:
            return
        kind = self.kind_of(record)
        if kind:
            self.tell(ObjectChange(kind, ino, parent, name, record, False, ((parent, name),)))
        else:
            self.changes.add_directories({parent: (name,)})

    def count(self, parent: int, objects: int, size: int, when_ms: int, *, moved: bool) -> None:
        """Add to the objects and bytes of a day; ``moved`` if a name came, went or changed."""
        delta = self.deltas.setdefault(parent, DirectoryDelta())
        delta.objects += objects
        delta.size += size
        if moved:
            delta.moved = True
            delta.newest_ms = max(delta.newest_ms, when_ms)
