"""One connection to a daemon: sends requests, receives answers. Blocking."""

import errno
from pathlib import Path

from phonofs.client.destination import Destination
from phonofs.door.address import connected
from phonofs.door.protocol import (
    LENGTH,
    Answer,
    Close,
    Data,
    End,
    Entries,
    Entry,
    Error,
    NotUnderstood,
    Opened,
    Read,
    Request,
    answer_of,
    head_length,
    pack,
)


class Disconnected(ConnectionError):
    """The daemon hung up before its answer was whole: it ended, or the connection was idle."""


def os_error(answer: Error, path: str) -> OSError:
    """Return what an answer stands for, as FileNotFoundError or another subclass by its errno."""
    return OSError(getattr(errno, answer.errno, errno.EIO), answer.message, path)


class Connection:
    """A connection to a daemon, for one request at a time. Not safe for threads."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        """Connect. Raises OSError as ``connected`` of the door's address does."""
        self._timeout_s = timeout_s
        self._socket = connected(path, timeout_s)

    def send(self, request: Request) -> None:
        """Send a request; all of its answer must be received before the next one."""
        try:
            self._socket.sendall(pack(request))
        except (BrokenPipeError, ConnectionResetError):
            raise Disconnected("the daemon hung up") from None

    def receive(self) -> Answer:
        """Receive the next message of an answer, without its body."""
        try:
            return answer_of(self._bytes(head_length(self._bytes(LENGTH.size))))
        except NotUnderstood as error:
            raise OSError(errno.EPROTO, f"the daemon's answer: {error}") from None

    def receive_whole(self) -> bytes | Error:
        """Receive the answer to ``open``, then read the whole file and close it.

        Its size is known before its bytes come, other than from ``cat``.
        """
        answer = self.receive()
        if not isinstance(answer, Opened):
            if isinstance(answer, Error):
                return answer
            raise unexpected(answer)
        content: bytes | Error = b""
        if answer.size:
            self.send(Read(answer.handle, 0, answer.size))
            content = self.receive_file(answer.size)
        self.send(Close(answer.handle))
        self.receive()
        return content

    def receive_content(self) -> bytes | Error:
        """Receive bytes whose number is not known: of an item of ``cat``, or of a record."""
        pieces: list[bytes] = []
        while True:
            answer = self.receive()
            if isinstance(answer, Error):
                return answer
            if not isinstance(answer, Data):
                raise unexpected(answer)
            pieces.append(self._bytes(answer.body))
            if answer.last:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def receive_file(self, size: int) -> bytes | Error:
        """Receive the answer to ``read``: all of its bytes."""
        with Destination(size) as destination:
            done = 0
            while True:
                answer = self.receive()
                if isinstance(answer, Error):
                    return answer
                if not isinstance(answer, Data) or done + answer.body > size:
                    raise unexpected(answer)
                self._fill(destination.view[done : done + answer.body])
                done += answer.body
                if answer.last:
                    break
        if done != size:  # a reader would take it for the end of the file
            raise OSError(errno.EIO, f"the daemon sent {done} bytes instead of {size}")
        return destination.content()

    def receive_entries(self) -> list[Entry] | Error:
        """Receive a listing; it is whole, or an error."""
        entries: list[Entry] = []
        while True:
            match self.receive():
                case Entries(entries=some):
                    entries += some
                case End():
                    return entries
                case Error() as error:
                    return error
                case answer:
                    raise unexpected(answer)

    def limit(self, timeout_s: float | None) -> None:
        """Set how long to wait for the daemon; None: as long as usual."""
        self._socket.settimeout(self._timeout_s if timeout_s is None else timeout_s)

    def close(self) -> None:
        """Close it; what the daemon still sends is lost."""
        self._socket.close()

    def __del__(self) -> None:
        if hasattr(self, "_socket"):  # not if __init__ failed
            self._socket.close()  # idle, of a client that nobody uses: nothing was forgotten

    def _bytes(self, size: int) -> bytes:
        with Destination(size) as destination:
            self._fill(destination.view)
        return destination.content()

    def _fill(self, view: memoryview) -> None:
        while view:
            try:
                count = self._socket.recv_into(view)
            except ConnectionResetError:
                count = 0
            except TimeoutError:
                raise TimeoutError(
                    errno.ETIMEDOUT, f"the daemon did not answer within {self._timeout_s:g} s"
                ) from None
            if not count:
                raise Disconnected("the daemon hung up")
            view = view[count:]


def unexpected(answer: Answer) -> OSError:
    """Return the error for a message that does not belong to the answer."""
    return OSError(errno.EPROTO, f"the daemon's answer: unexpected {type(answer).__name__}")


def refused(answer: Answer, path: str) -> OSError:
    """Return the error for an answer that is not the one that was asked for."""
    return os_error(answer, path) if isinstance(answer, Error) else unexpected(answer)
