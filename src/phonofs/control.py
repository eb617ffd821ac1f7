"""Commands to a running mount over a unix socket: JSON lines, the owner's only.

A request is one object, ``{"command": NAME, …}``; ``status``, ``log_level`` and
``restoring`` are answered with one line, ``watch`` with a line for each change until the other
side hangs up. The socket lies 0600 in a 0700 folder of the runtime directory; a peer of another
user is sent away.
"""

import logging
import math
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import trio

from phonofs.errors import UsageError
from phonofs.vfs import as_json

log = logging.getLogger(__name__)

REQUEST_MAX = 65536  # bytes; a thousand ids
BACKLOG = 10_000
"""Changes kept for a watcher that reads slowly; more are dropped and counted."""

Event = dict[str, object]


class Broadcast:
    """Passes events on to all that listen. Owns the set of listeners."""

    def __init__(self) -> None:
        self._listeners: set[_Listener] = set()

    def send(self, events: Sequence[Event]) -> None:
        """Pass events on; never waits."""
        for listener in self._listeners:
            for event in events:
                listener.offer(event)

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[trio.MemoryReceiveChannel[Event]]:
        """The events from now on."""
        listener = _Listener()
        self._listeners.add(listener)
        try:
            yield listener.channel
        finally:
            self._listeners.discard(listener)


class _Listener:
    def __init__(self) -> None:
        self._send, self.channel = trio.open_memory_channel[Event](math.inf)
        self._dropped = 0

    def offer(self, event: Event) -> None:
        if self.channel.statistics().current_buffer_used >= BACKLOG:
            self._dropped += 1
            return
        if self._dropped:
            self._send.send_nowait({"kind": "overflow", "dropped": self._dropped})
            self._dropped = 0
        self._send.send_nowait(event)


class Control:
    """Answers requests. Owns the socket file while it serves."""

    def __init__(
        self,
        path: Path,
        *,
        status: Callable[[], dict[str, object]],
        set_level: Callable[[str], None],
        events: Broadcast,
        restoring: Callable[[str, Sequence[str]], None] = lambda region, ids: None,
    ) -> None:
        """``restoring(region, ids)`` is told what a command has asked back."""
        self._path = path
        self._status = status
        self._set_level = set_level
        self._events = events
        self._restoring = restoring

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        with _listening(self._path) as sock:
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
            task_status.started()
            try:
                await trio.serve_listeners(self._serve, [listener])
            finally:
                with suppress(OSError):  # the folder goes with the last socket in it
                    self._path.unlink()
                    self._path.parent.rmdir()

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                if _peer_uid(stream) not in (os.getuid(), 0):
                    return
                request = await _receive_line(stream)
                await self._answer(stream, request)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("a control client hung up")
        except Exception:
            log.exception("a control request failed")

    async def _answer(self, stream: trio.SocketStream, request: bytes) -> None:
        try:
            asked = msgspec.json.decode(request, type=dict[str, object])
        except msgspec.DecodeError:
            asked = {}
        match asked.get("command"):
            case "status":
                await _send(stream, self._status())
            case "log_level":
                await _send(stream, self._change_level(str(asked.get("level"))))
            case "restoring":
                await _send(stream, self._note_restore(asked))
            case "watch":
                await self._watch(stream)
            case unknown:
                await _send(stream, {"error": f"there is no command {unknown!r}"})

    def _change_level(self, level: str) -> Event:
        if level not in ("debug", "info", "warning", "error"):
            return {"error": f"{level!r} is not one of debug, info, warning, error"}
        self._set_level(level)
        return {"log_level": level}

    def _note_restore(self, asked: Event) -> Event:
        region, ids = asked.get("region"), asked.get("ids")
        if not (isinstance(region, str) and isinstance(ids, list)):
            return {"error": "restoring needs a region and ids"}
        self._restoring(region, [id for id in ids if isinstance(id, str)])
        return {"restoring": len(ids)}

    async def _watch(self, stream: trio.SocketStream) -> None:
        async with self._events.listen() as events, trio.open_nursery() as nursery:
            nursery.start_soon(_until_hangup, stream, nursery.cancel_scope)
            async for event in events:
                await _send(stream, event)


async def _until_hangup(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError):
        while await stream.receive_some(1024):
            pass
    scope.cancel()


async def _send(stream: trio.SocketStream, answer: Event) -> None:
    await stream.send_all(as_json(answer) + b"\n")


async def _receive_line(stream: trio.SocketStream) -> bytes:
    line = bytearray()
    while b"\n" not in line and len(line) <= REQUEST_MAX:
        chunk = await stream.receive_some(4096)
        if not chunk:
            break
        line += chunk
    return bytes(line.partition(b"\n")[0])


def _peer_uid(stream: trio.SocketStream) -> int:
    """Who is on the other side, by SO_PEERCRED (unix(7)): pid, uid, gid."""
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])


def _listening(path: Path) -> socket.socket:
    """A listening socket at ``path``, 0600; UsageError where that can't be."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_own(path.parent)
        with suppress(FileNotFoundError):
            path.unlink()
        previous = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(previous)
        sock.listen(16)
    except UsageError:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        raise UsageError(f"the control socket {path} cannot be made: {error.strerror}") from None
    return sock


def _check_own(folder: Path) -> None:
    """Refuse a folder that somebody else made in a place open to all."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise UsageError(f"{folder} is not a folder of yours alone; remove it or `chmod 700` it")
