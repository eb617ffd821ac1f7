"""Reads the mount table, checks mount points and unmounts.

Nothing here accesses a mount that this process serves: that would deadlock.
"""

import ctypes
import errno
import logging
import os
import queue
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from phonofs.errors import MountFailed, UsageError

log = logging.getLogger(__name__)

MOUNTS = Path("/proc/self/mountinfo")
FUSE_DEVICE = Path("/dev/fuse")
SOURCE = "phonofs#"  # followed by the profile: the source in the mount table
READ_AHEAD_KB = 1024  # 2.2 times the throughput of the default of 128, measured with one reader

PATIENCE_S = 5.0  # how long an existing mount, such as a network file system, may take to answer
LINKS_MAX = 40  # the kernel's limit: path_resolution(7)
FUSE_CONF = Path("/etc/fuse.conf")
MNT_DETACH = 2  # linux/fs.h, as of umount2(2)

_DEVICE_FD = re.compile(r"/dev/fd/(\d+)")


def device_fd(mountpoint: str) -> int | None:
    """Return N of ``/dev/fd/N``, an open ``/dev/fuse`` that mount(8) passes on; else None."""
    match = _DEVICE_FD.fullmatch(mountpoint)
    return int(match[1]) if match else None


def shown(mountpoint: str) -> str:
    """Return the path to show to people: for ``/dev/fd/N``, the mount point behind it.

    Newer kernels (6.18 is one) show the connection in ``/proc/self/fdinfo``, and its number is the
    minor number of the mount's device. On other kernels ``/dev/fd/N`` is returned as it is.
    """
    descriptor = device_fd(mountpoint)
    if descriptor is None:
        return absolute(mountpoint)
    try:
        said = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    except OSError:
        return mountpoint
    number = re.search(r"^fuse_connection:\s*(\d+)", said, re.MULTILINE)
    return (number and _mount_of_device(f"0:{number[1]}")) or mountpoint


def _mount_of_device(device: str) -> str | None:
    return next((mount.point for mount in mounts() if mount.device == device), None)


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount.

    point   the mount point
    kind    the file system type
    source  ``phonofs#PROFILE`` for our mounts
    device  ``MAJOR:MINOR`` of the file system; equal for all copies of the mount in all name spaces
    number  the kernel's number of this mount; stays if a directory above is renamed
    parent  the kernel's number of the mount that contains this one; stays too
    owner   the user who made a FUSE mount; None for other file systems
    """

    point: str
    kind: str
    source: str
    device: str = field(default="", compare=False)
    number: int = field(default=0, compare=False)
    parent: int = field(default=0, compare=False)
    owner: int | None = field(default=None, compare=False)

    @property
    def is_phonofs(self) -> bool:
        """Whether it is a phonofs mount, by its source or its type.

        The type differs if the option ``subtype`` is set; the source differs if mount.fuse3(8)
        made the mount and passed it on.
        """
        named = self.source.startswith(SOURCE) or self.kind == "fuse.phonofs"
        return named and self.kind.startswith("fuse.")


def mounts(table: Path = MOUNTS) -> list[Mounted]:
    """Return all mounts of this process' name space, in the order they were made (proc(5)).

    Automount points are left out: nothing is mounted on them yet.
    """
    return list(_read(os.fsdecode(table.read_bytes())))


def _read(table: str) -> Iterator[Mounted]:
    for line in filter(None, table.split("\n")):  # a path may hold other line ends
        left, _, right = line.partition(" - ")
        kind, source, options, *_ = [*right.split(" "), "", "", ""]
        if kind != "autofs":
            number, parent, device, _, point, *_ = left.split(" ")
            yield Mounted(
                _unescape(point),
                kind,
                _unescape(source),
                device,
                int(number),
                int(parent),
                _owner(options),
            )


def _owner(options: str) -> int | None:
    """Return the user id that the kernel shows among the options of a FUSE file system."""
    found = re.search(r"(?:^|,)user_id=(\d+)", options)
    return int(found[1]) if found else None


def _unescape(field: str) -> str:
    """Undo the octal escapes: space, tab, newline, backslash, #."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def mounted_at(path: str, table: Path = MOUNTS) -> Mounted | None:
    """Return the topmost mount exactly at ``path``, else None. Does not access the mount."""
    point = absolute(path, table)
    found = [mount for mount in mounts(table) if mount.point == point]
    return found[-1] if found else None


def mount_of(path: str, table: Path = MOUNTS) -> Mounted:
    """Return the phonofs mount that a path lies in. Raises UsageError if there is none."""
    wanted = Path(absolute(path, table))
    above = [mount for mount in mounts(table) if wanted.is_relative_to(mount.point)]
    best = max(above, key=lambda mount: len(mount.point), default=None)
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


def mounted_type(path: str) -> str | None:
    """Return the file system type of the topmost mount exactly at ``path``, else None."""
    found = mounted_at(path)
    return found.kind if found else None


def absolute(path: str, table: Path = MOUNTS) -> str:
    """Return the path with all links resolved, including the last part; keep ``/dev/fd/N``.

    Nothing at or below a phonofs mount is accessed, because that would wait for its process. A
    mount point is never a link, and the tree contains none.
    """
    if device_fd(path) is not None:
        return path
    ours = {mount.point for mount in mounts(table) if mount.is_phonofs}
    names = _names(path if path.startswith("/") else os.path.join(os.getcwd(), path))
    found, links = "/", 0
    while names:
        name = names.pop()
        if name == "..":
            found = os.path.dirname(found)
            continue
        here = os.path.join(found, name)
        target = None if _is_at_or_below(here, ours) else _link_target(here)
        if target is None or links == LINKS_MAX:
            found = here
            continue
        links += 1
        found = "/" if target.startswith("/") else found
        names += _names(target)
    return found


def _names(path: str) -> list[str]:
    """Return the parts of a path in reverse order."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _is_at_or_below(path: str, points: set[str]) -> bool:
    return any(path == point or path.startswith(f"{point}/") for point in points)


def _link_target(path: str) -> str | None:
    try:
        return os.readlink(path) if stat.S_ISLNK(os.lstat(path).st_mode) else None
    except OSError:
        return None


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

    A thread makes the calls, since a call into a mount whose process is stopped cannot be
    cancelled. It calls statvfs too, because the kernel answers stat from its cache even if the
    process has died.
    """
    answers: queue.SimpleQueue[os.stat_result | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            os.statvfs(path)
            answers.put(os.stat(path))
        except OSError as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True, name="phonofs check").start()
    try:
        answer = answers.get(timeout=PATIENCE_S)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, OSError):
        raise answer
    return answer


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


def raise_read_ahead(mountpoint: str) -> bool:
    """Raise the kernel's read-ahead, which only root may do; return whether that worked.

    Call it in a thread while the mount is served: it needs the mount's device number.
    """
    device = os.stat(mountpoint).st_dev
    setting = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
    try:
        Path(setting).write_text(f"{READ_AHEAD_KB}\n")
    except OSError:
        return False
    return True


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
        about = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
        found = re.search(r"^mnt_id:\s*(\d+)$", about, re.MULTILINE)
        yield descriptor, int(found[1]) if found else 0
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
