"""Receives what a client sends. Used by the S3 door."""

import os

import trio
from trio.abc import Stream


class StreamReceiver:
    """Receives from one client.

    Of a socket it waits until there is something, and then takes it: trio's own stream would try
    before, and nearly always in vain.
    """

    def __init__(self, stream: Stream) -> None:
        """``stream`` is a socket, or anything else (TLS)."""
        self._stream = stream
        self._descriptor: int | None = None
        if isinstance(stream, trio.SocketStream):
            self._descriptor = stream.socket.fileno()

    async def receive_some(self, most: int) -> bytes:
        """Return 1 to ``most`` bytes, or none at the end.

        Lets other tasks run. Raises trio.BrokenResourceError, trio.ClosedResourceError.
        """
        descriptor = self._descriptor
        if descriptor is None:
            return bytes(await self._stream.receive_some(most))
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            try:
                return os.read(descriptor, most)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError from error
