"""What one transaction of the catalogue does, gathered while it runs. Pure."""

from phonofs.catalogue.folders import Delta
from phonofs.catalogue.words import Change


class Batch:
    """What one transaction does: changes in order, and what they mean for each day."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.deltas: dict[int, Delta] = {}

    def count(self, parent: int, objects: int, size: int, when_ms: int, *, moved: bool) -> None:
        """Objects and bytes more or less in a day; ``moved`` if a name came, went or changed."""
        delta = self.deltas.setdefault(parent, Delta())
        delta.objects += objects
        delta.size += size
        if moved:
            delta.moved = True
            delta.newest_ms = max(delta.newest_ms, when_ms)
