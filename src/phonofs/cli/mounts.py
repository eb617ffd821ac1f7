"""The phonofs mounts of this machine, as /proc/self/mountinfo (proc(5)) has them."""

import os
from pathlib import Path

from phonofs.errors import UsageError
from phonofs.fuse.mountinfo import MOUNTS, Mounted, absolute, mounted_at, mounts

__all__ = ["Mounted", "mount_of", "mounted_at", "mounts", "the_only_mount"]


def mount_of(path: str, table: Path = MOUNTS) -> Mounted:
    """The phonofs mount that ``path`` lies in; UsageError where there is none."""
    wanted = Path(absolute(path, table))
    around = [mount for mount in mounts(table) if wanted.is_relative_to(mount.point)]
    best = max(around, key=lambda mount: len(mount.point), default=None)
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
        raise UsageError("nothing is mounted by phonofs")
    if len(found) > 1:
        points = ", ".join(mount.point for mount in found)
        raise UsageError(f"there is more than one phonofs mount; name one of {points}")
    return found[0]
