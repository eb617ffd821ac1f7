"""Raises two limits of the kernel for one mount: reads at a time, and bytes of read-ahead.

Nearly all reads come from the kernel's read-ahead, and the kernel treats those as background
requests. It sends at most ``max_background`` of them at a time: 12, unless the file system's
reply to FUSE_INIT says otherwise (fs/fuse/inode.c), which pyfuse3 does not support. If twelve
reads wait, all others queue in the kernel, where our deadlines do not apply: 200 stalled reads
took 108 s instead of 6. Root, or the user who made the mount, can set the number afterwards in
fusectl (fs/fuse/control.c).
"""

import ctypes
import os
from pathlib import Path

CONNECTIONS = "/sys/fs/fuse/connections"

MOST = 3072
"""Background requests at a time: three quarters of ``MAX_TASKS`` in mount.py, so that waiting
reads never block an ls."""

CONGESTED = MOST * 3 // 4
"""Background requests beyond which the kernel stops read-ahead: three quarters of the most, like
the kernel's default."""

READ_AHEAD_KB = 1024
"""A cached file is read 1.5 times as fast as with the default of 128; 4096 gains nothing more."""

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same on all architectures (Linux 5.2)
_CREATE = 6  # FSCONFIG_CMD_CREATE, linux/mount.h
_CLOEXEC = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC


def raise_read_ahead(device: str) -> bool:
    """Raise the kernel's read-ahead, which only root may do; return whether that worked.

    ``device`` is that of the mount, ``MAJOR:MINOR``.
    """
    try:
        Path(f"/sys/class/bdi/{device}/read_ahead_kb").write_text(f"{READ_AHEAD_KB}\n")
    except OSError:
        return False
    return True


def raise_background(device: str) -> bool:
    """Let the kernel send ``MOST`` reads at a time; return whether that was possible.

    ``device`` is that of the mount, ``MAJOR:MINOR``: the minor number is that of the connection.
    """
    number = int(device.partition(":")[2])
    try:
        _write(CONNECTIONS, None, number)
    except OSError:
        return _write_detached(number)
    return True


def _write(folder: str, above: int | None, number: int) -> None:
    for name, value in (("max_background", MOST), ("congestion_threshold", CONGESTED)):
        path = os.path.join(folder, str(number), name)
        file = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=above)
        try:
            os.write(file, b"%d\n" % value)
        finally:
            os.close(file)


def _write_detached(number: int) -> bool:
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
