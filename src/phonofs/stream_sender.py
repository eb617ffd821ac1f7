"""Sends answers to a client: at once what the socket takes, and in time the rest.

A buffer that the reader lends holds only until the next one is lent. So it is given to the socket
before any other task runs, and what does not fit is copied. What is in the cache and checked is
sent by the kernel, from the page cache to the socket: nothing is copied here. Used by both doors.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from trio.abc import Stream

from phonofs.cache.stored_blocks import StoredRange

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

    @property
    def sends_files(self) -> bool:
        """Whether :meth:`send_stored` can send anything: the stream is a socket."""
        return self._descriptor is not None

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
        with self._patience():
            for piece in rest:
                await self._stream.send_all(piece)

    async def send_stored(self, stored: StoredRange, timed: int | None = None) -> None:
        """Send bytes of a body from a file of the cache, until the file cannot give any more.

        The client has ``slow_s`` for all of them, or for each ``timed`` bytes. Sends none unless
        the stream is a socket. Raises as :meth:`send` does.
        """
        descriptor = self._descriptor
        if descriptor is None:
            return
        gives = self._send_some(descriptor, stored)
        while gives and stored:
            stop = stored.offset + (timed or len(stored))
            with self._patience():
                while gives and stored and stored.offset < stop:
                    await trio.lowlevel.wait_writable(descriptor)
                    gives = self._send_some(descriptor, stored)
        await trio.lowlevel.checkpoint()

    def _send_some(self, descriptor: int, stored: StoredRange) -> bool:
        """Have the socket take what it can; return False if the file cannot give any more."""
        sent = stored.send(descriptor)
        self.body_bytes += sent or 0
        return sent is not None

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Raise SlowClient if the client does not take what is sent in time, or has gone."""
        try:
            with trio.fail_after(self._slow_s):
                yield
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
