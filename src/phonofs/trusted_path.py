"""Whether nobody but root and this user can change a file, or put another one in its place.

Used for what decides where a secret is sent or a log is written: configuration files, files with
a secret, the log. Every folder and link on the way counts, since who may rename one of them
replaces the file. A folder with the sticky bit is fine: in it nobody removes what is another's.
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from phonofs.errors import UsageError

LINKS_MAX = 40  # as the kernel: path_resolution(7)
UID_MAP = Path("/proc/self/uid_map")
OVERFLOW_UID = Path("/proc/sys/kernel/overflowuid")


def check_trusted(path: Path, what: str, *, groups: bool = True) -> None:
    """Raise UsageError, with the remedy, where someone else could change or replace ``path``.

    ``what`` is what the message calls it. Without ``groups`` those in a group that may write count
    as trusted: /var/log is one of syslog's on some systems. What does not exist is fine as far as
    it goes.
    """
    for place, status in _way(path):
        if stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode):
            _check_way(path, what, place, status, groups)
        else:
            check_file(path, what, status, groups=groups)


def check_file(path: Path, what: str, status: os.stat_result, *, groups: bool = True) -> None:
    """The file itself, as ``fstat`` shows it: its owner, and who may write to it."""
    if not stat.S_ISREG(status.st_mode):
        return  # a device or a pipe; a folder is refused by whoever opens it
    if not is_trusted(status.st_uid):
        raise UsageError(
            f"{what} {path} is refused: it belongs to another user (uid {status.st_uid}); "
            "make it yours, or remove it"
        )
    if _others_may_write(status, groups):
        raise UsageError(
            f"{what} {path} is refused: others may write to it; run: chmod go-w '{path}'"
        )


def _check_way(path: Path, what: str, place: Path, status: os.stat_result, groups: bool) -> None:
    if not is_trusted(status.st_uid):
        raise UsageError(
            f"{what} {path} is refused: {place} belongs to another user (uid {status.st_uid}), "
            "who may replace it; move it to a folder of yours"
        )
    if stat.S_ISLNK(status.st_mode) or status.st_mode & stat.S_ISVTX:
        return
    if _others_may_write(status, groups):
        raise UsageError(
            f"{what} {path} is refused: others may replace it, because they may write to "
            f"{place}; run: chmod go-w '{place}'"
        )


def _way(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Each folder and link that leads to the file, then the file, as far as they exist."""
    names = _names(os.path.join(os.getcwd(), path))
    found, links = Path("/"), 0
    yield found, os.stat(found)
    while names:
        name = names.pop()
        if name == "..":
            found = found.parent
            continue
        here = found / name
        try:
            status = here.lstat()
            target = os.readlink(here) if stat.S_ISLNK(status.st_mode) else None
        except OSError:
            return
        yield here, status
        if target is None or links == LINKS_MAX:
            found = here
            continue
        links += 1
        found = Path("/") if target.startswith("/") else found
        names += _names(target)


def _names(path: str) -> list[str]:
    """The parts of a path, the first one last."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def is_trusted(uid: int) -> bool:
    """Whether it is root or this user, as far as a user name space lets that be told."""
    return uid in (0, os.geteuid()) or uid == _nobody()


def _nobody() -> int | None:
    """Whom the kernel shows for owners that a user name space has no number for, the real root
    among them (user_namespaces(7)): there it cannot be told who they are. None outside of one."""
    try:
        mapped = UID_MAP.read_text().split()
        return None if mapped[2] == "4294967295" else int(OVERFLOW_UID.read_text())
    except (OSError, IndexError, ValueError):
        return None


def _others_may_write(status: os.stat_result, groups: bool) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return groups and bool(status.st_mode & stat.S_IWGRP) and not _is_private(status.st_gid)


def _is_private(gid: int) -> bool:
    """Whether a group is this user's own alone, or root's: a umask of 002 goes with it."""
    try:
        group = grp.getgrgid(gid)
        user = pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    owners = {user.pw_name, "root"}
    return group.gr_name in owners and set(group.gr_mem) <= owners
