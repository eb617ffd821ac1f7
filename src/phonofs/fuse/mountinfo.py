"""Reads the mount table, and tells which mount a path lies in, without touching a mount of ours.

Used by everything that looks for a mount; the commands call it while the mount may be stuck.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from phonofs.errors import UsageError

MOUNTS = Path("/proc/self/mountinfo")
SOURCE = "phonofs#"  # followed by the profile: the source in the mount table
LINKS_MAX = 40  # the kernel's limit: path_resolution(7)

_DEVICE_FD = re.compile(r"/dev/fd/(\d+)")


def device_fd(mountpoint: str) -> int | None:
    """Return N of ``/dev/fd/N``, an open ``/dev/fuse`` that mount(8) passes on; else None."""
    match = _DEVICE_FD.fullmatch(mountpoint)
    return int(match[1]) if match else None


def shown(mountpoint: str) -> str:
    """Return the path to show to people: for ``/dev/fd/N``, the mount point behind it.

    If the kernel does not tell the connection, ``/dev/fd/N`` is returned as it is.
    """
    descriptor = device_fd(mountpoint)
    if descriptor is None:
        return absolute(mountpoint)
    connection = connection_of(descriptor)
    return (connection is not None and _mount_of_device(f"0:{connection}")) or mountpoint


def connection_of(descriptor: int) -> int | None:
    """Return the connection of an open ``/dev/fuse``: the minor number of the mount's device.

    None if the kernel does not tell: only Linux 6.17 and newer have the field.
    """
    try:
        return fdinfo(descriptor, "fuse_connection")
    except OSError:
        return None


def fdinfo(descriptor: int, field: str) -> int | None:
    """Return a number from ``/proc/self/fdinfo`` (proc(5)), None if it is not there.

    Raises OSError.
    """
    text = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    found = re.search(rf"^{field}:\s*(\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else None


def _mount_of_device(device: str) -> str | None:
    return next((mount.point for mount in mounts() if mount.device == device), None)


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount.

    point   the mount point
    kind    the file system type
    source  ``phonofs#PROFILE`` for our mounts
    device  ``MAJOR:MINOR`` of the file system; equal for all copies of the mount in all name spaces
    number  the kernel's number of this mount; stays if a directory above is renamed
    parent  the kernel's number of the mount that contains this one; stays too
    owner   the user who made a FUSE mount; None for other file systems
    """

    point: str
    kind: str
    source: str
    device: str = field(default="", compare=False)
    number: int = field(default=0, compare=False)
    parent: int = field(default=0, compare=False)
    owner: int | None = field(default=None, compare=False)

    @property
    def is_phonofs(self) -> bool:
        """Whether it is a phonofs mount, by its source or its type.

        The type differs if the option ``subtype`` is set; the source differs if mount.fuse3(8)
        made the mount and passed it on.
        """
        named = self.source.startswith(SOURCE) or self.kind == "fuse.phonofs"
        return named and self.kind.startswith("fuse.")


def mounts(table: Path = MOUNTS) -> list[Mounted]:
    """Return all mounts of this process' name space, in the order they were made (proc(5)).

    Automount points are left out: nothing is mounted on them yet.
    """
    return list(_read(os.fsdecode(table.read_bytes())))


def _read(table: str) -> Iterator[Mounted]:
    for line in filter(None, table.split("\n")):  # a path may hold other line ends
        left, _, right = line.partition(" - ")
        kind, source, options, *_ = [*right.split(" "), "", "", ""]
        if kind != "autofs":
            number, parent, device, _, point, *_ = left.split(" ")
            yield Mounted(
                _unescape(point),
                kind,
                _unescape(source),
                device,
                int(number),
                int(parent),
                _owner(options),
            )


def _owner(options: str) -> int | None:
    """Return the user id that the kernel shows among the options of a FUSE file system."""
    found = re.search(r"(?:^|,)user_id=(\d+)", options)
    return int(found[1]) if found else None


def _unescape(field: str) -> str:
    """Undo the octal escapes: space, tab, newline, backslash, #."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def mounted_at(path: str, table: Path = MOUNTS) -> Mounted | None:
    """Return the topmost mount exactly at ``path``, else None. Does not access the mount."""
    point = absolute(path, table)
    found = [mount for mount in mounts(table) if mount.point == point]
    return found[-1] if found else None


def mount_of(path: str, table: Path = MOUNTS) -> Mounted:
    """Return the phonofs mount that a path lies in. Raises UsageError if there is none."""
    wanted = Path(absolute(path, table))
    above = [mount for mount in mounts(table) if wanted.is_relative_to(mount.point)]
    best = max(above, key=lambda mount: len(mount.point), default=None)
    if best is None or not best.is_phonofs:
        raise UsageError(f"{path} is not in a phonofs mount")
    return best


def the_only_mount(table: Path = MOUNTS) -> Mounted:
    """Return the only phonofs mount of the caller, or else the only one of this machine.

    Raises UsageError if there is none, or more than one to choose from.
    """
    found = [mount for mount in mounts(table) if mount.is_phonofs]
    found = [mount for mount in found if mount.owner == os.getuid()] or found
    if not found:
        raise UsageError(
            "nothing is mounted by phonofs; --profile NAME shows a daemon without a mount"
        )
    if len(found) > 1:
        points = ", ".join(mount.point for mount in found)
        raise UsageError(f"there is more than one phonofs mount; name one of {points}")
    return found[0]


def own_mount(profile: str | None = None, table: Path = MOUNTS) -> str | None:
    """Return the only mount (of a profile) that the caller made; None if there is none.

    Raises UsageError if there are several.
    """
    found = [
        mount.point
        for mount in mounts(table)
        if mount.is_phonofs and mount.owner == os.getuid()
        if profile is None or mount.source == SOURCE + profile
    ]
    if len(found) > 1:
        raise UsageError(
            f"there is more than one phonofs mount; name one with --mount: {', '.join(found)}"
        )
    return found[0] if found else None


def mounted_type(path: str) -> str | None:
    """Return the file system type of the topmost mount exactly at ``path``, else None."""
    found = mounted_at(path)
    return found.kind if found else None


def absolute(path: str, table: Path = MOUNTS) -> str:
    """Return the path with all links resolved, including the last part; keep ``/dev/fd/N``.

    Nothing at or below a phonofs mount is accessed, because that would wait for its process. So the
    links of the views stay as they are; all of them lead to folders of the same mount.
    """
    if device_fd(path) is not None:
        return path
    ours = {mount.point for mount in mounts(table) if mount.is_phonofs}
    names = _names(path if path.startswith("/") else os.path.join(os.getcwd(), path))
    found, links = "/", 0
    while names:
        name = names.pop()
        if name == "..":
            found = os.path.dirname(found)
            continue
        here = os.path.join(found, name)
        target = None if _is_at_or_below(here, ours) else _link_target(here)
        if target is None or links == LINKS_MAX:
            found = here
            continue
        links += 1
        found = "/" if target.startswith("/") else found
        names += _names(target)
    return found


def _names(path: str) -> list[str]:
    """Return the parts of a path in reverse order."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _is_at_or_below(path: str, points: set[str]) -> bool:
    return any(path == point or path.startswith(f"{point}/") for point in points)


def _link_target(path: str) -> str | None:
    try:
        return os.readlink(path) if stat.S_ISLNK(os.lstat(path).st_mode) else None
    except OSError:
        return None
