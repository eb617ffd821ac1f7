"""The file of a socket: made in a folder of ours alone, watched, and removed.

Used by ``server.py`` and by ``door/``, which serve the clients that connect. The socket has mode
0600 in a 0700 directory, so that only its owner and root reach it.
"""

import logging
import os
import socket
import stat
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from phonofs.errors import UsageError

log = logging.getLogger(__name__)

BACKLOG = 1024
"""Clients that may wait to be accepted. One more gets EAGAIN if it connects with a timeout."""

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


def open_socket(wanted: Path, what: str) -> SocketFile:
    """Return a listening socket, mode 0600, at ``wanted``, else in a new directory below TMPDIR.

    Clients learn its path elsewhere. Raises UsageError if neither works; ``what`` names it then.
    """
    try:
        return _bound(wanted, what)
    except UsageError as error:
        above = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - mkdtemp makes a private one
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"phonofs-{os.getuid()}-", dir=above))
        except OSError:
            raise error from None
        try:
            opened = _bound(folder / wanted.name, what)
        except UsageError:
            folder.rmdir()
            raise error from None
        log.info("%s; %s is used instead", error, opened.path)
        return opened


def _bound(path: Path, what: str) -> SocketFile:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_own(path.parent)
        _remove_stale(path.parent)
        with suppress(FileNotFoundError):
            path.unlink()
        sock.bind(str(path))
        path.chmod(0o600)  # the directory is private; umask would affect all threads
        sock.listen(BACKLOG)
        found = path.lstat()
    except UsageError:
        sock.close()
        raise
    except OSError as error:  # the error for a path too long for a socket has no strerror
        sock.close()
        why = error.strerror or error
        raise UsageError(f"the {what} {path} cannot be made: {why}") from None
    return SocketFile(sock, path, (found.st_dev, found.st_ino))


def _check_own(folder: Path) -> None:
    """Raise UsageError if the directory is not private, e.g. made by another user in /tmp."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise UsageError(f"{folder} is not a folder of yours alone; remove it or `chmod 700` it")


def _remove_stale(folder: Path) -> None:
    """Remove the sockets of killed processes, which refuse connections."""
    for path in (*folder.glob("*.sock"), *folder.glob("*.door")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue


class KeptSocket:
    """Keeps a socket listening, and makes it again if its file is removed.

    path     its path; None while there is none
    trouble  why there is none, or ''
    """

    def __init__(self, wanted: Path, what: str, missed: str) -> None:
        """``what`` names the socket in messages; ``missed`` says what fails while there is none."""
        self._wanted = wanted
        self._what = what
        self._missed = missed
        self.path: Path | None = None
        self.trouble = ""

    async def run(
        self,
        serve: Callable[[trio.SocketStream], Awaitable[object]],
        clients: trio.Nursery,
        moved: Callable[[Path | None], None] = lambda path: None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve each client in the nursery ``clients`` until cancelled; those there stay when the
        file is lost.

        ``moved`` is called with each new path, before clients are accepted there, and with None
        when there is none. It may raise UsageError if the path cannot be used.
        """
        opened = self._open(moved)
        task_status.started()
        while True:
            if opened is None:
                await trio.sleep(CHECK_S)
            else:
                await self._serve_until_lost(opened, serve, clients)
            opened = self._open(moved)

    def _open(self, moved: Callable[[Path | None], None]) -> SocketFile | None:
        opened = None
        try:
            opened = open_socket(self._wanted, self._what)
            moved(opened.path)
        except UsageError as error:
            if opened is not None:
                opened.sock.close()
                opened.remove()
            if str(error) != self.trouble:
                log.warning("%s: %s", self._missed, error)
            self.path, self.trouble = None, str(error)
            moved(None)
            return None
        self.path, self.trouble = opened.path, ""
        return opened

    async def _serve_until_lost(
        self,
        opened: SocketFile,
        serve: Callable[[trio.SocketStream], Awaitable[object]],
        clients: trio.Nursery,
    ) -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(opened.sock))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(
                    partial(trio.serve_listeners, serve, [listener], handler_nursery=clients)
                )
                await opened.lost()
                log.info("the %s %s was removed; it is created again", self._what, opened.path)
                nursery.cancel_scope.cancel()
        finally:
            opened.remove()
