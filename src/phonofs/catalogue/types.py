"""The words of the catalogue: an entry of a folder, a change of the tree, the view shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol
from zoneinfo import ZoneInfo

import msgspec

from phonofs.model import LISTED_STATES, Record, State
from phonofs.tree.layout import rules_of

CREATED, CHANGED, REMOVED = "created", "changed", "removed"
LISTED = "listed"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A file or folder as ``readdir`` and ``stat`` show it. Times are UTC epoch ms, size bytes."""

    ino: int
    name: str
    folder: bool
    size: int
    mtime_ms: int
    ctime_ms: int
    archived: bool


class Change(msgspec.Struct, gc=False):
    """One object that appeared, changed or went.

    kind      ``created``, ``changed`` or ``removed``; ``listed`` stands for objects that were
              there before and are known only now: nothing happened, but for the folders
    ino       its inode number
    parent_ino, name  where it is; of a removed one where it was (0 and empty if nowhere)
    record    its record; of a removed one the newest there is
    content   whether its bytes are others than before (of a new one: false)
    entries   (folder, name) of each name that came, went or moved, of folders too
    folders   inode numbers of the folders whose mtime moved
    path      below the mount point, of a removed one as it was; empty if it had none
    """

    kind: str
    ino: int
    parent_ino: int
    name: str
    record: Record
    content: bool = False
    entries: tuple[tuple[int, str], ...] = ()
    folders: tuple[int, ...] = ()
    path: str = ""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which objects are asked for: of these types (all, if none is named), archived ones or not."""

    types: tuple[str, ...] = ()
    archived: bool = True

    @property
    def states(self) -> tuple[str, ...]:
        """The states a listing asks for."""
        shown = sorted(LISTED_STATES) if self.archived else [State.AVAILABLE]
        return tuple(str(state) for state in shown)

    def within(self, other: "Scope") -> bool:
        """Whether all that this scope asks for, the other one asks for too."""
        types = not other.types or (bool(self.types) and set(self.types) <= set(other.types))
        return types and (other.archived or not self.archived)


@dataclass(frozen=True, slots=True)
class View:
    """What of the account is shown, and how.

    timezone  IANA name, whose days the folders are
    template  file names (``tree.naming``)
    since     the oldest day shown, None for all
    scope     which objects
    rules     stands for the zone's offsets, which an update of the system may change
    """

    timezone: str
    template: str
    since: date | None = None
    scope: Scope = Scope()
    rules: str = ""

    @classmethod
    def of(cls, settings: "Shown") -> "View":
        """The view that the settings ask for."""
        scope = Scope(tuple(sorted(set(settings.types))), settings.archived)
        rules = rules_of(ZoneInfo(settings.timezone))
        return cls(settings.timezone, settings.name_template, settings.since, scope, rules)


class Shown(Protocol):
    """The settings that say what is shown (``config.Settings`` has them)."""

    @property
    def timezone(self) -> str:
        """IANA name."""

    @property
    def name_template(self) -> str:
        """Of file names."""

    @property
    def types(self) -> tuple[str, ...]:
        """Object types to show, empty for all."""

    @property
    def since(self) -> date | None:
        """The oldest date to show."""

    @property
    def archived(self) -> bool:
        """Whether archived objects are shown."""


def as_listed(changes: Sequence[Change]) -> list[Change]:
    """What to tell of objects that were there before: not that they were created.

    Only the folders that moved stay, and what really changed or went.
    """
    kept = [one for one in changes if one.kind != CREATED]
    first = changes[0] if changes else None
    if first is not None and first.kind == CREATED and (first.folders or first.entries[1:]):
        entries = first.entries[1:]  # the first is the object's own
        kept.insert(0, msgspec.structs.replace(first, kind=LISTED, entries=entries))
    return kept
