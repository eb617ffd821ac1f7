"""The cache directory: creates, opens and locks it, and makes sure that it is ours to remove.

::

    CACHE_DIR/            mode 0700; ``accounts`` shows it with several accounts
        content/          the content of objects; locked with flock while a mount uses it
            phonofs-cache the marker, with the version of this layout
            CACHEDIR.TAG  tells backup programs to skip it (bford.info/cachedir)
            index.sqlite
            3f/           one of 256 shards, with one file per object

Everything is opened relative to a descriptor and never through a link. If something is wrong with
the directory, a UsageError says so with the remedy, because only the user can repair it.
"""

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from phonofs.cache.removal import DIRECTORY_FLAGS
from phonofs.errors import CacheInUse, UsageError
from phonofs.trusted_path import is_trusted, way_to

CONTENT = "content"
MARKER = "phonofs-cache"
VERSION = 1

_MARKER_TEXT = f"phonofs cache, layout {VERSION}\n"
_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This folder is a cache of phonofs; it can be removed while nothing is mounted.\n"
)
_OURS = frozenset({CONTENT, "accounts.json", "catalogue.sqlite"})
_OURS_FROM_THE_START = frozenset({MARKER, "CACHEDIR.TAG"})

IN_MEMORY = frozenset({"tmpfs", "ramfs"})
"""File systems that never wait for a device."""

REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "fuse.sshfs", "fuse.s3fs"})
"""File systems on another machine, where locks and SQLite cannot be relied on."""


def claim(path: Path) -> int:
    """Create or open the cache directory, and lock it.

    Returns the descriptor of ``content/``, which holds the lock until it is closed. Raises
    UsageError if the directory must not be used, and OSError if the disk is full, read-only or
    failing: then the caller continues without a cache.
    """
    folder = open_own(path)
    try:
        content = _open_content(folder, path)
    finally:
        os.close(folder)
    with closed_on_error(content):
        with contextlib.suppress(OSError):  # NFS; there the lock of the folder above counts
            _flock(content, path)
        _mark(content, path)
    return content


def has_cache(path: Path) -> bool:
    """Return whether the directory has content of an earlier run."""
    content = path / CONTENT
    return any(os.path.lexists(content / name) for name in (MARKER, "index.sqlite"))


def open_own(path: Path) -> int:
    """Create or open a directory that only this user can use; return its descriptor.

    Raises as :func:`claim` does.
    """
    _make(path)
    folder = _open_folder(path, None, path)
    with closed_on_error(folder):
        found = os.fstat(folder)
        _own(found, path)
        _look_above(path, found)
        if found.st_mode & 0o077:
            _tighten(folder, path)
    return folder


@contextlib.contextmanager
def closed_on_error(fd: int) -> Iterator[None]:
    """Close the descriptor if the block fails."""
    try:
        yield
    except BaseException:
        os.close(fd)
        raise


def _make(path: Path) -> None:
    """Create the directory and its missing parents, all with mode 0700 or less, by the umask."""
    try:
        for missing in reversed([p for p in (path, *path.parents) if not os.path.lexists(p)]):
            missing.mkdir(0o700, exist_ok=True)
    except PermissionError as error:
        raise UsageError(
            f"the cache folder {path} cannot be made: permission denied; "
            "set cache_dir to a folder of your own"
        ) from error
    except (NotADirectoryError, FileExistsError) as error:
        raise UsageError(
            f"the cache folder {path} cannot be made: something in its path is not a folder; "
            "set cache_dir to another one"
        ) from error


def _open_folder(name: Path | str, above: int | None, path: Path) -> int:
    try:
        return os.open(name, DIRECTORY_FLAGS, dir_fd=above)
    except PermissionError as error:
        raise UsageError(
            f"the cache folder {path} cannot be opened: permission denied; "
            "set cache_dir to a folder of your own"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise UsageError(
            f"{path if above is None else path / name} is a link or not a folder, "
            "so it is not used as a cache; remove it or set cache_dir to a real folder"
        ) from error


def _own(found: os.stat_result, path: Path) -> None:
    if found.st_uid != os.geteuid():
        raise UsageError(
            f"the cache folder {path} belongs to someone else (uid {found.st_uid}); "
            "set cache_dir to a folder of your own"
        )


def _look_above(path: Path, folder: os.stat_result) -> None:
    """Refuse a ``folder`` that another user could move away and replace by one of theirs.

    A sticky folder, as /tmp is, lets others add to it but not rename what is not theirs. A link
    cannot be written; it can only be replaced, by whom the folder that it lies in allows.
    """
    for above, found in way_to(path):
        if os.path.samestat(found, folder):
            continue
        fixed = stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX
        why = ""
        if not is_trusted(found.st_uid):
            why = f"belongs to someone else (uid {found.st_uid})"
        elif not fixed and _others_may_write(found):
            why = "can be written by others"
        if why:
            raise UsageError(
                f"the cache folder {path} lies in {above}, which {why}, so that it could be "
                "replaced; set cache_dir to a folder below your own home"
            )


def _others_may_write(found: os.stat_result) -> bool:
    """Return whether anybody but this user and root may write; a group without others may.

    A member of the group who is not in the list of users counts, because a directory service need
    not list its users (``enumerate`` in sssd.conf(5)).
    """
    if found.st_mode & stat.S_IWOTH:
        return True
    if not found.st_mode & stat.S_IWGRP or not found.st_gid:
        return False
    members: set[str] = set()
    with contextlib.suppress(KeyError):
        members.update(grp.getgrgid(found.st_gid).gr_mem)
    users = pwd.getpwall()
    trusted = {user.pw_name for user in users if is_trusted(user.pw_uid)}
    with contextlib.suppress(KeyError):
        trusted.add(pwd.getpwuid(os.geteuid()).pw_name)
    primary = {user.pw_name for user in users if user.pw_gid == found.st_gid}
    return not members | primary <= trusted


def _tighten(folder: int, path: Path) -> None:
    """Take the rights of others away, unless the directory has another use."""
    names = set(os.listdir(folder))
    if names and names.isdisjoint(_OURS):
        raise UsageError(
            f"the cache folder {path} is open to others and holds other things; "
            "set cache_dir to a folder of its own, or chmod it to 0700"
        )
    os.fchmod(folder, 0o700)


def _open_content(folder: int, path: Path) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(CONTENT, 0o700, dir_fd=folder)
    content = _open_folder(CONTENT, folder, path)
    with closed_on_error(content):
        _own(os.fstat(content), path / CONTENT)
        os.fchmod(content, 0o700)
    return content


def lock_folder(folder: int, path: Path) -> int:
    """Lock a directory by the file ``lock`` in it, or by itself if no file can be created.

    Returns the descriptor that holds the lock. Raises CacheInUse if another process has it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        lock = os.open("lock", flags, 0o600, dir_fd=folder)
    except OSError:
        lock = os.open(".", DIRECTORY_FLAGS, dir_fd=folder)
    with closed_on_error(lock), contextlib.suppress(OSError):
        _flock(lock, path)
        os.ftruncate(lock, 0)  # fails on a full disk; the process id is for messages only
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _flock(lock: int, path: Path) -> None:
    """Lock an open file or directory. Raises CacheInUse if another process has locked it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = ""
        with contextlib.suppress(OSError):  # a directory has no text
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
        who = f" (process {holder})" if holder.isdecimal() else ""
        raise CacheInUse(
            f"another phonofs{who} is using the cache folder {path}; "
            "unmount or end it, or give this one a cache_dir of its own"
        ) from error


def _mark(content: int, path: Path) -> None:
    """Make sure that ``content/`` is ours and has this layout; mark a new one."""
    text = _read_marker(content)
    if text is None and set(os.listdir(content)) - _OURS_FROM_THE_START:
        raise UsageError(
            f"{path / CONTENT} holds something that is not a phonofs cache; "
            "remove it or set cache_dir to another folder"
        )
    if text is not None and not _MARKER_TEXT.startswith(text):
        raise UsageError(
            f"the cache in {path / CONTENT} was made by another version of phonofs; "
            "remove it, or set cache_dir to another folder"
        )
    if text != _MARKER_TEXT:  # none yet, or a part of it, after a full disk or a power cut
        write_file(content, MARKER, _MARKER_TEXT.encode())
        write_file(content, "CACHEDIR.TAG", _TAG.encode())


def _read_marker(content: int) -> str | None:
    """Return the marker's text: empty after a power cut, None if there is no marker."""
    try:
        text = read_file(content, MARKER, 200)
    except FileNotFoundError:
        return None
    return "not a file" if text is None else text.decode("utf-8", "replace")


def read_file(folder: int, name: str, most: int) -> bytes | None:
    """Return the first ``most`` bytes of a file in a directory; None if it is not regular."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=folder), "rb") as file:
        return file.read(most) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None


def write_file(folder: int, name: str, data: bytes) -> None:
    """Write a file in a directory, and sync it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        while data:  # a nearly full disk writes a part first, then fails
            data = data[os.write(file, data) :]
        os.fsync(file)
    finally:
        os.close(file)


def file_system_of(fd: int) -> str:
    """Return the type of the file system of ``fd``, from /proc/self/mountinfo (proc(5))."""
    device = os.fstat(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().decode("ascii", "replace").split("\n")
    except OSError:
        return ""
    for line in lines:
        head, _, tail = line.partition(" - ")
        if head.split()[2:3] == [wanted]:
            return tail.split()[0] if tail else ""
    return ""
