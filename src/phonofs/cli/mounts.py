"""The phonofs mounts of this machine, as /proc/self/mountinfo (proc(5)) has them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from phonofs.errors import UsageError
from phonofs.fuse.mountpoint import MOUNTS, absolute

SOURCE = "phonofs#"


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount: where, of which file system type, and its source (``phonofs#PROFILE``)."""

    point: str
    kind: str
    source: str

    @property
    def is_phonofs(self) -> bool:
        """Whether it is one of ours.

        The type may be another, by the option ``subtype``; the source is, where mount.fuse3(8)
        made the mount and handed it over.
        """
        named = self.source.startswith(SOURCE) or self.kind == "fuse.phonofs"
        return named and self.kind.startswith("fuse.")


def mounts(table: Path = MOUNTS) -> list[Mounted]:
    """All mounts, in the order they were made."""
    return list(_read(table.read_text(errors="surrogateescape")))


def _read(table: str) -> Iterator[Mounted]:
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        kind, source, *_ = [*right.split(" "), "", ""]
        yield Mounted(_unescape(left.split(" ")[4]), kind, _unescape(source))


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def mounted_at(path: str, table: Path = MOUNTS) -> Mounted | None:
    """The topmost mount exactly at ``path``, else None. Does not touch the mount itself."""
    found = [mount for mount in mounts(table) if mount.point == absolute(path)]
    return found[-1] if found else None


def mount_of(path: str, table: Path = MOUNTS) -> Mounted:
    """The phonofs mount that ``path`` lies in; UsageError where there is none."""
    wanted = Path(absolute(path))
    around = [mount for mount in mounts(table) if wanted.is_relative_to(mount.point)]
    best = max(around, key=lambda mount: len(mount.point), default=None)
    if best is None or not best.is_phonofs:
        raise UsageError(f"{path} is not in a phonofs mount")
    return best


def the_only_mount(table: Path = MOUNTS) -> Mounted:
    """The one phonofs mount of this machine; UsageError where there is none, or more."""
    ours = [mount for mount in mounts(table) if mount.is_phonofs]
    if not ours:
        raise UsageError("nothing is mounted by phonofs")
    if len(ours) > 1:
        points = ", ".join(mount.point for mount in ours)
        raise UsageError(f"more than one phonofs mount is there, name one: {points}")
    return ours[0]
