"""Checks that only root and this user can change a file or replace it by another one.

Used for files that decide where a secret is sent or a log is written: configuration files, files
with a secret, the log. Every directory and link on the path is checked, since anybody who may
rename one of them can replace the file. A directory with the sticky bit is fine: there nobody can
remove the files of others.
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from phonofs.errors import UsageError

LINKS_MAX = 40  # the kernel's limit: path_resolution(7)
UID_MAP = Path("/proc/self/uid_map")
OVERFLOW_UID = Path("/proc/sys/kernel/overflowuid")


def check_trusted(path: Path, what: str, *, groups: bool = True) -> None:
    """Raise UsageError, with the remedy, if someone else could change or replace ``path``.

    ``what`` is the name of the file in the message. Without ``groups``, members of a group that
    may write are trusted: on some systems /var/log is writable by the group syslog. If the file
    does not exist, only the existing part of the path is checked.
    """
    for place, status in way_to(path):
        if stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode):
            _check_way(path, what, place, status, groups)
        else:
            check_file(path, what, status, groups=groups)


def check_file(path: Path, what: str, status: os.stat_result, *, groups: bool = True) -> None:
    """Check the file itself by its ``fstat``: its owner, and who may write to it.

    Raises UsageError, with the remedy.
    """
    if not stat.S_ISREG(status.st_mode):
        return  # a device or a pipe; opening a directory fails anyway
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


def way_to(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield each directory and link that leads to ``path``, then ``path``, as far as they exist.

    A link in the target of another link is one of them: who may replace it chooses the target.
    """
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
    """Return the parts of a path in reverse order."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def is_trusted(uid: int) -> bool:
    """Return whether a user is root or this user, as far as a user name space shows that."""
    return uid in (0, os.geteuid()) or uid == _nobody()


def _nobody() -> int | None:
    """Return the user id that stands for all owners without a number in this user name space.

    The real root is one of them, so these owners cannot be told apart (user_namespaces(7)). None
    outside a user name space.
    """
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
    """Return whether a group is this user's own or root's and has no other members.

    Systems with such groups use a umask of 002.
    """
    try:
        group = grp.getgrgid(gid)
        user = pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    owners = {user.pw_name, "root"}
    return group.gr_name in owners and set(group.gr_mem) <= owners
