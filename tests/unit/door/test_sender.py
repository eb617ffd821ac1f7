"""What a client gets if the socket does not take an answer at once."""

import socket

import pytest
import trio
import trio.testing

from phonofs.door.protocol import Data, pack
from phonofs.door.sender import Sender

BODY = bytes(range(251)) * 4000


async def received(theirs: trio.SocketStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += await theirs.receive_some(size - len(data))
    return bytes(data)


HEAD = pack(Data(len(BODY)))


@pytest.mark.parametrize("count", [None, 3, len(HEAD), len(HEAD) + 1000])
def test_a_buffer_that_was_lent_is_copied_before_another_task_runs(count, monkeypatch):
    """The next file that is read is read into it. ``count`` bytes are taken at once, or nothing."""

    async def main() -> None:
        pair = socket.socketpair()
        for each in pair:
            each.setblocking(False)
        ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in pair)
        lent = bytearray(BODY)

        def writev(descriptor: int, buffers: list[bytes]) -> int:
            assert descriptor == ours.socket.fileno()
            if count is None:
                raise BlockingIOError
            return pair[0].send(b"".join(buffers)[:count])

        async with ours, theirs, trio.open_nursery() as nursery:
            monkeypatch.setattr("phonofs.stream_sender.os.writev", writev)
            nursery.start_soon(Sender(ours).send, Data(len(BODY)), memoryview(lent))
            await trio.testing.wait_all_tasks_blocked()
            lent[:] = bytes(len(lent))
            assert await received(theirs, len(HEAD) + len(BODY)) == HEAD + BODY

    trio.run(main)
