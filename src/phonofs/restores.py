"""Keeps the pending restores of archived objects, and says why one was not begun.

Pure. The service does not report a restore in progress. So each is kept here from the request
until a change shows that the object is available or removed. Used by ``changes.py``, for
``phonofs status``, and by what requests restores.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from phonofs.errors import Archived, Gone, Malformed
from phonofs.model import Record, State

GIVEN_UP_S = 2 * 86400.0
"""When a restore stops being pending. The service says up to 24 hours; this is twice that."""

Key = tuple[str, str]
"""Region and id."""

NOT_RESTORED = (Archived, Gone, Malformed)
"""The errors with which the service refuses to restore one object; others may go on."""


def why_not_restored(id: str, error: Archived | Gone | Malformed) -> str:
    """Return why an object is not restored, from one of the errors of ``NOT_RESTORED``."""
    if isinstance(error, Gone):
        return str(error)
    # its state has changed, and we do not know yet
    return f"the service restores no object {id}: it may be there already"


class Restores:
    """Owns the pending restores: each object and when it was requested (epoch seconds)."""

    def __init__(self, pending: Mapping[Key, float] | None = None) -> None:
        self._pending = dict(pending or {})

    @classmethod
    def of_note(cls, note: Any) -> "Restores":
        """Load what :meth:`note` returned, after JSON; return an empty one if it is malformed."""
        try:
            return cls({(str(region), str(id)): float(at) for region, id, at in note or ()})
        except (TypeError, ValueError):
            return cls()

    def note(self) -> list[list[Any]]:
        """Return the pending restores in a form that JSON can represent."""
        return [[region, id, at] for (region, id), at in self._pending.items()]

    def asked(self, region: str, ids: Sequence[str], now_s: float) -> None:
        """Add restores requested now; drop those requested more than ``GIVEN_UP_S`` ago."""
        self._pending |= {(region, id): now_s for id in ids}
        self._pending = self._recent(now_s)

    def settle(self, changes: Iterable[tuple[str, Record]]) -> bool:
        """End restores by changes (kind, record); return whether any restore has ended."""
        before = len(self._pending)
        for kind, record in changes if before else ():
            if kind == "removed" or record.state == State.AVAILABLE:
                self._pending.pop((record.region, record.id), None)
        return len(self._pending) < before

    def is_pending(self, region: str, id: str, now_s: float) -> bool:
        """Return whether the restore of an object is pending."""
        at = self._pending.get((region, id))
        return at is not None and now_s - at < GIVEN_UP_S

    def statistics(self, now_s: float) -> dict[str, object]:
        """Return ``pending``, a count, and the time of the oldest request (``oldest_at``, epoch
        seconds or None).
        """
        pending = self._recent(now_s)
        return {"pending": len(pending), "oldest_at": min(pending.values(), default=None)}

    def _recent(self, now_s: float) -> dict[Key, float]:
        return {key: at for key, at in self._pending.items() if now_s - at < GIVEN_UP_S}
