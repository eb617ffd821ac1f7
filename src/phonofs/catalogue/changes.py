"""Collects the changes of one transaction of the catalogue. Pure."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from phonofs.catalogue.types import CREATED, ChangeSet, ObjectChange
from phonofs.model import Record


@dataclass(slots=True)
class DirectoryDelta:
    """What one transaction changed in a day: its objects, bytes, newest time, and any names."""

    objects: int = 0
    size: int = 0
    newest_ms: int = 0
    moved: bool = False

    def add(self, objects: int, size: int, newest_ms: int, *, moved: bool) -> None:
        """Add objects and bytes; ``moved`` if a name came, went or changed."""
        self.objects += objects
        self.size += size
        if moved:
            self.moved = True
            self.newest_ms = max(self.newest_ms, newest_ms)


class ChangeCollector:
    """The changes of one transaction in order, and their effect on the counts of each day.

    kind_of  the kind of change of an object that appears, or a function that returns it; "" if
             nothing happened to the object: it existed before and is known only now
    listed   whether objects that appear are not reported, not even by name: in a listing, only
             the changed directories matter
    """

    def __init__(
        self, kind_of: str | Callable[[Record], str] = CREATED, *, listed: bool = False
    ) -> None:
        self.kind_of = kind_of
        self.listed = listed
        self.changes = ChangeSet()
        self.deltas = defaultdict[int, DirectoryDelta](DirectoryDelta)

    def tell(self, change: ObjectChange) -> None:
        """Add the change of an object."""
        self.changes.objects.append(change)

    def appeared(self, ino: int, parent: int, name: str, record: Record) -> None:
        """Add an object that is now shown and was not before."""
        kind = self.kind_of if isinstance(self.kind_of, str) else self.kind_of(record)
        if kind:
            self.tell(ObjectChange(kind, ino, parent, name, record, False, ((parent, name),)))
        else:
            self.changes.add_directories({parent: (name,)})

    def count(self, parent: int, objects: int, size: int, when_ms: int, *, moved: bool) -> None:
        """Add to what changed in a day (:meth:`DirectoryDelta.add`)."""
        self.deltas[parent].add(objects, size, when_ms, moved=moved)
