"""Clients of the S3 door that are slow, idle, or too many, under a fake clock."""

import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trio

from phonofs.fakeservice.account import Account, flat_item
from phonofs.fakeservice.options import Options
from phonofs.http_server import CONTINUE
from phonofs.s3door.answers import Restoring
from phonofs.s3door.connection import IDLE_S, REQUEST_S, SLOW_S
from phonofs.s3door.listener import Listener
from phonofs.s3door.server import S3Door, open_listener
from tests.model.world import NOW_MS, Look, World, run
from tests.support.doors import PROFILE
from tests.support.s3_client import ALL, S3Client, write_keys

MIB = 1 << 20
SIZE = 12 * MIB


class Scene:
    """A world with one object, and an S3 door to it that listens nowhere."""

    def __init__(self, world: World, door: S3Door) -> None:
        self.world = world
        self.door = door
        self.signer = S3Client(9000, ALL)
        self.key = ""

    @asynccontextmanager
    async def clients(self, count: int = 1) -> AsyncIterator[list[trio.SocketStream]]:
        """Connect some clients; afterwards the door has none of them, and nothing is held."""
        async with trio.open_nursery() as nursery:
            made = [self.connect(nursery) for _ in range(count)]
            try:
                yield made
            finally:
                for each in made:
                    await trio.aclose_forcefully(each)
        assert self.gauges() == (0, 0)
        reader = self.world.app.status.document()["reader"]
        assert (reader["handles"], reader["waiters"]) == (0, 0)

    def connect(self, nursery: trio.Nursery) -> trio.SocketStream:
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            each.setblocking(False)
        nursery.start_soon(
            self.door.serve, trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        )
        return trio.SocketStream(trio.socket.from_stdlib_socket(ours))

    def gauges(self) -> tuple[object, object]:
        statistics = self.door.statistics()
        return statistics["connections"], statistics["active"]

    def request(self, path: str, method: str = "GET", **headers: str) -> bytes:
        target, signed = self.signer.signed(method, path, headers=headers)
        lines = (f"{name}: {value}\r\n" for name, value in signed.items())
        return f"{method} {target} HTTP/1.1\r\n{''.join(lines)}\r\n".encode()


def in_scene(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test under a fake clock."""

    async def main(**fixtures: Any) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_keys(folder / "keys.toml", ALL)
            account = Account([flat_item("0000000a", SIZE, NOW_MS - 3_600_000)], ["us-east"])
            world = World(folder, account, Options())
            async with world.mounted(Look(cache_size=50 * MIB)):
                opened = await open_listener(Listener("127.0.0.1", 0, folder / "keys.toml"))
                restoring = Restoring(world.app.restore, world.app.changes.is_restoring)
                scene = Scene(world, S3Door(opened, PROFILE, world.app.vfs, restoring))
                [path] = await paths(world)
                scene.key = path
                try:
                    await function(scene, **fixtures)
                finally:
                    for each in opened.sockets:
                        each.socket.close()

    @wraps(function)
    def test(**fixtures: Any) -> None:
        run(partial(main, **fixtures))

    del test.__wrapped__  # pytest would take the scene for a fixture
    return test


async def paths(world: World, ino: int = 1, above: str = "") -> list[str]:
    """Return the paths of all files."""
    found: list[str] = []
    for entry in (await world.app.vfs.open_folder(ino)).entries:
        path = above + entry.name
        found += await paths(world, entry.ino, f"{path}/") if entry.is_directory else [path]
    return found


async def received(stream: trio.SocketStream, size: int) -> bytes:
    """Receive so many bytes, or fewer if the door hangs up before."""
    data = b""
    while len(data) < size and (some := await stream.receive_some(65536)):
        data += some
    return data


async def answer(stream: trio.SocketStream) -> tuple[int, bytes]:
    """Receive a whole answer; return its status and its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        some = await stream.receive_some(65536)
        assert some, data
        data += some
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    return int(head.split()[1]), body + await received(stream, length - len(body))


@pytest.mark.promise("an-s3-client-leaves-nothing")
@in_scene
async def test_a_client_that_does_not_read_is_hung_up_on(scene):
    async with scene.clients() as [client]:
        await client.send_all(scene.request(scene.key))
        await trio.sleep(SLOW_S - 1)
        assert scene.gauges() == (1, 1)
        await trio.sleep(30)
        assert scene.gauges() == (0, 0)
        assert len(await received(client, 2 * SIZE)) < SIZE


@in_scene
async def test_one_that_reads_now_and_then_is_not(scene):
    async with scene.clients() as [client]:
        await client.send_all(scene.request(scene.key))
        data = b""
        while len(data) < SIZE:
            await trio.sleep(SLOW_S / 16)
            some = await client.receive_some(MIB)
            assert some
            data += some
        assert data.endswith(scene.world.plain(("us-east", "0000000a"))[-1000:])


@pytest.mark.promise("an-s3-client-leaves-nothing")
@in_scene
async def test_an_idle_connection_is_hung_up_on_after_a_minute(scene):
    async with scene.clients() as [client]:
        began = trio.current_time()
        for _ in range(3):
            await trio.sleep(IDLE_S - 1)
            await client.send_all(scene.request(scene.key, Range="bytes=0-9"))
            status, body = await answer(client)
            assert (status, len(body)) == (206, 10)
        assert await client.receive_some(1) == b""
        assert 4 * IDLE_S - 3 <= trio.current_time() - began <= 4 * IDLE_S - 2


@pytest.mark.promise("an-s3-client-leaves-nothing")
@in_scene
async def test_a_request_that_does_not_come_to_its_end_is_not_waited_for(scene):
    """Nor one that drips; one that pauses for a moment is answered."""
    async with scene.clients(3) as [silent, slow, dripping]:
        request = scene.request(scene.key, Range="bytes=0-9")
        began = trio.current_time()
        await silent.send_all(request[:60])
        assert (await answer(silent))[0] == 400
        assert await silent.receive_some(1) == b""
        assert trio.current_time() - began <= REQUEST_S + 1
        await slow.send_all(request[:-1])
        await trio.sleep(REQUEST_S / 2)
        await slow.send_all(request[-1:])
        assert (await answer(slow))[0] == 206
        with pytest.raises(trio.BrokenResourceError):
            await drip(dripping, request)


async def drip(stream: trio.SocketStream, request: bytes) -> None:
    for at in range(len(request)):
        await stream.send_all(request[at : at + 1])
        await trio.sleep(REQUEST_S / 4)


@in_scene
async def test_requests_that_come_all_at_once_are_answered_in_order(scene):
    async with scene.clients() as [client]:
        some = [scene.request(scene.key, Range=f"bytes={at}-{at}") for at in range(20)]
        await client.send_all(b"".join(some))
        plain = scene.world.plain(("us-east", "0000000a"))
        data = b""
        while data.count(b"HTTP/1.1 206") < 20 or data[-1] != plain[19]:
            data += await client.receive_some(65536)
        bodies = [each.partition(b"\r\n\r\n")[2] for each in data.split(b"HTTP/1.1 206 ")[1:]]
        assert b"".join(bodies) == plain[:20]


@in_scene
async def test_a_client_that_waits_for_100_continue_gets_it_after_the_answer_before(scene):
    async with scene.clients() as [client]:
        target, signed = scene.signer.signed(
            "POST", scene.key, {"restore": ""}, body=b"<RestoreRequest/>"
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        head = (
            f"POST {target} HTTP/1.1\r\n{lines}Expect: 100-continue\r\nContent-Length: 17\r\n\r\n"
        )
        await client.send_all(scene.request(scene.key) + head.encode())
        status, body = await answer(client)
        body += await received(client, SIZE + len(CONTINUE) - len(body))
        assert (status, body[SIZE:]) == (200, CONTINUE)
        await client.send_all(b"<RestoreRequest/>")
        status, body = await answer(client)
        assert (status, b"InvalidObjectState" in body) == (403, True)


@pytest.mark.promise("an-s3-client-leaves-nothing")
@in_scene
async def test_beyond_the_most_connections_the_longest_idle_makes_way(scene):
    """If all have asked for something, the last one is turned away."""
    with patch("phonofs.s3door.server.CONNECTIONS_MAX", 2):
        async with scene.clients(2) as [first, second]:
            for client in (first, second):
                await client.send_all(scene.request(scene.key, Range="bytes=0-9"))
                assert (await answer(client))[0] == 206
                await trio.sleep(1)
            async with trio.open_nursery() as nursery:
                third = scene.connect(nursery)
                assert await first.receive_some(1) == b""
                for client in (second, third):
                    await client.send_all(scene.request(scene.key))
                    assert (await received(client, 12)) != b""
                fourth = scene.connect(nursery)
                assert await fourth.receive_some(1) == b""
                assert scene.door.statistics()["turned_away"] == 1
                for client in (third, fourth):
                    await trio.aclose_forcefully(client)
