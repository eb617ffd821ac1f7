"""Sends the messages of the door to one client."""

import trio

from phonofs.door import protocol
from phonofs.stream_sender import Body, SlowClient, StreamSender

__all__ = ["Sender", "SlowClient"]


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
