"""Sends answers: at once what the socket takes, and in time the rest.

A buffer that the reader lends holds only until the next one is lent. So it is given to the socket
before any other task runs, and what does not fit is copied. What is in the cache and checked is
sent by the kernel, from the page cache to the client's memory: nothing is copied here.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from phonofs.cache.stored_blocks import StoredRange
from phonofs.door import protocol

Body = bytes | memoryview


class SlowClient(Exception):
    """The client takes what it is sent too slowly, or has gone."""


class CutShort(SlowClient):
    """An answer that was begun cannot be ended: the client is hung up on, and asks again."""


class Sender:
    """Sends messages to one client. Counts the bytes of their bodies."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._descriptor = stream.socket.fileno()
        self.body_bytes = 0

    async def send(self, message: protocol.Answer, body: Body = b"") -> None:
        """Send a message. Raises SlowClient if the client does not take it within SLOW_S."""
        await self.send_bytes(protocol.pack(message), body)

    async def send_bytes(self, head: bytes, body: Body) -> None:
        """Send bytes of a message: of its head, and of its body. Raises as :meth:`send` does."""
        self.body_bytes += len(body)
        rest = self._send_now(head, body)
        if not rest:
            await trio.lowlevel.checkpoint()
            return
        with _patience():
            for piece in rest:
                await self._stream.send_all(piece)

    async def send_stored(self, stored: StoredRange) -> None:
        """Send bytes of a body from a file of the cache, until the file cannot give any more.

        Raises as :meth:`send` does.
        """
        with _patience():
            while stored and (sent := stored.send(self._descriptor)) is not None:
                self.body_bytes += sent
                if stored:
                    await trio.lowlevel.wait_writable(self._descriptor)

    def _send_now(self, head: bytes, body: Body) -> list[bytes]:
        """Give the socket what it takes without waiting; return copies of the rest."""
        try:
            sent = os.writev(self._descriptor, [head, body])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise SlowClient from error
        if sent >= len(head) + len(body):
            return []
        if sent < len(head):
            return [head[sent:], bytes(body)]
        return [bytes(memoryview(body)[sent - len(head) :])]


@contextmanager
def _patience() -> Iterator[None]:
    """Raise SlowClient if the client does not take what is sent within SLOW_S, or has gone."""
    try:
        with trio.fail_after(protocol.SLOW_S):
            yield
    except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise SlowClient from error
