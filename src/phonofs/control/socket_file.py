"""The file of the control socket: made in a folder of ours alone, watched, and removed.

Used by ``server.py``, which serves the clients that connect. The socket has mode 0600 in a 0700
directory, so that only its owner and root reach it.
"""

import logging
import os
import socket
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from phonofs.errors import UsageError

log = logging.getLogger(__name__)

CHECK_S = 2.0
"""How often to check that the file still exists, and to retry making it; costs one lstat."""


@dataclass(frozen=True, slots=True)
class SocketFile:
    """A listening socket and its file, which is recognised by ``identity`` (device, inode)."""

    sock: socket.socket
    path: Path
    identity: tuple[int, int]

    def is_there(self) -> bool:
        """Return whether the file still exists and is ours."""
        try:
            found = self.path.lstat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.identity

    async def lost(self) -> None:
        """Wait until the file is gone; inotify would not report a mount over its directory."""
        while self.is_there():  # noqa: ASYNC110 - nothing tells us of the removal
            await trio.sleep(CHECK_S)

    def remove(self) -> None:
        """Remove the file, and its directory if it is empty then."""
        with suppress(OSError):
            if self.is_there():
                self.path.unlink()
            self.path.parent.rmdir()


def open_socket(wanted: Path) -> SocketFile:
    """Return a listening socket, mode 0600, at ``wanted``, else in a new directory below TMPDIR.

    Clients learn its path from the status of the mount. Raises UsageError if neither works.
    """
    try:
        return _bound(wanted)
    except UsageError as error:
        above = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - mkdtemp makes a private one
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"phonofs-{os.getuid()}-", dir=above))
        except OSError:
            raise error from None
        try:
            opened = _bound(folder / wanted.name)
        except UsageError:
            folder.rmdir()
            raise error from None
        log.info("%s; %s is used instead", error, opened.path)
        return opened


def _bound(path: Path) -> SocketFile:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_own(path.parent)
        _remove_stale(path.parent)
        with suppress(FileNotFoundError):
            path.unlink()
        sock.bind(str(path))
        path.chmod(0o600)  # the directory is private; umask would affect all threads
        sock.listen(16)
        found = path.lstat()
    except UsageError:
        sock.close()
        raise
    except OSError as error:  # the error for a path too long for a socket has no strerror
        sock.close()
        why = error.strerror or error
        raise UsageError(f"the control socket {path} cannot be made: {why}") from None
    return SocketFile(sock, path, (found.st_dev, found.st_ino))


def _check_own(folder: Path) -> None:
    """Raise UsageError if the directory is not private, e.g. made by another user in /tmp."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise UsageError(f"{folder} is not a folder of yours alone; remove it or `chmod 700` it")


def _remove_stale(folder: Path) -> None:
    """Remove the sockets of killed processes, which refuse connections."""
    for path in folder.glob("*.sock"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue
