"""Sends answers to a client: at once what the socket takes, and in time the rest.

A buffer that the reader lends holds only until the next one is lent. So it is given to the socket
before any other task runs, and what does not fit is copied. Used by both doors.
"""

import os

import trio
from trio.abc import Stream

Body = bytes | memoryview


class SlowClient(Exception):
    """The client takes what it is sent too slowly, or has gone."""


class StreamSender:
    """Sends to one client. Counts the bytes of bodies.

    ``stream`` is a socket, or anything else (TLS), to which everything is copied.
    """

    def __init__(self, stream: Stream, slow_s: float) -> None:
        """``slow_s``: how long the client may take for one call of :meth:`send`."""
        self._stream = stream
        self._slow_s = slow_s
        self._descriptor: int | None = None
        if isinstance(stream, trio.SocketStream):
            self._descriptor = stream.socket.fileno()
        self.body_bytes = 0

    async def send(self, head: bytes, body: Body = b"", *, last: bool = False) -> None:
        """Send a head and a body. Raises SlowClient if the client does not take them in time.

        Lets other tasks run, unless this is the ``last``, after which the caller waits anyway.
        """
        self.body_bytes += len(body)
        rest = [head + body] if self._descriptor is None else self._send_now(head, body)
        if not rest:
            if not last:
                await trio.lowlevel.checkpoint()
            return
        try:
            with trio.fail_after(self._slow_s):
                for piece in rest:
                    await self._stream.send_all(piece)
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise SlowClient from error

    def _send_now(self, head: bytes, body: Body) -> list[bytes]:
        """Give the socket what it takes without waiting; return copies of the rest."""
        assert self._descriptor is not None
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
