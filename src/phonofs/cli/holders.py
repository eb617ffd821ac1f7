"""Finds the processes that use a mount, in /proc (proc(5)), without touching the mount.

Does not find processes that this user may not inspect: those of other users, unless it is root.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from phonofs.fuse.mountinfo import Mounted, mounts
from phonofs.units import printable

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A process, with its name from ``comm``."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{printable(self.name)} (pid {self.pid})"


def users_of(point: str, device: str) -> list[Process]:
    """Return the processes with a working directory, an open file or a mapping in a mount.

    ``point`` is its mount point, ``device`` its device as ``MAJOR:MINOR``.
    """
    return [_named(process) for process in _processes() if _uses(process, point, device)]


def copies_of(device: str) -> list[Process]:
    """Return one process of each other mount namespace that contains the mount.

    A namespace created while the mount exists gets a copy of it: for example that of a container,
    or of a systemd unit with its own view of the file system.
    """
    seen = {_name_space(PROC / "self")}
    found = []
    for process in _processes():
        space = _name_space(process)
        if space is None or space in seen:
            continue
        seen.add(space)
        if any(mount.device == device for mount in _mounts_of(process)):
            found.append(_named(process))
    return found


def _processes() -> Iterator[Path]:
    own = str(os.getpid())
    for entry in sorted(os.listdir(PROC)):
        if entry.isdecimal() and entry != own:
            yield PROC / entry


def _named(process: Path) -> Process:
    try:
        name = (process / "comm").read_text(errors="replace").strip()
    except OSError:
        name = "a process"
    return Process(int(process.name), name)


def _name_space(process: Path) -> str | None:
    try:
        return os.readlink(process / "ns/mnt")
    except OSError:
        return None


def _mounts_of(process: Path) -> list[Mounted]:
    try:
        return mounts(process / "mountinfo")
    except OSError:
        return []


def _uses(process: Path, point: str, device: str) -> bool:
    inside = (f"{point}/", f"{point} (deleted)")
    return any(
        path == point or path.startswith(inside) for path in _paths(process)
    ) or device in _mapped_devices(process)


def _paths(process: Path) -> Iterator[str]:
    links = [process / name for name in ("cwd", "root")]
    with suppress(OSError):  # the process has ended, or belongs to another user
        links += [process / "fd" / name for name in os.listdir(process / "fd")]
    for link in links:
        try:
            yield os.readlink(link)
        except OSError:
            continue


def _mapped_devices(process: Path) -> set[str]:
    """Return the devices of a process's mapped files in decimal, as in mountinfo; maps has hex."""
    try:
        lines = (process / "maps").read_bytes().decode("ascii", "replace").split("\n")
    except OSError:
        return set()
    pairs = {line.split(None, 4)[3] for line in lines if line}
    return {":".join(str(int(part, 16)) for part in pair.split(":")) for pair in pairs}
