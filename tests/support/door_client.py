"""An asynchronous client of the door, in the process that serves it."""

import errno
import socket

import trio

from phonofs.door import protocol
from phonofs.door.server import Door


class Client:
    """One connection over a pair of sockets."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    @classmethod
    def of(cls, door: Door, nursery: trio.Nursery) -> "Client":
        """Connect to a door, which serves the client in the nursery."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for each in (ours, theirs):
            each.setblocking(False)
        nursery.start_soon(door.serve, trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
        return cls(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))

    async def close(self) -> None:
        await self.stream.aclose()

    async def send(self, request: protocol.Request) -> None:
        await self.stream.send_all(protocol.pack(request))

    async def receive(self) -> tuple[protocol.Answer, bytes]:
        """Return one message and its body. Raises OSError for an error, EOFError at the end."""
        length = protocol.head_length(await self._bytes(protocol.LENGTH.size))
        answer = protocol.answer_of(await self._bytes(length))
        if isinstance(answer, protocol.Error):
            raise OSError(getattr(errno, answer.errno), answer.message)
        body = await self._bytes(answer.body) if isinstance(answer, protocol.Data) else b""
        return answer, body

    async def _bytes(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                some = await self.stream.receive_some(size - len(data))
            except trio.BrokenResourceError:
                some = b""
            if not some:
                raise EOFError
            data += some
        return bytes(data)

    async def ask(self, request: protocol.Request) -> protocol.Answer:
        await self.send(request)
        return (await self.receive())[0]

    async def open(self, path: str) -> protocol.Opened:
        answer = await self.ask(protocol.Open(path))
        assert isinstance(answer, protocol.Opened)
        return answer

    async def data(self, pause_s: float = 0.0) -> bytes:
        """Return the bytes of all messages of one read; pause after each."""
        found = bytearray()
        while True:
            answer, body = await self.receive()
            assert isinstance(answer, protocol.Data)
            found += body
            if answer.last:
                return bytes(found)
            await trio.sleep(pause_s)

    async def find(self, path: str) -> list[protocol.Entry]:
        """Return all files below a directory."""
        await self.send(protocol.Find(path))
        found: list[protocol.Entry] = []
        while isinstance(answer := (await self.receive())[0], protocol.Entries):
            found += answer.entries
        assert answer == protocol.End()
        return found

    async def cat(self, paths: list[str]) -> list[bytes | OSError]:
        """Return the bytes of each file, or its error."""
        await self.send(protocol.Cat([(path, None, None) for path in paths]))
        found: list[bytes | OSError] = []
        for _ in paths:
            try:
                found.append(await self.data())
            except OSError as error:
                found.append(error)
        return found

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        await self.send(protocol.Read(handle, offset, size))
        return await self.data()
