"""Checks, before a mount is made, that it can be made. Errors name the remedy.

Used by ``mount.py`` and ``doctor``.
"""

import errno
import os
import stat
from pathlib import Path

from phonofs.bounded_call import call_within
from phonofs.errors import MountFailed
from phonofs.fuse.mountinfo import absolute, device_fd, mounted_type, shown

FUSE_DEVICE = Path("/dev/fuse")
FUSE_CONF = Path("/etc/fuse.conf")
PATIENCE_S = 5.0  # how long an existing mount, such as a network file system, may take to answer


def check(mountpoint: str) -> None:
    """Raise MountFailed, with the reason and the remedy, if nothing can be mounted there."""
    if device_fd(mountpoint) is not None:
        return
    path = absolute(mountpoint)
    kind = mounted_type(path)
    try:
        status = os.stat(path) if kind is None else _status_of_mounted(path)
    except TimeoutError:
        raise MountFailed(
            f"{mountpoint} is a mount ({kind}) that does not answer; its process may be stopped"
        ) from None
    except FileNotFoundError:
        raise MountFailed(f"{mountpoint} does not exist; create it with `mkdir`") from None
    except OSError as error:
        if error.errno == errno.ENOTCONN or kind is not None:
            raise MountFailed(
                f"{mountpoint} is a mount whose process has died; "
                f"take it down with `phonofs umount {mountpoint}`"
            ) from None
        raise MountFailed(f"{mountpoint} cannot be used: {error.strerror}") from None
    if kind is not None:
        raise MountFailed(f"{mountpoint} already has a file system mounted on it ({kind})")
    if not stat.S_ISDIR(status.st_mode):
        raise MountFailed(f"{mountpoint} is not a folder")
    _check_empty(mountpoint, path)
    check_device()


def _status_of_mounted(path: str) -> os.stat_result:
    """Return the status of a mount. Raises TimeoutError if it does not answer, and OSError.

    Calls statvfs too, because the kernel answers stat from its cache even if the process has died.
    """

    def ask() -> os.stat_result:
        os.statvfs(path)
        return os.stat(path)

    return call_within(PATIENCE_S, ask)


def _check_empty(mountpoint: str, path: str) -> None:
    try:
        with os.scandir(path) as entries:
            if next(entries, None) is not None:
                raise MountFailed(f"{mountpoint} is not empty; mount on an empty folder")
    except PermissionError:
        raise MountFailed(f"{mountpoint} cannot be read by you: permission denied") from None


def check_device() -> None:
    """Raise MountFailed, with the remedy, if the FUSE device cannot be opened."""
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise MountFailed(
            f"{FUSE_DEVICE} is missing: as root, run `modprobe fuse`; a container needs "
            f"`--device {FUSE_DEVICE} --cap-add SYS_ADMIN`"
        ) from None
    except PermissionError as error:
        raise MountFailed(
            f"{FUSE_DEVICE} cannot be opened by you ({error.strerror}): as root, run "
            f"`chmod 666 {FUSE_DEVICE}` (udev does so on most systems)"
        ) from None
    except OSError as error:
        raise MountFailed(f"{FUSE_DEVICE} cannot be opened: {error.strerror}") from None


def check_others_allowed() -> None:
    """Raise MountFailed if only root may give other users access to a mount.

    ``/etc/fuse.conf`` is read as libfuse reads it (fusermount.c, read_conf): a comment may follow
    a setting, and a last line without a line end is ignored.
    """
    if os.geteuid() == 0:
        return
    try:
        text = FUSE_CONF.read_text(errors="replace")
    except OSError:
        text = ""
    *lines, last = (line.partition("#")[0].strip() for line in text.split("\n"))
    if "user_allow_other" in lines:
        return
    if last == "user_allow_other":
        raise MountFailed(
            f"the last line of {FUSE_CONF} has no line end, so that fusermount3 does not read it; "
            f"as root, run `echo >> {FUSE_CONF}`"
        )
    raise MountFailed(
        f"allow_other needs a line `user_allow_other` in {FUSE_CONF}; ask root to add it"
    )


def check_outside(mountpoint: str, paths: dict[str, Path]) -> None:
    """Raise MountFailed if a file of ours lies inside our mount: using it would deadlock."""
    root = Path(shown(mountpoint))
    for what, path in paths.items():
        if Path(os.path.realpath(path)).is_relative_to(root):
            raise MountFailed(f"{what} {path} lies inside the mount point {mountpoint}")
