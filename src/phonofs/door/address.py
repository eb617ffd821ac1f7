"""Where the door of a cache folder is: the file ``door`` in it names the socket. Both halves.

The path of the socket is not derived from the environment: a daemon that systemd started has
another runtime directory than its clients. A client that finds nobody there may run ``phonofs serve
PROFILE --idle 10m``. It returns 0 once a daemon answers, which then goes on in the background: its
own, or another one that was faster; or it says in one sentence why there can be none.
"""

import errno
import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path

DOOR = "door"
"""The name of the file in the cache folder."""

_PATH_MAX = 107
"""The most bytes of the path of a socket (unix(7))."""


def read_address(cache_dir: Path) -> Path | None:
    """Return the path of the socket; None if no daemon has noted one.

    It may have been left by a daemon that was killed: then nobody listens at the socket, or its
    file is gone. Raises PermissionError if the file is not this user's own, OSError if it cannot
    be read.
    """
    try:
        descriptor = os.open(cache_dir / DOOR, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(f"{cache_dir / DOOR} is not a file of yours")
        text = os.read(descriptor, _PATH_MAX + 2)
    finally:
        os.close(descriptor)
    path = os.fsdecode(text.removesuffix(b"\n"))
    return Path(path) if path.startswith("/") and len(text) <= _PATH_MAX + 1 else None


def write_address(cache_dir: Path, path: Path) -> None:
    """Note the path of the socket, in a file of mode 0600, whole or not at all. Raises OSError."""
    new = cache_dir / f"{DOOR}.new"
    new.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(new, flags, 0o600)
    try:
        os.write(descriptor, os.fsencode(path) + b"\n")
    finally:
        os.close(descriptor)
    new.rename(cache_dir / DOOR)


def remove_address(cache_dir: Path) -> None:
    """Remove the note of the path, as far as that is possible: a stale one does no harm."""
    with suppress(OSError):
        (cache_dir / DOOR).unlink()


def connected(path: Path, timeout_s: float) -> socket.socket:
    """Return a socket that is connected to this user's daemon at a path.

    Raises FileNotFoundError if no socket is there, ConnectionRefusedError if nobody of this user
    listens at it: a note that was left may name a folder below /tmp that others can make by now.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(timeout_s)
        made.connect(str(path))
        said = made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", said)[1] != os.geteuid():
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"{path} is another user's")
    except BaseException:
        made.close()
        raise
    return made
