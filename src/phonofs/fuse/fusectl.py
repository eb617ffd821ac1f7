"""How many reads of one mount the kernel hands over at a time.

The kernel calls the reads of its read-ahead, which are nearly all, background requests, and hands
over ``max_background`` of them, 12 unless the file system says otherwise in its answer to
FUSE_INIT (fs/fuse/inode.c), which pyfuse3 does not let us. With twelve reads that wait, every
other one would queue in the kernel, where no deadline of ours counts: 200 stalled reads took
108 s instead of 6. The number can be set afterwards in fusectl (fs/fuse/control.c), by root or by
the user whose mount it is.
"""

import ctypes
import os
import re
from contextlib import suppress
from pathlib import Path

from phonofs.fuse.mountinfo import device_fd

CONNECTIONS = "/sys/fs/fuse/connections"

MOST = 3072
"""Three quarters of the requests that are handled at a time: reads never stop an ls."""

CONGESTED = MOST * 3 // 4
"""Beyond it the kernel reads no further ahead; three quarters is its own default."""

_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same on all architectures (Linux 5.2)
_CREATE = 6  # FSCONFIG_CMD_CREATE, linux/mount.h
_CLOEXEC = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC


def raise_background(mountpoint: str) -> bool:
    """Have the kernel hand over ``MOST`` reads at a time; whether it lets us.

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
    """The number of the connection: the mount's minor, or what the kernel says of the device."""
    fd = device_fd(mountpoint)
    if fd is None:
        return str(os.minor(os.stat(mountpoint).st_dev))
    with suppress(OSError):  # Linux 6.17 and newer say it
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
    """The same where nobody has mounted fusectl, as in containers: root opens it unmounted."""
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
    """A system call that the C library of Debian 12 has no name for."""
    result: int = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
