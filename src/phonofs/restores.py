"""Which archived objects were asked back and have not come yet: for ``phonofs status``.

Pure. The service says nothing of a restore under way, so it is remembered here, from the asking
to the change that shows the object as available, or gone. Used by ``app.py``.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from phonofs.model import Record, State

GIVEN_UP_S = 2 * 86400.0
"""The service says up to 24 hours; after twice that nobody need wait any longer."""

Key = tuple[str, str]
"""Region and id."""


class Restores:
    """Owns what is pending: each object and when it was asked for (epoch seconds)."""

    def __init__(self, pending: Mapping[Key, float] | None = None) -> None:
        self._pending = dict(pending or {})

    @classmethod
    def of_note(cls, note: Any) -> "Restores":
        """What :meth:`note` gave, as it comes back from JSON; empty where it is anything else."""
        try:
            return cls({(str(region), str(id)): float(at) for region, id, at in note or ()})
        except (TypeError, ValueError):
            return cls()

    def note(self) -> list[list[Any]]:
        """What is pending, as JSON can say it."""
        return [[region, id, at] for (region, id), at in self._pending.items()]

    def asked(self, region: str, ids: Sequence[str], now_s: float) -> None:
        """These were asked for now; what was asked for too long ago is forgotten."""
        self._pending |= {(region, id): now_s for id in ids}
        self._pending = {k: at for k, at in self._pending.items() if now_s - at < GIVEN_UP_S}

    def settle(self, changes: Iterable[tuple[str, Record]]) -> bool:
        """Take in (kind, record) of what changed; whether anything is no longer pending."""
        before = len(self._pending)
        for kind, record in changes if before else ():
            if kind == "removed" or record.state == State.AVAILABLE:
                self._pending.pop((record.region, record.id), None)
        return len(self._pending) < before

    def statistics(self) -> dict[str, object]:
        """``pending`` and since when the oldest is (``oldest_at``, epoch seconds or None)."""
        return {
            "pending": len(self._pending),
            "oldest_at": min(self._pending.values(), default=None),
        }
