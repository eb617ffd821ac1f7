"""The types of the catalogue: a directory entry, a change of the tree, its options."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from phonofs.model import LISTED_STATES, Record, State
from phonofs.tree.layout import rules_of

if TYPE_CHECKING:  # the process that prepares pages needs no settings
    from phonofs.config.settings import Settings

CREATED, CHANGED, REMOVED = "created", "changed", "removed"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A file or directory for ``readdir`` and ``stat``. Times are UTC epoch ms, size bytes."""

    ino: int
    name: str
    is_directory: bool
    size: int
    mtime_ms: int
    ctime_ms: int
    archived: bool


class Details(NamedTuple):
    """What a client that reads by identifier wants to know of an object, beside its entry."""

    region: str
    id: str
    created_ms: int
    state: str
    fingerprint: str


Listed = tuple[int, str, int, int, int, int, str, str, str]
"""An object in the listing of a day: ino, name, size, mtime_ms, ctime_ms, created_ms, id, state,
fingerprint. A plain tuple, as the database gives it: a listing may have 100,000."""


class ObjectChange(msgspec.Struct, gc=False):
    """One object that appeared, changed or went.

    kind      ``created``, ``changed`` or ``removed``
    ino       its inode number
    parent_ino, name  where it is; if it was removed, where it was (0 and empty if nowhere)
    record    its record; if it was removed, the newest record there is
    content   whether its bytes differ from before (false for a new object)
    entries   (directory, name) of each of its names that came, went or moved
    path      below the mount point; if it was removed, its last path, or empty if it had none
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
        """Add changed directories, with the names that came or went in each."""
        for ino, names in directories.items():
            self.directories.setdefault(ino, set()).update(names)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which objects are requested: of which types (all if empty), and whether archived ones too."""

    types: tuple[str, ...] = ()
    archived: bool = True

    @property
    def states(self) -> tuple[str, ...]:
        """The states that a listing requests."""
        shown = sorted(LISTED_STATES) if self.archived else [State.AVAILABLE]
        return tuple(str(state) for state in shown)

    def within(self, other: "Scope") -> bool:
        """Return whether the other scope includes everything in this one."""
        types = not other.types or (bool(self.types) and set(self.types) <= set(other.types))
        return types and (other.archived or not self.archived)


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """What is shown of the account, and how.

    timezone  IANA name of the zone that defines the days
    template  of file names (``tree.naming``)
    since     the oldest day shown, None for all
    scope     which objects are shown
    rules     identifies the zone's offsets, which an update of the system may change
    """

    timezone: str
    template: str
    since: date | None = None
    scope: Scope = Scope()
    rules: str = ""

    @classmethod
    def of(cls, settings: "Settings") -> "TreeOptions":
        """Return the options that the settings define."""
        scope = Scope(tuple(sorted(set(settings.types))), settings.archived)
        rules = rules_of(ZoneInfo(settings.timezone))
        return cls(settings.timezone, settings.name_template, settings.since, scope, rules)
