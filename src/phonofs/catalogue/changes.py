"""What one transaction of the catalogue does, gathered while it runs. Pure."""

from collections.abc import Sequence

from phonofs.catalogue.directories import DirectoryDelta
from phonofs.catalogue.types import Change


class ChangeSet:
    """What one transaction does: changes in order, and what they mean for each day.

    listed  the objects were there before: of those that come new together, the first is told for
            all, since it is the folders that matter (see :func:`words.as_listed`)
    """

    def __init__(self, *, listed: bool = False) -> None:
        self.listed = listed
        self.changes: list[Change] = []
        self.deltas: dict[int, DirectoryDelta] = {}

    def tell(self, changes: Sequence[Change], parent: int, delta: DirectoryDelta) -> None:
        """Changes, and what they mean for their day."""
        self.changes += changes
        self.count(parent, delta.objects, delta.size, delta.newest_ms, moved=delta.moved)

    def count(self, parent: int, objects: int, size: int, when_ms: int, *, moved: bool) -> None:
        """Objects and bytes more or less in a day; ``moved`` if a name came, went or changed."""
        delta = self.deltas.setdefault(parent, DirectoryDelta())
        delta.objects += objects
        delta.size += size
        if moved:
            delta.moved = True
            delta.newest_ms = max(delta.newest_ms, when_ms)
