"""One connection to a server: a plain non-blocking socket, with or without TLS.

Used by :mod:`.http11`. The socket is read straight into the buffer, without trio's and
h11's copies: measured on loopback, 1 GiB, this gives 1.3 GB/s where httpx gives 0.4, over TLS
too (``ssl`` on the socket itself takes 20 % less time than with memory BIOs).
"""

import functools
import select
import socket
import ssl
from collections.abc import Callable
from typing import Any

import trio

from phonofs.buffers import page_aligned
from phonofs.errors import ServiceError

BUFFER_BYTES = 1 << 20
"""1 MiB: with 256 KiB a large file takes a fifth longer, for each piece has its price. What is
never filled is never touched, so small files cost no memory."""

BURST_BYTES = 1 << 20
"""Bytes received without waiting between two checkpoints (about 1 ms)."""

MOST_READS = 128
"""Reads from a TLS socket at a time: the buffer has space for 64 of the largest records. The
system may have received hundreds of thousands of records of one byte."""

PLAIN_READS = 16
"""The same from a plain socket. While its receive window is small it gives 64 KiB at a time, and
the next ones come at once when these were taken; each piece of a body has its price."""

LEAST_READ = BURST_BYTES // 256
"""Each read counts as at least this many bytes, because the system call has its own cost."""

CRUMB_BYTES = 512
MOST_CRUMBS = 64
CRUMB_PAUSE_S = 0.005
"""After this many smaller reads in a row, a response is read at most 200 times a second, so that
small pieces arrive together: each piece costs about 0.1 ms, however small it is."""

ATTEMPT_DELAY_S = 0.25
"""After this time the next address is tried in parallel (RFC 8305, 5)."""

UNHEARD_MS = 10_000
"""TCP_USER_TIMEOUT: detects a dead idle connection, for example after a suspend, well within a
request's timeout."""


class ReceiveBuffer:
    """What all connections of one event loop receive into.

    A view that it lent is invalid before another connection receives: whoever kept it too long gets
    a ValueError, never the bytes of another response.
    """

    def __init__(self) -> None:
        self._memory = page_aligned(BUFFER_BYTES)
        self._lent = self._memory[:0]

    def take_back(self) -> memoryview:
        """Return all of it, to be filled."""
        self._lent.release()
        return self._memory

    def lend(self, size: int) -> memoryview:
        """Return the first bytes, until something else is received."""
        self._lent = self._memory[:size]
        return self._lent


class Connection:
    """A connection that is used by one request at a time.

    Owns the socket. All connections share one buffer, which stays in the processor's cache: what
    was received is stored or copied before anything else runs. After :meth:`close` no other method
    may be called; reading and writing must not overlap. After a cancelled call it must be closed,
    because it may be in the middle of a message.
    """

    def __init__(self, sock: socket.socket, buffer: ReceiveBuffer) -> None:
        self._socket = sock
        self._buffer = buffer
        self._reads = MOST_READS if isinstance(sock, ssl.SSLSocket) else PLAIN_READS
        self._burst = 0
        self._crumbs = 0
        self._broken: OSError | None = None

    async def send(self, data: bytes) -> None:
        """Send everything. Raises OSError."""
        self._crumbs = 0
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                await trio.lowlevel.wait_writable(self._socket)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self._socket)

    async def receive(self, most_bytes: int) -> memoryview:
        """Return received bytes, at most ``most_bytes``; empty at the end of the stream.

        The view is valid until the caller waits for anything: then another connection may receive.
        Raises OSError. A checkpoint at least every 1 MiB.
        """
        if self._crumbs > MOST_CRUMBS:
            self._burst = 0
            await trio.sleep(CRUMB_PAUSE_S)
        elif self._burst >= BURST_BYTES:
            self._burst = 0
            await trio.lowlevel.checkpoint()
        while (view := self._receive(most_bytes)) is None:
            self._burst = 0
            await trio.lowlevel.wait_readable(self._socket)
        return view

    def receive_now(self, most_bytes: int) -> memoryview | None:
        """Receive without waiting; None if nothing has arrived, or if a checkpoint is due."""
        if self._burst >= BURST_BYTES or self._crumbs > MOST_CRUMBS:
            return None
        return self._receive(most_bytes)

    def is_stale(self) -> bool:
        """Whether an idle connection has something to read, which usually is its end.

        Bytes may also be buffered in TLS, in a record that was read only in part.
        """
        if self._broken is not None:
            return True
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close it at once, without a TLS close_notify."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def _receive(self, most_bytes: int) -> memoryview | None:
        """Return what has arrived; None if there is nothing."""
        most_bytes = min(most_bytes, BUFFER_BYTES)
        size = self._fill(most_bytes)
        if size < 0:
            return None
        self._burst += max(size, LEAST_READ)
        self._crumbs = 0 if size >= min(CRUMB_BYTES, most_bytes) else self._crumbs + 1
        return self._buffer.lend(size)

    def _fill(self, most_bytes: int) -> int:
        """Read what has arrived; return the number of bytes, or -1 if there is nothing.

        A TLS record holds at most 16 KiB, so several are read at once. The connection may end
        after them without a close_notify; the bytes read before are still returned, and the next
        call raises the error.
        """
        if self._broken is not None:
            raise self._broken
        size, buffer = 0, self._buffer.take_back()
        for _ in range(self._reads):
            try:
                count = self._socket.recv_into(buffer[size:most_bytes])
            except (BlockingIOError, ssl.SSLWantReadError):
                return size or -1
            except OSError as error:
                if not size:
                    raise
                self._broken = error
                return size
            size += count
            if not count or size >= most_bytes:
                break
        return size


async def connect(
    host: str,
    port: int,
    context: ssl.SSLContext | None,
    check_address: Callable[[str], None] | None,
    resolvers: trio.CapacityLimiter,
    buffer: ReceiveBuffer,
) -> Connection:
    """Return a new connection, over TLS if a context is given, that receives into ``buffer``.

    ``resolvers`` limits the threads that resolve names, apart from all other threads: one that
    the system's resolver blocks is abandoned. ``check_address`` is called with each address of
    the host, and may raise ServiceError; then nothing is sent there, not even a SYN. Raises
    OSError (including ssl.SSLError) if no connection can be made, UnicodeError if the host's name
    is not valid, and the error of ``check_address`` if no address is left.
    """
    sock = await _reach(_permitted(host, await _look_up(host, port, resolvers), check_address))
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNHEARD_MS)
        if context is not None:
            sock = await _secured(sock, host, context)
        return Connection(sock, buffer)
    except BaseException:
        sock.close()
        raise


Address = tuple[socket.AddressFamily, Any]
"""Family and address of a socket."""


async def _look_up(host: str, port: int, resolvers: trio.CapacityLimiter) -> list[Address]:
    """Return all addresses of a host. Raises OSError."""
    # As bytes, since a str would be held to the rules for names in other scripts, and "a_b" to be
    # no name.
    look_up = functools.partial(
        socket.getaddrinfo, host.encode("ascii"), port, type=socket.SOCK_STREAM
    )
    try:
        found = look_up(flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await trio.to_thread.run_sync(look_up, abandon_on_cancel=True, limiter=resolvers)
    return [(family, address) for family, _, _, _, address in found]


def _permitted(
    host: str, addresses: list[Address], check_address: Callable[[str], None] | None
) -> list[Address]:
    """Return the addresses that are permitted; the first two differ in family (RFC 8305, 4)."""
    permitted: list[Address] = []
    refusal: ServiceError | None = None
    for family, address in addresses:
        try:
            if check_address is not None:
                check_address(str(address[0]))
        except ServiceError as error:
            refusal = error
        else:
            permitted.append((family, address))
    if not permitted:
        raise refusal or OSError(f"{host} has no address")
    other = next((place for place in permitted if place[0] != permitted[0][0]), None)
    if other is not None:
        permitted.remove(other)
        permitted.insert(1, other)
    return permitted


async def _reach(addresses: list[Address]) -> socket.socket:
    """Return a socket connected to the first address that answers. Raises OSError if none does."""
    reached: list[socket.socket] = []
    failures: list[OSError] = []

    async def attempt(family: socket.AddressFamily, address: Any, failed: trio.Event) -> None:
        try:  # a system without IPv6 has no such socket
            with trio.socket.socket(family, socket.SOCK_STREAM) as sock:
                await sock.connect(address)
                if not reached:
                    reached.append(socket.socket(fileno=sock.detach()))
        except OSError as error:
            failures.append(error)
            failed.set()
        else:
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for family, address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, family, address, failed)
                with trio.move_on_after(ATTEMPT_DELAY_S):
                    await failed.wait()
    except BaseException:
        for sock in reached:
            sock.close()
        raise
    if reached:
        return reached[0]
    if len(failures) == 1:
        raise failures[0]
    raise OSError("no address answers") from ExceptionGroup("all attempts failed", failures)


async def _secured(sock: socket.socket, host: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Start TLS on the socket and verify the server's certificate; close it if that fails.

    An end without close_notify is an error, because a body without a length could be truncated.
    """
    secured = context.wrap_socket(
        sock, server_hostname=host, do_handshake_on_connect=False, suppress_ragged_eofs=False
    )
    try:
        while True:
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(secured)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(secured)
            else:
                return secured
    except BaseException:
        secured.close()
        raise
