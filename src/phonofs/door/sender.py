"""Sends answers: at once what the socket takes, and in time the rest.

A buffer that the reader lends holds only until the next one is lent. So it is given to the socket
before any other task runs, and what does not fit is copied.
"""

import os

import trio

from phonofs.door import protocol

Body = bytes | memoryview


class SlowClient(Exception):
    """The client takes what it is sent too slowly, or has gone."""


class Sender:
    """Sends messages to one client. Counts the bytes of their bodies."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._descriptor = stream.socket.fileno()
        self.body_bytes = 0

    async def send(self, message: protocol.Answer, body: Body = b"") -> None:
        """Send a message. Raises SlowClient if the client does not take it within SLOW_S."""
        self.body_bytes += len(body)
        rest = self._send_now(protocol.pack(message), body)
        if not rest:
            await trio.lowlevel.checkpoint()
            return
        try:
            with trio.fail_after(protocol.SLOW_S):
                for piece in rest:
                    await self._stream.send_all(piece)
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise SlowClient from error

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
