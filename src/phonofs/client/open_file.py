"""A file that is open at a daemon."""

import errno
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from phonofs.client.client import Client
from phonofs.client.connection import Connection, Disconnected, os_error, refused
from phonofs.door.protocol import Close, Error, Open, Opened, Read

CLOSE_S = 1.0
"""How long closing a file may wait for the daemon; after that its connection is dropped."""

_Result = TypeVar("_Result")


class OpenFile:
    """A file that is open at the daemon, on a connection of its own.

    It is opened by the first read, and again after a fork or a restart of the daemon, if it still
    has the same content; else ESTALE. All of its reads are of one content.
    """

    def __init__(self, client: Client, path: str, fingerprint: str) -> None:
        self._client = client
        self._path = path
        self._fingerprint = fingerprint
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._handle = 0
        self._size = 0

    @property
    def size(self) -> int:
        """How many bytes it has, as the daemon knew when it was opened last; 0 before that."""
        return self._size

    def open(self) -> None:
        """Open it now. Raises ENODATA if it is archived, ESTALE if its content is another one."""
        self._retried(lambda connection: None)

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes, or raise an error."""
        result = self._retried(lambda connection: self._read(connection, offset, size))
        if isinstance(result, Error):
            raise os_error(result, self._client.shown(self._path))
        return result

    def close(self) -> None:
        """Close it at the daemon, after a read that is under way, and hand the connection on."""
        if self._pid != os.getpid():
            self._leave_to_parent()
            return
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.limit(CLOSE_S)
            connection.send(Close(self._handle))
            connection.receive()
            connection.limit(None)
        except OSError:
            connection.close()
        else:
            self._client.give_back(connection)

    def _leave_to_parent(self) -> None:
        """Close a forked child's copy of the connection; the parent has the file open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _retried(self, use: Callable[[Connection], _Result]) -> _Result:
        """Use the connection; once more if the daemon hung up meanwhile."""
        if self._pid != os.getpid():
            self._lock = threading.Lock()  # the parent's may have been held
            self._leave_to_parent()
            self._pid = os.getpid()
        with self._lock:
            try:
                return self._used(use)
            except Disconnected:
                self._client.drop_idle()
                return self._used(use)

    def _used(self, use: Callable[[Connection], _Result]) -> _Result:
        if self._connection is None:
            self._connection, self._handle = self._opened()
        try:
            return use(self._connection)
        except BaseException:  # the rest of the answer may still come
            self._connection.close()
            self._connection = None
            raise

    def _read(self, connection: Connection, offset: int, size: int) -> bytes | Error:
        connection.send(Read(self._handle, offset, size))
        return connection.receive_file(size)

    def _opened(self) -> tuple[Connection, int]:
        connection = self._client.take()
        try:
            connection.send(Open(self._path))
            answer = connection.receive()
        except BaseException:
            connection.close()
            raise
        if isinstance(answer, Opened) and answer.fingerprint == self._fingerprint:
            self._size = answer.size
            return connection, answer.handle
        connection.close()
        shown = self._client.shown(self._path)
        if isinstance(answer, Opened):
            raise OSError(errno.ESTALE, "it has other content than when it was opened", shown)
        error = refused(answer, shown)
        if isinstance(error, FileNotFoundError):
            raise OSError(errno.ESTALE, "it is gone since it was opened", shown)
        raise error
