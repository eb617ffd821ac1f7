"""A client of the door as the tests need it, and ``phonofs serve`` as a process."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from phonofs.door import protocol
from phonofs.door.address import read_address
from tests.support.mounts import START_S, Mount, until

PROFILE = f"served-{os.getpid()}"
"""No other process of this machine serves or mounts a profile of this name."""


class DoorError(Exception):
    """What the daemon answered instead: the name of an errno, and a sentence."""

    def __init__(self, error: protocol.Error) -> None:
        super().__init__(f"{error.errno}: {error.message}")
        self.errno = error.errno


class Client:
    """One connection. ``close`` ends it, as does ``with``."""

    def __init__(self, path: Path, timeout_s: float = 60.0) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout_s)
        try:
            self.socket.connect(str(path))
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, request: protocol.Request) -> None:
        self.socket.sendall(protocol.pack(request))

    def receive(self) -> tuple[protocol.Answer, bytes]:
        """Return one message and its body. Raises DoorError, and EOFError if it is hung up on."""
        length = protocol.head_length(self._bytes(protocol.LENGTH.size))
        answer = protocol.answer_of(self._bytes(length))
        if isinstance(answer, protocol.Error):
            raise DoorError(answer)
        body = self._bytes(answer.body) if isinstance(answer, protocol.Data) else b""
        return answer, body

    def _bytes(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                some = self.socket.recv(size - len(data))
            except ConnectionResetError:
                some = b""
            if not some:
                raise EOFError
            data += some
        return bytes(data)

    def ask(self, request: protocol.Request) -> protocol.Answer:
        self.send(request)
        return self.receive()[0]

    def data(self) -> bytes:
        """Return the bytes of all messages of one read."""
        found = bytearray()
        while True:
            answer, body = self.receive()
            assert isinstance(answer, protocol.Data)
            found += body
            if answer.last:
                return bytes(found)

    # requests

    def info(self, path: str) -> protocol.Entry:
        answer = self.ask(protocol.Info(path))
        assert isinstance(answer, protocol.About)
        return answer.entry

    def listed(self, request: protocol.Ls | protocol.Find) -> list[protocol.Entry]:
        self.send(request)
        found: list[protocol.Entry] = []
        while isinstance(answer := self.receive()[0], protocol.Entries):
            assert 0 < len(answer.entries) <= protocol.ENTRIES_AT_ONCE
            found += answer.entries
        assert answer == protocol.End()
        return found

    def ls(self, path: str, *, refresh: bool = False) -> list[protocol.Entry]:
        return self.listed(protocol.Ls(path, refresh))

    def find(self, path: str, **how: object) -> list[protocol.Entry]:
        return self.listed(protocol.Find(path, **how))

    def open(self, path: str) -> protocol.Opened:
        answer = self.ask(protocol.Open(path))
        assert isinstance(answer, protocol.Opened)
        return answer

    def read(self, handle: int, offset: int, size: int) -> bytes:
        self.send(protocol.Read(handle, offset, size))
        return self.data()

    def whole(self, path: str) -> bytes:
        opened = self.open(path)
        data = self.read(opened.handle, 0, opened.size)
        assert self.ask(protocol.Close(opened.handle)) == protocol.End()
        return data

    def cat(self, *items: tuple[str, int | None, int | None]) -> list[bytes | str]:
        """Return the bytes of each, or the name of its errno."""
        self.send(protocol.Cat(list(items)))
        found: list[bytes | str] = []
        for _ in items:
            try:
                found.append(self.data())
            except DoorError as error:
                found.append(error.errno)
        return found

    def record(self, path: str) -> bytes:
        self.send(protocol.Record(path))
        return self.data()


def connect(cache: Path) -> Client:
    """Connect to the daemon of a cache folder."""
    path = read_address(cache)
    assert path is not None, "there is no door"
    return Client(path)


class Served(Mount):
    """One ``phonofs serve`` process; ``point`` is only the name of its log."""

    def start(self, wait: bool = True, *words: str) -> "Served":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program, "serve", PROFILE, "-f", *words],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            until(lambda: self.answers() or self.process.poll() is not None)
            assert self.process.poll() is None, self.log.read_text()
        return self

    def answers(self) -> bool:
        try:
            with self.connect() as client:
                return isinstance(client.ask(protocol.Hello()), protocol.Welcome)
        except (AssertionError, OSError, EOFError):
            return False

    def connect(self) -> Client:
        return connect(self.cache)

    def status(self) -> dict:
        with self.connect() as client:
            client.send(protocol.Status())
            return json.loads(client.data())

    def clean_up(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(START_S)


@contextlib.contextmanager
def served(url: str, folder: Path, *words: str, **options: str) -> Iterator[Served]:
    """Serve with the cache at ``folder/cache``."""
    daemon = Served(url, folder / "served", folder / "cache", **options)
    try:
        yield daemon.start(True, *words)
    finally:
        daemon.clean_up()


def end_daemon(cache: Path) -> None:
    """End the daemon that was started in the background, by its pid, if there is one."""
    with contextlib.suppress(AssertionError, OSError, EOFError), connect(cache) as client:
        welcome = client.ask(protocol.Hello())
        assert isinstance(welcome, protocol.Welcome)
        os.kill(welcome.pid, signal.SIGTERM)
        until(lambda: not os.path.exists(f"/proc/{welcome.pid}"))
