"""A daemon's door over a plain folder: the protocol once more, without phonofs behind it.

For the tests of the client, and for suites of others that make files of their own names.
"""

import errno
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from phonofs.door import protocol as door

PIECE = 100_000
"""The most bytes of a message: odd, and less than the protocol allows."""

SOME = 3
"""The most entries of a message."""


class FolderDoor:
    """Serves a folder at a socket, with a thread for each connection.

    requests     those that came, by their type
    connections  how many there were
    trouble      is called with each request ahead of its answer; it may raise OSError, which is the
                 answer, or ``HangUp``
    """

    def __init__(self, folder: Path, path: Path, profile: str = "work") -> None:
        self.folder = folder
        self.path = path
        self.profile = profile
        self.requests: Counter[str] = Counter()
        self.connections = 0
        self.trouble: Callable[[door.Request], None] = lambda request: None
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """End as a daemon that is killed: the file of the socket stays."""
        assert self._listener is not None
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Close all connections, as for those that are idle."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with self._lock:
                    self._open.add(connection)
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, HangUp, EOFError), connection:
            Conversation(self, connection).run()
        with self._lock:
            self._open.discard(connection)


class HangUp(Exception):
    """The connection is to be closed."""


class Conversation:
    """One connection, with the files it has open."""

    def __init__(self, served: FolderDoor, connection: socket.socket) -> None:
        self._served = served
        self._connection = connection
        self._files: dict[int, Path] = {}

    def run(self) -> None:
        stream = self._connection.makefile("rb")
        while head := stream.read(door.LENGTH.size):
            request = door.request_of(stream.read(door.head_length(head)))
            self._served.requests[type(request).__name__] += 1
            try:
                self._served.trouble(request)
                for message in self._answer(request):
                    self._send(message)
            except OSError as error:
                self._send(_error(error))

    def _send(self, message: door.Answer | tuple[door.Data, bytes]) -> None:
        answer, body = message if isinstance(message, tuple) else (message, b"")
        self._connection.sendall(door.pack(answer) + body)

    def _answer(self, request: door.Request) -> Iterator[door.Answer | tuple[door.Data, bytes]]:
        match request:
            case door.Hello():
                yield door.Welcome(door.VERSION, "0", self._served.profile, os.getpid())
            case door.Info(path=path):
                yield door.About(_entry(self._at(path)))
            case door.Ls(path=path):
                yield from _in_messages([_entry(each) for each in _sorted(self._at(path))])
            case door.Find():
                yield from _in_messages([*self._find(request)])
            case door.Open(path=path):
                file = self._file(path)
                number = len(self._files) + 1
                self._files[number] = file
                entry = _entry(file)
                yield door.Opened(number, entry.size, entry.fingerprint)
            case door.Read(handle=handle, offset=offset, size=size):
                yield from _data(self._files[handle].read_bytes()[offset : offset + size])
            case door.Close(handle=handle):
                self._files.pop(handle, None)
                yield door.End()
            case door.Cat(items=items):
                for path, start, stop in items:
                    try:
                        yield from _data(self._file(path).read_bytes()[start:stop])
                    except OSError as error:
                        yield _error(error)
            case door.Record(path=path):
                yield from _data(b'{"id": "%s"}' % self._file(path).name.encode())
            case _:
                raise HangUp

    def _at(self, path: str) -> Path:
        return self._served.folder / path

    def _file(self, path: str) -> Path:
        file = self._at(path)
        if file.stat() and file.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
        return file

    def _find(self, request: door.Find) -> Iterator[door.Entry]:
        top = self._at(request.path)
        if not top.is_dir():
            yield _entry(top, "")
        for path in sorted(top.rglob("*")) if top.is_dir() else ():
            name = path.relative_to(top)
            deep = request.maxdepth is not None and len(name.parts) > request.maxdepth
            if not deep and (request.withdirs or path.is_file()):
                yield _entry(path, str(name))


def _sorted(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def _entry(path: Path, name: str | None = None) -> door.Entry:
    status = path.stat()
    name = path.name if name is None else name
    times = (status.st_mtime_ns // 10**6, status.st_ctime_ns // 10**6)
    if path.is_dir():
        return door.Entry(name, "directory", 0, *times, 0, status.st_ino)
    version = f"{status.st_size}-{status.st_mtime_ns}"
    return door.Entry(
        name, "file", status.st_size, *times, times[0], status.st_ino, version, path.name,
        "us-east", "callrecording", "audio/mpeg", "AVAILABLE",
    )  # fmt: skip


def _error(error: OSError) -> door.Error:
    return door.Error(errno.errorcode.get(error.errno or 0, "EIO"), error.strerror or str(error))


def _in_messages(entries: list[door.Entry]) -> Iterator[door.Answer]:
    for at in range(0, len(entries), SOME):
        yield door.Entries(entries[at : at + SOME])
    yield door.End()


def _data(content: bytes) -> Iterator[tuple[door.Data, bytes]]:
    for at in range(0, max(len(content), 1), PIECE):
        piece = content[at : at + PIECE]
        yield door.Data(len(piece), at + PIECE >= len(content)), piece


@contextmanager
def folder_door(folder: Path, path: Path) -> Iterator[FolderDoor]:
    """Serve a folder at a socket while the block runs."""
    served = FolderDoor(folder, path)
    served.start()
    try:
        yield served
    finally:
        served.stop()
