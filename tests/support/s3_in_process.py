"""An asynchronous client of the S3 door, in the process that serves it."""

import socket
from collections.abc import Mapping
from contextlib import suppress
from xml.etree import ElementTree

import trio

from phonofs.app import App
from phonofs.config import Secret
from phonofs.s3door.answers import Restoring
from phonofs.s3door.keys import Key, Keys
from phonofs.s3door.listener import Listener
from phonofs.s3door.server import Opened, S3Door
from tests.support.doors import PROFILE
from tests.support.s3_client import ALL, SPACE, Answer, S3Client


def door_of(app: App, folder: object) -> S3Door:
    """Return an S3 door to an app, with one key for all; it listens nowhere."""
    key = Key("all", ALL.access_key, Secret(ALL.secret_key))
    listener = Listener("127.0.0.1", 0, keys=folder)  # type: ignore[arg-type]
    restoring = Restoring(app.restore, app.changes.is_restoring)
    return S3Door(Opened(listener, Keys([key]), None, ()), PROFILE, app.vfs, restoring)


def connected(door: S3Door, nursery: trio.Nursery) -> trio.SocketStream:
    """Connect to a door, which serves the client in the nursery."""
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.setblocking(False)
    nursery.start_soon(door.serve, trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
    return trio.SocketStream(trio.socket.from_stdlib_socket(ours))


class InProcess:
    """One connection over a pair of sockets."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._signer = S3Client(9000, ALL)
        self._received = b""

    @classmethod
    def of(cls, door: S3Door, nursery: trio.Nursery) -> "InProcess":
        return cls(connected(door, nursery))

    async def close(self) -> None:
        await self.stream.aclose()

    def request(
        self,
        path: str,
        method: str = "GET",
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> bytes:
        """Return the head of a signed request."""
        target, signed = self._signer.signed(method, path, parameters, headers, body)
        lines = (f"{name}: {value}\r\n" for name, value in signed.items())
        return f"{method} {target} HTTP/1.1\r\n{''.join(lines)}\r\n".encode()

    async def send(self, request: bytes) -> None:
        await self.stream.send_all(request)

    async def some(self) -> bytes:
        """Receive something. Raises EOFError if the door hangs up."""
        if not (some := await self.stream.receive_some(65536)):
            raise EOFError
        return bytes(some)

    async def rest(self) -> bytes:
        """Receive until the door hangs up."""
        received = b""
        with suppress(EOFError, trio.BrokenResourceError):
            while True:
                received += await self.some()
        return received

    async def answer(self) -> Answer:
        """Return the next answer, of a request that is no HEAD. Raises EOFError if it is cut."""
        while b"\r\n\r\n" not in self._received:
            self._received += await self.some()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = (line.partition(": ") for line in lines)
        headers = {name.lower(): value for name, _, value in fields}
        length = int(headers.get("content-length", "0"))
        while len(self._received) < length:
            self._received += await self.some()
        body, self._received = self._received[:length], self._received[length:]
        return Answer(int(first.split()[1]), headers, body)

    async def ask(self, path: str, **more: object) -> Answer:
        await self.send(self.request(path, **more))  # type: ignore[arg-type]
        return await self.answer()

    async def get(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return an object, or a part of it. Raises OSError for an error, EOFError for a cut."""
        headers = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}
        answer = await self.ask(path, headers=headers)
        if answer.code == "InvalidRange":
            return b""
        if answer.code:
            raise OSError(answer.code)
        return answer.body

    async def list(self, most: int = 1000) -> list[dict[str, str]]:
        """Return all objects, by pages of so many. Raises OSError for an error."""
        found: list[dict[str, str]] = []
        asked = {"list-type": "2", "max-keys": str(most)}
        while True:
            answer = await self.ask("", parameters=asked)
            if answer.code:
                raise OSError(answer.code)
            root = ElementTree.fromstring(answer.body)
            found += [
                {field.tag.removeprefix(SPACE): field.text or "" for field in each}
                for each in root.findall(f"{SPACE}Contents")
            ]
            token = root.findtext(f"{SPACE}NextContinuationToken", "")
            if not token:
                return found
            asked["continuation-token"] = token
