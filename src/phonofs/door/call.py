"""Asks a daemon one thing: who it is, how it is, whether it lets another process have the account.

For the commands, and for a mount that finds its cache folder in use. Programs that read have a
client that keeps its connections. Synchronous, with a short deadline: a daemon answers these from
memory.
"""

import socket
from contextlib import suppress
from pathlib import Path

from phonofs.door import protocol
from phonofs.door.address import connected, read_address
from phonofs.errors import Unavailable

PATIENCE_S = 5.0
"""How long one answer may take."""


def call(cache_dir: Path, request: protocol.Request) -> tuple[protocol.Answer, bytes] | None:
    """Send a request to the daemon of a cache folder; return the answer, and the bytes in it.

    None if no daemon listens there. Raises Unavailable if one does, and does not answer.
    """
    try:
        path = read_address(cache_dir)
        if path is None:
            return None
        with connected(path, PATIENCE_S) as connection:
            connection.sendall(protocol.pack(request))
            return _answer(connection)
    except (FileNotFoundError, ConnectionRefusedError, PermissionError):
        return None
    except (OSError, protocol.NotUnderstood) as error:
        raise Unavailable(f"the daemon that uses {cache_dir} does not answer: {error}") from error


def _answer(connection: socket.socket) -> tuple[protocol.Answer, bytes]:
    body = b""
    while True:
        length = protocol.head_length(_received(connection, protocol.LENGTH.size))
        answer = protocol.answer_of(_received(connection, length))
        if not isinstance(answer, protocol.Data):
            return answer, body
        body += _received(connection, answer.body)
        if answer.last:
            return answer, body


def _received(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        some = connection.recv(size - len(data))
        if not some:
            raise ConnectionResetError("it hung up")
        data += some
    return bytes(data)


def who_is_there(cache_dir: Path) -> protocol.Welcome | None:
    """Return who has the door of a cache folder open; None if nobody answers."""
    with suppress(Unavailable):
        answered = call(cache_dir, protocol.Hello())
        if answered is not None and isinstance(answered[0], protocol.Welcome):
            return answered[0]
    return None
