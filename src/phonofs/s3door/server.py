"""Serves the tree to S3 clients over HTTP or HTTPS: the S3 door.

Only ``phonofs serve --listen`` opens it. It is read-only: no request can change anything but ask
for archived objects back. Clients sign with keys from a file, and each key opens what the file
says. Whoever does not sign with one gets an error, and costs little: heads, bodies, connections
and times are bounded.
"""

import errno
import logging
import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from phonofs.errors import UsageError
from phonofs.s3door.answers import Answers, Restoring
from phonofs.s3door.connection import IDLE_S, Connection, Services
from phonofs.s3door.failures import Failures
from phonofs.s3door.keys import Key, Keys, load_keys
from phonofs.s3door.listener import Listener
from phonofs.s3door.request import Request
from phonofs.s3door.sigv4 import verify
from phonofs.vfs import Vfs

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 300
"""Connections at a time. Some processes may have 1024 files open: the local door and the cache have
the others."""

BACKLOG = 512
"""Connections that wait to be accepted."""

LOOK_S = 1.0
"""How often it is looked for idle clients while others are asking."""

HANDSHAKE_S = 10.0
"""How long TLS may take to begin, and to end."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The listening sockets, and what was read before.

    tls      None for plain HTTP
    address  the first address, as a URL
    """

    listener: Listener
    keys: Keys
    tls: ssl.SSLContext | None
    sockets: tuple[trio.SocketListener, ...]
    address: str = ""


async def open_listener(listener: Listener) -> Opened:
    """Read the keys and the certificate, and bind the address. Raises UsageError."""
    keys = await trio.to_thread.run_sync(load_keys, listener.keys, os.environ)
    tls = await trio.to_thread.run_sync(listener.tls)
    try:
        sockets = await trio.open_tcp_listeners(listener.port, host=listener.host, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:  # a name with two dots cannot be encoded
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"--listen {listener.host}:{listener.port} cannot be used: {why}"
        ) from None
    host, port = sockets[0].socket.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    address = f"{'https' if tls else 'http'}://{shown}:{port}"
    return Opened(listener, keys, tls, tuple(sockets), address)


class S3Door:
    """Owns the keys in use, the connections, and the counts of those that have ended."""

    def __init__(self, opened: Opened, bucket: str, vfs: Vfs, restoring: Restoring) -> None:
        self._opened = opened
        self._keys = opened.keys
        self._tls = opened.tls
        self._reloading = trio.Lock()
        self._trouble = ""
        self._failures = Failures()
        answers = Answers(vfs, bucket, restoring)
        self._services = Services(self._authenticate, answers, self._failures, _now)
        self._connections: dict[Connection, trio.CancelScope] = {}
        self._ended_requests = self._ended_bytes = self._turned_away = 0

    def _authenticate(self, request: Request) -> Key:
        return verify(request, self._keys.find, _now())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        log.info("S3 clients are served at %s, %d keys", self._opened.address, len(self._keys))
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.hang_up_on_idle)
            await trio.serve_listeners(self.serve, list(self._opened.sockets))

    async def hang_up_on_idle(self) -> None:
        """Hang up on those that ask for nothing for long. A timer for each takes 5 µs a request."""
        while True:
            now = trio.current_time()
            next_look = now + IDLE_S
            for connection in self._connections:
                until = connection.idle_until_s
                if until is None:  # it is asking, and may have no key
                    next_look = min(next_look, now + LOOK_S)
                elif until <= now:
                    connection.hang_up()
                else:
                    next_look = min(next_look, until)
            await trio.sleep_until(next_look)

    async def reload(self) -> None:
        """Read the keys and the certificate again; if any is wrong, keep all that are in use."""
        listener = self._opened.listener
        async with self._reloading:  # else an earlier reading could come last
            try:
                keys = await trio.to_thread.run_sync(load_keys, listener.keys, os.environ)
                # Not into the context in use: a wrong key would spoil the certificate in it.
                tls = await trio.to_thread.run_sync(listener.tls)
            except UsageError as error:
                self._trouble = str(error)
                log.warning("the keys of S3 clients stay as they were: %s", error)
                return
            self._keys, self._tls, self._trouble = keys, tls, ""
            log.info("S3 clients have %d keys from now on", len(keys))

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one client. Whatever fails is logged: the listener goes on for the others."""
        try:
            if len(self._connections) < CONNECTIONS_MAX or self._hang_up_on_one():
                await self._admit(stream)
            else:
                self._turned_away += 1
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            log.debug("an S3 client has gone: %s", error)
        except OSError as error:
            log.log(_level(error), "an S3 client could not be served: %s", error)
        except Exception:
            log.exception("an S3 client could not be served")
        finally:
            await trio.aclose_forcefully(stream)

    async def _admit(self, stream: trio.SocketStream) -> None:
        with suppress(OSError):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        encrypted = None
        if self._tls is not None:
            encrypted = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
        connection = Connection(encrypted or stream, self._services)
        with trio.CancelScope() as scope:
            self._connections[connection] = scope
            try:
                await _serve_connection(connection, encrypted)
            finally:
                del self._connections[connection]
                self._ended_requests += connection.requests
                self._ended_bytes += connection.body_bytes

    def _hang_up_on_one(self) -> bool:
        """Hang up on the client whose last signed request is oldest; return whether there is one.

        Only clients with a signed request being answered stay. So whoever asks for nothing, or has
        no key, keeps nobody out. Clients expect this of connections that they leave idle, and make
        new ones.
        """
        idle = [
            connection
            for connection, scope in self._connections.items()
            if not connection.authenticated and not scope.cancel_called
        ]
        if not idle:
            return False
        self._connections[min(idle, key=lambda each: each.idle_since_s)].cancel()
        return True

    def statistics(self) -> Mapping[str, object]:
        """Gauges and counts, by their names in ``phonofs status --json``."""
        connections = self._connections
        return {
            "address": self._opened.address,
            "keys": len(self._keys),
            "keys_error": self._trouble,
            "connections": len(connections),
            "active": sum(each.busy for each in connections),
            "requests": self._ended_requests + sum(each.requests for each in connections),
            "bytes": self._ended_bytes + sum(each.body_bytes for each in connections),
            "turned_away": self._turned_away,
            "errors": dict(self._failures.codes),
        }


async def _serve_connection(
    connection: Connection, encrypted: trio.SSLStream[trio.SocketStream] | None
) -> None:
    if encrypted is None:
        await connection.serve()
        return
    with trio.move_on_after(HANDSHAKE_S) as waiting:
        await encrypted.do_handshake()
    if not waiting.cancelled_caught:
        await connection.serve()
        with trio.move_on_after(HANDSHAKE_S):
            await encrypted.aclose()


def _now() -> datetime:
    return datetime.now(UTC)


def _level(error: OSError) -> int:
    """Return the level at which to log an error: a lack of descriptors is worth a warning."""
    return logging.WARNING if error.errno in (errno.EMFILE, errno.ENFILE) else logging.DEBUG
