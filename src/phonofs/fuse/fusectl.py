"""Raises the number of reads that the kernel sends at a time to one mount.

Nearly all reads come from the kernel's read-ahead, and the kernel treats those as background
requests. It sends at most ``max_background`` of them at a time: 12, unless the file system's
reply to FUSE_INIT says otherwise (fs/fuse/inode.c), which pyfuse3 does not support. If twelve
reads wait, all others queue in the kernel, where our deadlines do not apply: 200 stalled reads
took 108 s instead of 6. Root, or the user who made the mount, can set the number afterwards in
fusectl (fs/fuse/control.c).
"""

import ctypes
import os
import re
from contextlib import suppress
from pathlib import Path

from phonofs.fuse.mountinfo import device_fd

CONNECTIONS = "/sys/fs/fuse/connections"

MOST = 3072
"""Background requests at a time: three quarters of ``MAX_TASKS`` in mount.py, so that waiting
reads never block an ls."""

CONGESTED = MOST * 3 // 4
"""Background requests beyond which the kernel stops read-ahead: three quarters of the most, like
the kernel's default."""

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same on all architectures (Linux 5.2)
_CREATE = 6  # FSCONFIG_CMD_CREATE, linux/mount.h
_CLOEXEC = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC


def raise_background(mountpoint: str) -> bool:
    """Let the kernel send ``MOST`` reads at a time; return whether that was possible.

    Call it in a thread while the mount is served: it needs the mount's device number.
    """
    number = _connection(mountpoint)
    if number is None:
        return False
    try:
        _write(CONNECTIONS, None, number)
    except OSError:
        return _write_detached(number)
    return True


def _connection(mountpoint: str) -> str | None:
    """Return the connection's number: the minor number of the mount's device.

    For ``/dev/fd/N`` the kernel tells the number if it can; else return None.
    """
    fd = device_fd(mountpoint)
    if fd is None:
        return str(os.minor(os.stat(mountpoint).st_dev))
    with suppress(OSError):  # Linux 6.17 and newer have the field fuse_connection
        said = Path(f"/proc/self/fdinfo/{fd}").read_text()
        found = re.search(r"^fuse_connection:\s*(\d+)$", said, re.MULTILINE)
        return found[1] if found else None
    return None


def _write(folder: str, above: int | None, number: str) -> None:
    for name, value in (("max_background", MOST), ("congestion_threshold", CONGESTED)):
        path = os.path.join(folder, number, name)
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=above)
        try:
            os.write(file, b"%d\n" % value)
        finally:
            os.close(file)


def _write_detached(number: str) -> bool:
    """Set the numbers as root if fusectl is not mounted, as in containers: open it detached."""
    if os.geteuid() != 0:
        return False
    opened: list[int] = []
    try:
        opened.append(_call(_FSOPEN, b"fusectl", _CLOEXEC))
        _call(_FSCONFIG, opened[0], _CREATE, None, None, 0)
        opened.append(_call(_FSMOUNT, opened[0], _CLOEXEC, 0))
        _write(".", opened[1], number)
    except OSError:
        return False
    finally:
        for fd in opened:
            os.close(fd)
    return True


def _call(number: int, *arguments: object) -> int:
    """Make a system call for which the C library of Debian 12 has no function. Raises OSError."""
    result: int = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
