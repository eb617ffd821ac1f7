"""Which processes keep a mount from going: found in /proc (proc(5)), without touching the mount.

What one may not look at (processes of other users, for others than root) is not found.
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
    """A process, as its ``comm`` names it."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{printable(self.name)} (pid {self.pid})"


def users_of(point: str, device: str) -> list[Process]:
    """The processes with a working folder, an open file or a mapping in the mount at ``point``.

    ``device`` is that of the mount, ``MAJOR:MINOR``.
    """
    return [_named(process) for process in _processes() if _uses(process, point, device)]


def copies_of(device: str) -> list[Process]:
    """One process of each mount name space, other than ours, that has the mount.

    A copy lives in a name space that was made while the mount was there: a container, a unit of
    systemd with a file system of its own.
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
    with suppress(OSError):  # ended meanwhile, or another user's
        links += [process / "fd" / name for name in os.listdir(process / "fd")]
    for link in links:
        try:
            yield os.readlink(link)
        except OSError:
            continue


def _mapped_devices(process: Path) -> set[str]:
    """The devices of its mapped files, as mountinfo writes them: maps has them in hexadecimal."""
    try:
        lines = (process / "maps").read_bytes().decode("ascii", "replace").split("\n")
    except OSError:
        return set()
    pairs = {line.split(None, 4)[3] for line in lines if line}
    return {":".join(str(int(part, 16)) for part in pair.split(":")) for pair in pairs}
