"""One client of the door: receives its requests, one at a time, and sends the answers.

The connection owns the files that the client has open, and they end with it, however it ends. While
a request is answered, the socket is watched: if the client hangs up, the answer is given up, so
that nothing waits for the service in vain.
"""

import errno
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count

import trio

from phonofs.cache.stored_blocks import StoredRange
from phonofs.control.peers import Peer
from phonofs.door import protocol
from phonofs.door.cat import ReadAhead, Reading, readings
from phonofs.door.failures import Failures, RequestError
from phonofs.door.files import Paths
from phonofs.door.listing import Listings
from phonofs.door.protocol import LENGTH, NotUnderstood
from phonofs.door.sender import CutShort, Sender, SlowClient
from phonofs.errors import unwrap
from phonofs.open_files import OpenFile
from phonofs.vfs import Vfs

log = logging.getLogger(__name__)

CHUNK = 65536
"""Bytes received at a time; nearly every request is shorter."""

WAIT_FOR = 256 << 10
"""Bytes that are waited for at a time: as much memory for each client. An encrypted cache gives so
many at once."""

SEND_FROM = 1 << 16
"""Bytes; less than that is copied, which takes no longer than to ask what is in memory."""

REQUEST_S = 10.0
"""How long a client may take to send a request that it has begun; our own send it at once."""

HELD_S = 3600.0
"""A connection with open files is hung up on after that long without a request."""


@dataclass(frozen=True, slots=True)
class Services:
    """What all connections use.

    vfs       answers the requests
    status    returns the status document, as JSON
    hello     says who is there
    leave     has the daemon end, if no connection but this one is in use; else raises RequestError
    failures  counts the errors that clients got
    ahead     how many files are opened ahead
    """

    vfs: Vfs
    status: Callable[[], bytes]
    hello: Callable[[], protocol.Welcome]
    leave: Callable[["Connection"], None]
    failures: Failures
    ahead: ReadAhead


class Connection:
    """One client. Owns its open files.

    busy       whether a request is being answered
    requests   how many there were
    last_used_s  when the last answer ended, by trio's clock
    """

    def __init__(self, stream: trio.SocketStream, services: Services, peer: Peer) -> None:
        self._stream = stream
        self._services = services
        self._paths = Paths(services.vfs, peer.pid, peer.uid)
        self._listings = Listings(services.vfs, self._paths, peer.pid)
        self._sender = Sender(stream)
        self._files: dict[int, OpenFile] = {}
        self._numbers = count(1)
        self._received = bytearray()
        self.busy = False
        self.requests = 0
        self.last_used_s = trio.current_time()

    @property
    def open_files(self) -> int:
        """How many files the client has open."""
        return len(self._files)

    @property
    def body_bytes(self) -> int:
        """How many bytes of content and records it was sent."""
        return self._sender.body_bytes

    async def serve(self) -> None:
        """Answer requests until the client hangs up, or has to be hung up on."""
        give, take = trio.open_memory_channel[protocol.Request](1)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive, give, nursery.cancel_scope)
                async for request in take:
                    self.busy = True
                    self.requests += 1
                    await self._answer(request)
                    self.busy = False
                    self.last_used_s = trio.current_time()
        except* SlowClient:
            log.debug("a client of the door went, or took an answer too slowly")
        finally:
            self.busy = False
            for file in self._files.values():
                file.close()
            self._files.clear()

    # receiving

    async def _receive(
        self, give: trio.MemorySendChannel[protocol.Request], scope: trio.CancelScope
    ) -> None:
        """Pass on the requests; cancel everything if the client goes."""
        while (request := await self._next()) is not None:
            try:
                give.send_nowait(request)
            except trio.WouldBlock:  # two requests before it are not answered yet
                break
        scope.cancel()

    async def _next(self) -> protocol.Request | None:
        """Return the next request; None if the client goes, or has to."""
        try:
            if not await self._begun():
                return None
            with trio.move_on_after(REQUEST_S):
                head = await self._take(protocol.head_length(await self._take(LENGTH.size)))
                return protocol.request_of(head)
        except (NotUnderstood, trio.BrokenResourceError, trio.ClosedResourceError):
            return None
        return None

    async def _begun(self) -> bool:
        """Wait until a request begins; return False if the client goes, or has been idle."""
        while not self._received:
            with trio.move_on_after(self._patience_s()) as waiting:
                some = await self._stream.receive_some(CHUNK)
            if waiting.cancelled_caught and self._patience_s():
                continue
            if waiting.cancelled_caught or not some:
                return False
            self._received += some
        return True

    async def _take(self, size: int) -> bytes:
        """Return ``size`` bytes. Raises NotUnderstood if the client hangs up amid them."""
        received = self._received
        while len(received) < size:
            some = await self._stream.receive_some(CHUNK)
            if not some:
                raise NotUnderstood("a request ends too early")
            received += some
        taken = bytes(received[:size])
        del received[:size]
        return taken

    def _patience_s(self) -> float:
        """Return how long to wait for the next request from now on, in seconds."""
        if self.busy:
            return protocol.IDLE_S
        most_s = HELD_S if self._files else protocol.IDLE_S
        return max(0.0, self.last_used_s + most_s - trio.current_time())

    # answering

    async def _answer(self, request: protocol.Request) -> None:
        try:
            await self._dispatch(request)
        except Exception as error:
            if isinstance(unwrap(error), SlowClient):  # in a group, if it left the nursery of a cat
                raise
            await self._fail(type(request).__name__.lower(), error)

    async def _fail(self, operation: str, error: Exception) -> None:
        await self._sender.send(self._services.failures.answer(operation, error))

    async def _dispatch(self, request: protocol.Request) -> None:
        send, services = self._sender.send, self._services
        match request:
            case protocol.Read(handle, offset, size):
                await self._read(handle, offset, size)
            case protocol.Cat(items):
                await self._cat(items)
            case protocol.Info(path):
                await send(protocol.About(await self._paths.info(path)))
            case protocol.Ls(path, refresh):
                await self._list(self._listings.ls(path, refresh=refresh))
            case protocol.Find(path, maxdepth, withdirs):
                await self._list(self._listings.find(path, maxdepth, withdirs=withdirs))
            case protocol.Open(path):
                await self._open(path)
            case protocol.Close(handle):
                self._close(handle)
                await send(protocol.End())
            case protocol.Record(path):
                await self._send_whole(await self._paths.record(path))
            case protocol.Attribute(path, name):
                await self._send_whole(await self._paths.attribute(path, name))
            case protocol.Status():
                await self._send_whole(services.status())
            case protocol.Hello():
                await send(services.hello())
            case protocol.Leave():
                services.leave(self)
                await send(protocol.End())

    async def _list(self, listed: AsyncGenerator[list[protocol.Entry], None]) -> None:
        async with aclosing(listed):
            async for some in listed:
                await self._sender.send(protocol.Entries(some))
        await self._sender.send(protocol.End())

    async def _send_whole(self, body: bytes) -> None:
        """Send bytes in as many messages as they need."""
        for start in range(0, len(body) or 1, protocol.BODY_MAX):
            piece = body[start : start + protocol.BODY_MAX]
            last = start + protocol.BODY_MAX >= len(body)
            await self._sender.send(protocol.Data(len(piece), last), piece)

    # files

    async def _open(self, path: str) -> None:
        if len(self._files) >= protocol.HANDLES_MAX:
            raise RequestError(
                errno.EMFILE, f"this connection has {protocol.HANDLES_MAX} files open already"
            )
        file = await self._paths.open(path)
        handle = next(self._numbers)
        self._files[handle] = file
        await self._sender.send(protocol.Opened(handle, file.size, file.fingerprint))

    def _close(self, handle: int) -> None:
        file = self._files.pop(handle, None)
        if file is not None:
            file.close()

    async def _read(self, handle: int, offset: int, size: int) -> None:
        file = self._files.get(handle)
        if file is None:
            raise RequestError(errno.EBADF, f"this connection has no open file {handle}")
        if offset < 0 or size < 0:
            raise RequestError(errno.EINVAL, "an offset and a size cannot be negative")
        await self._send_bytes(file, offset, offset + size)

    async def _send_bytes(self, file: OpenFile, offset: int, stop: int, first: bytes = b"") -> None:
        """Send bytes of a file, at most BODY_MAX at a time; ``first`` are those that are there."""
        data: bytes | memoryview | None = first
        wanted, last = len(first), False
        while not last:
            if not wanted:
                wanted = min(stop - offset, protocol.BODY_MAX)
                stored = file.lend_stored(offset, wanted) if wanted >= SEND_FROM else None
                if stored is not None:
                    offset += len(stored)
                    last = offset >= min(stop, file.size)
                    await self._send_stored(file, stored, last)
                    wanted = 0
                    continue
                data = file.lend_now(offset, wanted)
            if data is None:
                wanted = min(wanted, WAIT_FOR)
                data = file.lend_now(offset, wanted)
            if data is None:
                data = await file.read(offset, wanted)
            offset += len(data)
            last = len(data) < wanted or offset >= min(stop, file.size)
            await self._sender.send(protocol.Data(len(data), last), data)
            data, wanted = None, 0

    async def _send_stored(self, file: OpenFile, stored: StoredRange, last: bool) -> None:
        """Send bytes from a file of the cache; read what is not in memory any more meanwhile."""
        await self._sender.send(protocol.Data(len(stored), last))
        await self._sender.send_stored(stored)
        while stored:
            try:
                data = await file.read(stored.offset, min(len(stored), WAIT_FOR))
            except Exception as error:
                self._services.failures.answer("read", error)  # what it logs and counts
                raise CutShort from error
            if not data:
                raise CutShort
            stored.pass_by(len(data))
            await self._sender.send_body(data)

    async def _cat(self, items: list[tuple[str, int | None, int | None]]) -> None:
        if len(items) > protocol.CAT_MAX:
            raise RequestError(errno.E2BIG, f"at most {protocol.CAT_MAX} files are read at once")
        async with readings(self._paths, items, self._services.ahead) as each:
            async for reading in each:
                await self._send_reading(reading)

    async def _send_reading(self, reading: Reading) -> None:
        try:
            if reading.error is not None or reading.file is None:
                raise reading.error or RequestError(errno.EIO, "the file could not be opened")
            await self._send_bytes(reading.file, reading.offset, reading.stop, reading.first)
        except SlowClient:
            raise
        except Exception as error:  # noqa: BLE001 - the other files can still be read
            await self._fail("cat", error)
