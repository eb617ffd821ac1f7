"""Unmounts: by path for the commands, and by its number in the kernel for the mount itself.

Nothing here waits for a mount that this process serves: that would deadlock.
"""

import ctypes
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from phonofs.errors import MountFailed
from phonofs.fuse.mountinfo import Mounted, absolute, device_fd, fdinfo, mounts

log = logging.getLogger(__name__)

MNT_DETACH = 2  # linux/fs.h, as of umount2(2)


def unmount(mountpoint: str, *, lazy: bool = False) -> None:
    """Unmount a FUSE mount, even if its process has died. Raises MountFailed."""
    path = absolute(mountpoint)
    program = shutil.which("fusermount3") or shutil.which("fusermount")
    command = ["umount"] if os.geteuid() == 0 or program is None else [program, "-u"]
    if lazy:
        command.append("-l" if command[0] == "umount" else "-z")
    outcome = subprocess.run(  # noqa: S603 - a fixed program, the path is one argument
        [*command, "--", path], capture_output=True, text=True, check=False
    )
    if outcome.returncode != 0:
        reason = outcome.stderr.strip().splitlines()
        raise MountFailed(
            f"{mountpoint} could not be unmounted: {reason[-1] if reason else command[0]}"
        )


def just_mounted(mountpoint: str) -> Mounted | None:
    """Return the mount that this process has just made at a path.

    None if another process made it and passed it on, or if it cannot be identified.
    """
    if device_fd(mountpoint) is not None:
        return None
    try:
        with _opened(absolute(mountpoint)) as (_, number):
            return next((mount for mount in mounts() if mount.number == number), None)
    except (MountFailed, OSError) as error:
        log.warning("the mount on %s will not be unmounted at the end: %s", mountpoint, error)
        return None


def is_mounted(ours: Mounted) -> bool:
    """Return whether the file system of a mount is mounted, at its mount point or elsewhere."""
    return any(_same(mount, ours) for mount in mounts())


def _same(one: Mounted, other: Mounted) -> bool:
    """Return whether two mounts belong to one file system.

    The kernel reuses the device number of a file system that has ended. So kind and source must
    be equal too.
    """
    return (one.device, one.kind, one.source) == (other.device, other.kind, other.source)


def take_down(ours: Mounted) -> None:
    """Detach the mount that this process has made, wherever it is now, and nothing else.

    The path does not identify it: others may have mounted over it or in its place, or renamed a
    directory above it. Call this while the kernel still has the connection: afterwards another
    mount may have its numbers. Raises MountFailed if detaching it would detach another mount too.
    """
    table = mounts()
    same = (one for one in table if one.number == ours.number and _same(one, ours))
    now = next(same, None)
    if now is None:  # it was unmounted already
        return
    inside = next((one for one in table if one.parent == now.number), None)
    if inside is not None:
        raise _covered(now, inside)
    with _opened(now.point) as (descriptor, number):
        if number != now.number:
            raise _covered(now, next((one for one in table if one.number == number), now))
        _detach(now, descriptor)


def _covered(ours: Mounted, other: Mounted) -> MountFailed:
    return MountFailed(
        f"{ours.point} could not be unmounted: {other.kind} is mounted over it on {other.point}; "
        f"unmount that, then run `phonofs umount {ours.point}`"
    )


@contextmanager
def _opened(point: str) -> Iterator[tuple[int, int]]:
    """Open a path; give the file descriptor and the number of its mount.

    O_PATH sends no request to the file system, so the path may be in a mount of our own
    (fs/namei.c, do_o_path). Raises MountFailed.
    """
    try:
        descriptor = os.open(point, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise MountFailed(f"{point} could not be looked at: {error.strerror}") from None
    try:
        yield descriptor, fdinfo(descriptor, "mnt_id") or 0
    finally:
        os.close(descriptor)


def _detach(ours: Mounted, descriptor: int) -> None:
    """Detach a mount: as root by the descriptor of its root directory, else with fusermount3."""
    if os.geteuid() != 0:
        unmount(ours.point, lazy=True)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(f"/proc/self/fd/{descriptor}".encode(), MNT_DETACH) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise MountFailed(f"{ours.point} could not be unmounted: {reason}")


def abandon(mountpoint: str) -> None:
    """Detach what is left of a mount after an abort; ignore errors."""
    with suppress(MountFailed):
        unmount(mountpoint, lazy=True)
