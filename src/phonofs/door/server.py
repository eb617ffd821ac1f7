"""Serves the tree to programs of the same user over a unix socket, the door.

Every daemon that has claimed a cache folder opens one: a mount and ``phonofs serve`` alike. So all
who read the account on this machine share one cache, one follower of changes, and one budget. The
socket has mode 0600 in a 0700 directory, and the kernel tells whose process connects. Its path is
in the file ``door`` of the cache folder while it can be used.
"""

import errno
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

import trio

from phonofs import __version__
from phonofs.control.peers import peer_of
from phonofs.control.socket_file import KeptSocket
from phonofs.door import protocol
from phonofs.door.address import remove_address, write_address
from phonofs.door.cat import ReadAhead
from phonofs.door.connection import Connection, Services
from phonofs.door.failures import Failures, RequestError
from phonofs.door.sender import Sender, SlowClient
from phonofs.errors import UsageError
from phonofs.vfs import Vfs

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 500
"""Connections at a time. Some processes may have 1024 files open, and the cache has a quarter."""

SEND_BUFFER = 1 << 20
"""Bytes of an answer that the kernel takes at once, unless the system allows less: with the usual
208 KiB most of each message had to be copied and sent in pieces."""


class Door:
    """Owns the connections, the counts of those that have ended, and the file ``door``."""

    def __init__(
        self,
        wanted: Path,
        cache_dir: Path,
        profile: str,
        vfs: Vfs,
        status: Callable[[], bytes],
    ) -> None:
        """``wanted`` is the preferred path of the socket; ``cache_dir`` must have been claimed."""
        self._socket = KeptSocket(wanted, "door", "programs cannot use the door")
        self._cache_dir = cache_dir
        self._profile = profile
        self._failures = Failures()
        self._services = Services(
            vfs, status, self._hello, self._leave, self._failures, ReadAhead()
        )
        self._connections: set[Connection] = set()
        self._ended_requests = self._ended_bytes = 0
        self._last_used_s = 0.0
        self._on_leave: Callable[[], None] | None = None
        self._tried = trio.Event()

    def lend(self, on_leave: Callable[[], None]) -> None:
        """Let another process have the account: ``on_leave`` is called when it asks for it."""
        self._on_leave = on_leave

    @property
    def trouble(self) -> str:
        """Why there is no socket, or ''."""
        return self._socket.trouble

    async def opened(self) -> None:
        """Wait until clients can connect, or ``trouble`` says why they cannot."""
        await self._tried.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        self._last_used_s = trio.current_time()
        try:
            async with trio.open_nursery() as clients:
                task_status.started()
                await self._socket.run(self.serve, clients, self._moved)
        finally:
            remove_address(self._cache_dir)

    def _moved(self, path: Path | None) -> None:
        """Note where the socket is; None if there is none."""
        if path is None:
            remove_address(self._cache_dir)
            self._tried.set()
            return
        try:
            write_address(self._cache_dir, path)
        except OSError as error:
            raise UsageError(
                f"{self._cache_dir} does not take the path of the door: {error.strerror}"
            ) from None
        self._tried.set()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one client; hang up if it is another user's."""
        try:
            async with stream:
                peer = peer_of(stream.socket)
                if peer.uid == os.geteuid():
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
                    await self._admit(stream, Connection(stream, self._services, peer))
        except OSError as error:
            log.debug("a client of the door has gone: %s", error)
        except Exception:
            log.exception("a client of the door could not be served")

    async def _admit(self, stream: trio.SocketStream, connection: Connection) -> None:
        if len(self._connections) >= CONNECTIONS_MAX:
            await self._turn_away(stream)
            return
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)
            self._ended_requests += connection.requests
            self._ended_bytes += connection.body_bytes
            self._last_used_s = max(self._last_used_s, connection.last_used_s)

    async def _turn_away(self, stream: trio.SocketStream) -> None:
        error = RequestError(errno.EAGAIN, f"there are {CONNECTIONS_MAX} connections already")
        try:
            await Sender(stream).send(self._failures.answer("connect", error))
        except SlowClient:
            return

    # what it is used for

    def idle_s(self) -> float:
        """Return for how many seconds nobody has used it; 0 while a file is open."""
        if any(each.busy or each.open_files for each in self._connections):
            return 0.0
        used = [each.last_used_s for each in self._connections if each.requests]
        return trio.current_time() - max([self._last_used_s, *used])

    def _hello(self) -> protocol.Welcome:
        return protocol.Welcome(
            protocol.VERSION, __version__, self._profile, os.getpid(), self._on_leave is not None
        )

    def _leave(self, asking: Connection) -> None:
        """End the daemon if it was started on demand and is idle. Raises RequestError."""
        who = f"process {os.getpid()}, which serves the profile {self._profile},"
        if self._on_leave is None:
            raise RequestError(errno.EBUSY, f"{who} was not started on demand; end it yourself")
        others = [each for each in self._connections if each is not asking]
        if asking.open_files or any(each.busy or each.open_files for each in others):
            raise RequestError(errno.EBUSY, f"{who} is in use")
        self._on_leave()

    def statistics(self) -> dict[str, object]:
        """Gauges and counts, by their names in ``phonofs status --json``."""
        connections = self._connections
        path = self._socket.path
        return {
            "path": str(path) if path is not None else None,
            "error": self._socket.trouble,
            "connections": len(connections),
            "handles": sum(each.open_files for each in connections),
            "active": sum(each.busy for each in connections),
            "requests": self._ended_requests + sum(each.requests for each in connections),
            "bytes": self._ended_bytes + sum(each.body_bytes for each in connections),
            "errnos": dict(self._failures.errnos),
        }
