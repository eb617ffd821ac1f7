"""A client's bytes come as they were sent, whether it is a socket or something around one."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from phonofs.stream_receiver import StreamReceiver


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[StreamReceiver, trio.SocketStream, trio.SocketStream]]:
    ours, theirs = (trio.SocketStream(each) for each in trio.socket.socketpair())
    async with ours, theirs:
        with trio.fail_after(20):
            yield StreamReceiver(ours), ours, theirs


async def test_a_socket_gives_what_it_has_and_then_waits():
    async with pair() as (receiver, _, theirs):
        await theirs.send_all(b"abcdef")
        assert await receiver.receive_some(4) == b"abcd"
        assert await receiver.receive_some(4) == b"ef"
        with trio.move_on_after(0.01) as waiting:
            await receiver.receive_some(4)
        assert waiting.cancelled_caught
        await theirs.send_all(b"g")
        await theirs.send_eof()
        assert await receiver.receive_some(4) == b"g"
        assert await receiver.receive_some(4) == b""


async def test_a_false_alarm_of_the_kernel_is_waited_out(monkeypatch):
    async with pair() as (receiver, _, theirs):
        alarms = [BlockingIOError, BlockingIOError]
        read = os.read

        def now_and_then(descriptor: int, most: int) -> bytes:
            if alarms:
                raise alarms.pop()
            return read(descriptor, most)

        monkeypatch.setattr(os, "read", now_and_then)
        await theirs.send_all(b"abc")
        assert await receiver.receive_some(9) == b"abc"
        assert not alarms


async def test_a_connection_that_breaks_or_is_closed_says_so():
    async with await _listening() as (receiver, ours, theirs):
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await trio.aclose_forcefully(theirs)  # a reset
        with pytest.raises(trio.BrokenResourceError):
            await receiver.receive_some(9)
        await trio.aclose_forcefully(ours)
    async with pair() as (receiver, ours, _), trio.open_nursery() as nursery:
        nursery.start_soon(_close_once_waited_for, ours)
        with pytest.raises(trio.ClosedResourceError):
            await receiver.receive_some(9)


async def _listening():
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    theirs = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
    ours = await listener.accept()
    await listener.aclose()
    return _kept(ours, theirs)


@asynccontextmanager
async def _kept(ours: trio.SocketStream, theirs: trio.SocketStream):
    async with ours, theirs:
        with trio.fail_after(20):
            yield StreamReceiver(ours), ours, theirs


async def _close_once_waited_for(stream: trio.SocketStream) -> None:
    await trio.testing.wait_all_tasks_blocked()
    await stream.aclose()


async def test_any_other_stream_is_asked_itself():
    ours, theirs = trio.testing.memory_stream_pair()
    receiver = StreamReceiver(ours)
    await theirs.send_all(b"abcdef")
    assert await receiver.receive_some(4) == b"abcd"
    await theirs.aclose()
    assert await receiver.receive_some(4) == b"ef"
    assert await receiver.receive_some(4) == b""
