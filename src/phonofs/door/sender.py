"""Sends the messages of the door to one client."""

import trio

from phonofs.cache.stored_blocks import StoredRange
from phonofs.door import protocol
from phonofs.stream_sender import Body, SlowClient, StreamSender

__all__ = ["CutShort", "Sender", "SlowClient"]


class CutShort(SlowClient):
    """An answer that was begun cannot be ended: the client is hung up on, and asks again."""


class Sender:
    """Sends messages to one client. Counts the bytes of their bodies."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._out = StreamSender(stream, protocol.SLOW_S)

    @property
    def body_bytes(self) -> int:
        """How many bytes of bodies it was sent."""
        return self._out.body_bytes

    async def send(self, message: protocol.Answer, body: Body = b"") -> None:
        """Send a message. Raises SlowClient if the client does not take it within SLOW_S."""
        await self._out.send(protocol.pack(message), body)

    async def send_body(self, body: Body) -> None:
        """Send more bytes of the body of a message. Raises as :meth:`send` does."""
        await self._out.send(b"", body)

    async def send_stored(self, stored: StoredRange) -> None:
        """Send bytes of a body from a file of the cache, as ``StreamSender.send_stored`` does."""
        await self._out.send_stored(stored)
