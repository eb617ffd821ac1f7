"""Takes commands for a running mount over a unix socket, as JSON lines.

A request is one object, ``{"command": NAME, …}``. ``options``, ``log_level`` and ``restore``
are answered with one line, ``watch`` with a line for each change until the client hangs up, and
the commands of other modules (``LongCommand``) with as many lines as they have. The socket has
mode 0600 in a 0700 directory below the runtime directory, for the mount's owner and root. If other
users may use the mount (``allow_other``), a second socket without a file takes ``restore``, and
what else is for readers, from users who may read the files; the kernel tells which user asks.

A mount works without a socket. If none can be made, or its directory was removed (systemd removes
the runtime directory at logout), ``trouble`` says why, and making it is retried.
"""

import logging
import math
import os
import pwd
import secrets
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from phonofs.config import LOG_LEVELS
from phonofs.control.peers import Peer, peer_of
from phonofs.control.socket_file import KeptSocket
from phonofs.errors import PhonofsError, UsageError
from phonofs.restores import NOT_RESTORED, why_not_restored
from phonofs.vfs import as_json

log = logging.getLogger(__name__)

REQUEST_MAX = 65536  # bytes; a thousand ids
REQUEST_S = 10.0
"""How long a client may take to send its request; our own clients send it at once."""
SHARED_CLIENTS = 8
"""Requests of other users handled at a time; more are rejected, so that they delay nothing."""
BACKLOG = 10_000
"""Changes queued for a watcher that reads slowly; more are dropped and counted."""
NOT_READABLE = "you may not read these files"

Event = dict[str, object]


class Broadcast:
    """Sends events to all listeners. Owns the set of listeners."""

    def __init__(self) -> None:
        self._listeners: set[_Listener] = set()

    def send(self, events: Sequence[Event]) -> None:
        """Send events to all listeners; never waits."""
        for listener in self._listeners:
            for event in events:
                listener.offer(event)

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[trio.MemoryReceiveChannel[Event]]:
        """Yield a channel that receives the events from now on."""
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


async def _no_restore(region: str, id: str, days: int) -> None:
    raise UsageError("this mount cannot restore objects")


@dataclass(frozen=True, slots=True)
class Shared:
    """Decides what other users may ask for, if the mount is not for its owner alone.

    may_read  return whether a peer may read the files of the mount; may touch the disk, so it is
              called in a thread
    shows     return whether an object (region, id) is a file of the mount
    """

    may_read: Callable[[Peer], bool]
    shows: Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class LongCommand:
    """A command with an answer of several lines.

    lines        yields them, for a request and its peer; may raise PhonofsError
    for_readers  whether users who may read the files may give it, too
    """

    lines: Callable[[Event, Peer], AsyncGenerator[Event, None]]
    for_readers: bool


class Control:
    """Answers requests. Owns the socket while it serves.

    shared   the name of the socket for other users, with ``@`` for the NUL of an abstract name
             (unix(7)); None if they may not use the mount
    """

    def __init__(
        self,
        path: Path,
        *,
        set_level: Callable[[str], None],
        events: Broadcast,
        options: Callable[[], dict[str, str]] = dict,
        restore: Callable[[str, str, int], Awaitable[None]] = _no_restore,
        asked: Callable[[str, Sequence[str]], None] = lambda region, ids: None,
        shared: Shared | None = None,
        commands: Mapping[str, LongCommand] | None = None,
    ) -> None:
        """Set up; ``path`` is the preferred path of the socket.

        ``restore(region, id, days)`` requests the restore of an object; afterwards
        ``asked(region, ids)`` is called with all objects whose restore was requested.
        """
        self._socket = KeptSocket(path, "control socket", "no commands are accepted")
        self._set_level = set_level
        self._events = events
        self._options = options
        self._restore = restore
        self._asked = asked
        self._shared = shared
        self._commands = commands or {}
        self.shared = f"@phonofs-{secrets.token_hex(16)}" if shared is not None else None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as clients:  # watchers stay when the socket file is lost
            if self.shared is not None:
                clients.start_soon(self._serve_others, self.shared)
            await self._socket.run(self._serve, clients, task_status=task_status)

    @property
    def path(self) -> Path | None:
        """The path of the socket; None while there is none."""
        return self._socket.path

    @property
    def trouble(self) -> str:
        """Why there is no socket, or ''."""
        return self._socket.trouble

    async def _serve_others(self, name: str) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.bind("\0" + name.removeprefix("@"))
        sock.listen(16)
        limit = trio.CapacityLimiter(SHARED_CLIENTS)

        async def serve(stream: trio.SocketStream) -> None:
            try:
                limit.acquire_nowait()
            except trio.WouldBlock:
                await stream.aclose()
                return
            try:
                await self._serve(stream)
            finally:
                limit.release()

        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        await trio.serve_listeners(serve, [listener])

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                peer = peer_of(stream.socket)
                if not peer.is_owner and self._shared is None:
                    return
                with trio.move_on_after(REQUEST_S) as patience:
                    request = await _receive_line(stream)
                if patience.cancelled_caught:
                    return
                await self._answer(stream, peer, _decoded(request))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("a control client hung up")
        except Exception:
            log.exception("a control request failed")

    async def _answer(self, stream: trio.SocketStream, peer: Peer, asked: Event) -> None:
        match asked.get("command"):
            case "restore":
                await self._restore_all(stream, peer, asked)
            case str(name) if name in self._commands:
                await self._answer_long(stream, peer, self._commands[name], asked)
            case _ if refusal := await self._refusal(peer, for_readers=False):
                await _send(stream, {"error": refusal})
            case "options":
                await _send(stream, dict(self._options()))
            case "log_level":
                await _send(stream, self._change_level(str(asked.get("level"))))
            case "watch":
                await self._watch(stream)
            case unknown:
                await _send(stream, {"error": f"there is no command {str(unknown)[:80]!r}"})

    async def _answer_long(
        self, stream: trio.SocketStream, peer: Peer, command: LongCommand, asked: Event
    ) -> None:
        """Send the lines of a command; stop if the client hangs up."""
        if refusal := await self._refusal(peer, for_readers=command.for_readers):
            await _send(stream, {"error": refusal})
            return
        async with _until_hangup(stream):
            try:
                async with aclosing(command.lines(asked, peer)) as lines:
                    async for line in lines:
                        await _send(stream, line)
            except PhonofsError as error:
                await _send(stream, {"error": str(error), "exit_status": error.exit_status})

    def _change_level(self, level: str) -> Event:
        if level not in LOG_LEVELS:
            return {"error": f"{level!r} is not one of {', '.join(LOG_LEVELS)}"}
        self._set_level(level)
        return {"log_level": level}

    async def _restore_all(self, stream: trio.SocketStream, peer: Peer, asked: Event) -> None:
        """Request the restore of each object; stop if the client hangs up."""
        region, ids, days = (asked.get(name) for name in ("region", "ids", "days"))
        if not (isinstance(region, str) and isinstance(ids, list) and isinstance(days, int)):
            await _send(stream, {"error": "restore needs region, ids and days"})
            return
        refusal = await self._refusal(peer, for_readers=True)
        if not refusal and not (peer.is_owner or self._are_shown(region, ids)):
            refusal = NOT_READABLE
        if refusal:
            await _send(stream, {"error": refusal})
            return
        async with _until_hangup(stream):
            await _send(stream, await self._restored(region, [str(id) for id in ids], days))

    async def _restored(self, region: str, ids: Sequence[str], days: int) -> Event:
        """Return how many restores were requested, and the failures of single objects or of all."""
        done: list[str] = []
        failures: list[str] = []
        try:
            for id in ids:
                try:
                    await self._restore(region, id, days)
                    done.append(id)
                except NOT_RESTORED as error:
                    failures.append(why_not_restored(id, error))
        except PhonofsError as error:
            answer: Event = {"error": str(error), "exit_status": error.exit_status}
            return answer | {"restored": len(done)}
        finally:  # also report those requested before the client hung up
            if done:
                self._asked(region, done)
        return {"restored": len(done), "failures": failures}

    async def _refusal(self, peer: Peer, *, for_readers: bool) -> str:
        """Return why a peer may not give a command, '' if it may."""
        if peer.is_owner:
            return ""
        if not for_readers:
            return f"only {_owner()}, the owner of the mount, may ask for this"
        shared = self._shared
        if shared is not None and await trio.to_thread.run_sync(shared.may_read, peer):
            return ""
        return NOT_READABLE

    def _are_shown(self, region: str, ids: Sequence[object]) -> bool:
        shared = self._shared
        return shared is not None and all(
            isinstance(id, str) and shared.shows(region, id) for id in ids
        )

    async def _watch(self, stream: trio.SocketStream) -> None:
        async with self._events.listen() as events, _until_hangup(stream):
            async for event in events:
                await _send(stream, event)


def _owner() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"


def _decoded(request: bytes) -> Event:
    try:
        return msgspec.json.decode(request, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError):  # RecursionError if it is nested too deeply
        return {}


@asynccontextmanager
async def _until_hangup(stream: trio.SocketStream) -> AsyncIterator[None]:
    """Run the block until it ends; cancel it if the client hangs up."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_at_hangup, stream, nursery.cancel_scope)
        yield
        nursery.cancel_scope.cancel()


async def _cancel_at_hangup(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
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
