"""The words of the catalogue: an entry of a folder, a change of the tree, the view shown."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol
from zoneinfo import ZoneInfo

import msgspec

from phonofs.model import LISTED_STATES, Record, State
from phonofs.tree.layout import rules_of

CREATED, CHANGED, REMOVED = "created", "changed", "removed"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A file or folder as ``readdir`` and ``stat`` show it. Times are UTC epoch ms, size bytes."""

    ino: int
    name: str
    folder: bool
    size: int
    mtime_ms: int
    ctime_ms: int
    archived: bool


class ObjectChange(msgspec.Struct, gc=False):
    """One object that appeared, changed or went.

    kind      ``created``, ``changed`` or ``removed``
    ino       its inode number
    parent_ino, name  where it is; of a removed one where it was (0 and empty if nowhere)
    record    its record; of a removed one the newest there is
    content   whether its bytes are others than before (of a new one: false)
    entries   (directory, name) of each name of its own that came, went or moved
    path      below the mount point, of a removed one as it was; empty if it had none
    """

    kind: str
    ino: int
    parent_ino: int
    name: str
    record: Record
    content: bool = False
    entries: tuple[tuple[int, str], ...] = ()
    path: str = ""


@dataclass(slots=True)
class ChangeSet:
    """What a transaction of the catalogue changed.

    objects      the objects that appeared, changed or went, in order
    directories  the inode number of each directory whose mtime moved, with the names in it that
                 came or went and belong to none of ``objects``: names of directories, and of
                 objects that were there before and are known only now
    """

    objects: list[ObjectChange] = field(default_factory=list)
    directories: dict[int, set[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.objects or self.directories)

    def add_directories(self, directories: Mapping[int, Iterable[str]]) -> None:
        """Add what changed in directories."""
        for ino, names in directories.items():
            self.directories.setdefault(ino, set()).update(names)


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
