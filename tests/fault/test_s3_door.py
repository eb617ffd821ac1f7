"""Clients of the S3 door that are slow, idle, or too many, under a fake clock."""

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trio

from phonofs.errors import JournalError, WrongAccount
from phonofs.fakeservice.account import Account, change, flat_item
from phonofs.fakeservice.options import Options
from phonofs.http_server import CONTINUE
from phonofs.s3door.answers import Answer, Answers, Content
from phonofs.s3door.connection import IDLE_S, REQUEST_S, SLOW_S
from phonofs.s3door.keys import Key
from phonofs.s3door.request import Request
from phonofs.s3door.server import S3Door
from tests.model.world import NOW_MS, Look, World, run
from tests.support.file_sends import Readiness
from tests.support.s3_in_process import InProcess, door_of
from tests.support.wrapped_tests import takes_fixtures_of

MIB = 1 << 20
SIZE = 12 * MIB
FIRST = {"Range": "bytes=0-9"}


class Scene:
    """A world with one object, and an S3 door to it. ``key`` is the object's."""

    def __init__(self, world: World, door: S3Door, key: str) -> None:
        self.world = world
        self.door = door
        self.key = key

    @property
    def plain(self) -> bytes:
        return self.world.plain(("us-east", "0000000a"))

    @asynccontextmanager
    async def clients(self, count: int = 1) -> AsyncIterator[list[InProcess]]:
        """Connect some clients; afterwards the door has none of them, and nothing is held."""
        async with trio.open_nursery() as background:
            background.start_soon(self.door.hang_up_on_idle)
            async with trio.open_nursery() as nursery:
                made = [InProcess.of(self.door, nursery) for _ in range(count)]
                try:
                    yield made
                finally:
                    for each in made:
                        await trio.aclose_forcefully(each.stream)
            background.cancel_scope.cancel()
        assert self.gauges() == (0, 0)
        reader = self.world.app.status.document()["reader"]
        assert (reader["handles"], reader["waiters"]) == (0, 0)

    def gauges(self) -> tuple[object, object]:
        statistics = self.door.statistics()
        return statistics["connections"], statistics["active"]


def in_scene(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test under a fake clock."""

    async def main(**fixtures: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            account = Account([flat_item("0000000a", SIZE, NOW_MS - 3_600_000)], ["us-east"])
            world = World(Path(folder), account, Options())
            async with world.mounted(Look(cache_size=50 * MIB)):
                [key] = await world.tree()
                await function(Scene(world, door_of(world.app, folder), key), **fixtures)

    @wraps(function)
    def test(**fixtures: Any) -> None:
        run(partial(main, **fixtures))

    takes_fixtures_of(test, function, "scene")
    return test


@pytest.mark.promise("an-s3-client-leaves-nothing")
@in_scene
async def test_a_client_that_does_not_read_is_hung_up_on(scene):
    """It has got a part of what it asked for, and no end; its file is closed."""
    async with scene.clients() as [client]:
        await client.send(client.request(scene.key))
        await trio.sleep(SLOW_S - 1)
        assert scene.gauges() == (1, 1)
        await trio.sleep(30)
        assert scene.gauges() == (0, 0)
        with pytest.raises(EOFError):
            await client.answer()


@in_scene
async def test_one_that_reads_now_and_then_is_not(scene):
    async with scene.clients() as [client]:
        await client.send(client.request(scene.key))
        data = b""
        while len(data.partition(b"\r\n\r\n")[2]) < SIZE:
            await trio.sleep(SLOW_S / 16)
            some = await client.stream.receive_some(MIB)
            assert some
            data += some
        assert data.partition(b"\r\n\r\n")[2] == scene.plain


@in_scene
async def test_a_slow_client_gets_what_is_in_the_cache(scene):
    """One that plays what it receives takes 256 KiB in half a minute, also if the kernel sends."""
    async with scene.clients() as [client]:
        assert (await client.ask(scene.key)).body == scene.plain
        ready = Readiness()
        with ready.patched():
            part = {"Range": f"bytes=0-{4 * MIB - 1}"}
            await client.send(client.request(scene.key, headers=part))
            body = (await client.some()).partition(b"\r\n\r\n")[2]
            while len(body) < 4 * MIB:
                await trio.sleep(SLOW_S / 8)
                body += await client.some()
        assert body == scene.plain[: 4 * MIB]
        assert ready.sent == 4 * MIB


@pytest.mark.parametrize("every", [0, 1, 2, 3])
@in_scene
async def test_what_is_in_the_cache_is_sent_from_its_file(scene, every):
    """To a client that takes it slowly, too; what has left the page cache meanwhile is read."""
    async with scene.clients() as [client]:
        assert (await client.ask(scene.key)).body == scene.plain
        ready = Readiness(lambda number: bool(every) and number % every == 0)
        with ready.patched():
            for start, stop in ((0, SIZE), (1, 3 * MIB), (SIZE - MIB - 7, SIZE), (5, 100_000)):
                await client.send(
                    client.request(scene.key, headers={"Range": f"bytes={start}-{stop - 1}"})
                )
                await trio.sleep(SLOW_S / 16)
                assert (await client.answer()).body == scene.plain[start:stop]
    assert ready.asked >= 4
    assert (ready.sent > 0) == (every in (0, 3))  # it is looked at before the head and after it
    assert every or ready.sent == 16 * MIB - 1  # the last 7 bytes of 1 MiB and 7 are copied


@pytest.mark.promise("withdrawn-is-gone")
@in_scene
async def test_what_is_withdrawn_amid_an_answer_is_sent_no_further(scene):
    """The client is hung up on, since the answer cannot be ended; it asks again, and is told."""
    async with scene.clients() as [client]:
        assert (await client.ask(scene.key)).body == scene.plain
        await client.send(client.request(scene.key))
        await trio.sleep(SLOW_S / 4)
        world = scene.world
        change(world.account, "us-east", "0000000a", world.now_ms(), state="REVOKED")
        await world.app.follower.poll("us-east")
        with pytest.raises(EOFError):
            await client.answer()
    async with scene.clients() as [again]:
        assert (await again.ask(scene.key)).status == 404


@pytest.mark.promise("s3-never-a-false-byte")
@in_scene
async def test_an_error_amid_an_answer_ends_it_and_is_not_a_part_of_it(scene):
    """As when the account's key is changed for that of another customer meanwhile."""
    async with scene.clients() as [client]:
        assert (await client.ask(scene.key)).body == scene.plain
        await client.send(client.request(scene.key))
        received = await client.some()
        refusal = WrongAccount("the API key belongs to another account")
        vfs = type(scene.world.app.vfs)
        with patch.object(vfs, "check", side_effect=refusal):
            received += await client.rest()
        body = received.partition(b"\r\n\r\n")[2]
        assert len(body) < SIZE
        assert body == scene.plain[: len(body)]
    assert scene.door.statistics()["errors"] == {"AccessDenied": 1}


@pytest.mark.promise("an-s3-client-leaves-nothing")
@in_scene
async def test_an_idle_connection_is_hung_up_on_after_a_minute(scene):
    async with scene.clients() as [client]:
        began = trio.current_time()
        for _ in range(3):
            await trio.sleep(IDLE_S - 1)
            assert (await client.ask(scene.key, headers=FIRST)).body == scene.plain[:10]
        with pytest.raises(EOFError):
            await client.some()
        assert 4 * IDLE_S - 3 <= trio.current_time() - began <= 4 * IDLE_S - 2


@pytest.mark.promise("an-s3-client-leaves-nothing")
@pytest.mark.parametrize("early", [0, 5])
@in_scene
async def test_whoever_has_no_key_cannot_keep_its_connection(scene, early):
    """However often it asks, also if it has always begun the next request already."""
    request = b"GET /default HTTP/1.1\r\nHost: x\r\n\r\n"

    async def ask_on(client: InProcess) -> None:
        await client.send(request[:early])
        while True:
            await trio.sleep(5.7)
            await client.send(request[early:] + request[:early])
            assert (await client.answer()).code == "AccessDenied"

    async with scene.clients() as [client]:
        began = trio.current_time()
        with pytest.raises((EOFError, trio.BrokenResourceError)):
            await ask_on(client)
        assert IDLE_S - 1 <= trio.current_time() - began <= IDLE_S + 12


@pytest.mark.parametrize("waits", [False, True])
@in_scene
async def test_a_request_that_comes_while_it_is_hung_up_on_is_answered(scene, waits):
    """All of it: many clients ask again what was answered by half."""
    with patch.object(Answers, "answer", answer_slowly if waits else Answers.answer):
        async with scene.clients() as [client]:
            for turns in range(5):
                assert (await client.ask(scene.key)).body == scene.plain
                await trio.sleep(IDLE_S - 1)
                request = client.request(scene.key)
                assert os.write(client.stream.socket.fileno(), request) == len(request)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                for connection in scene.door._connections:
                    if connection.idle_until_s is not None:
                        connection.hang_up()
                assert (await client.answer()).body == scene.plain


async def answer_slowly(answers: Answers, key: Key, request: Request) -> Answer | Content:
    await trio.sleep(0.5)
    return await answer(answers, key, request)


answer = Answers.answer


@pytest.mark.promise("an-s3-client-leaves-nothing")
@in_scene
async def test_a_request_that_does_not_come_to_its_end_is_not_waited_for(scene):
    """Nor one that drips; one that pauses for a moment is answered."""
    async with scene.clients(3) as [silent, slow, dripping]:
        request = slow.request(scene.key, headers=FIRST)
        began = trio.current_time()
        await silent.send(request[:60])
        assert (await silent.answer()).code == "RequestTimeout"
        with pytest.raises(EOFError):
            await silent.some()
        assert trio.current_time() - began <= REQUEST_S + 1
        await slow.send(request[:-1])
        await trio.sleep(REQUEST_S / 2)
        await slow.send(request[-1:])
        assert (await slow.answer()).status == 206
        with pytest.raises(trio.BrokenResourceError):
            await drip(dripping, request)


async def drip(client: InProcess, request: bytes) -> None:
    for at in range(len(request)):
        await client.send(request[at : at + 1])
        await trio.sleep(REQUEST_S / 4)


@in_scene
async def test_requests_that_come_all_at_once_are_answered_in_order(scene):
    async with scene.clients() as [client]:
        ranges = [{"Range": f"bytes={at}-{at}"} for at in range(20)]
        await client.send(b"".join(client.request(scene.key, headers=each) for each in ranges))
        assert b"".join([(await client.answer()).body for _ in ranges]) == scene.plain[:20]


@in_scene
async def test_a_client_that_waits_for_100_continue_gets_it_after_the_answer_before(scene):
    async with scene.clients() as [client]:
        body = b"<RestoreRequest/>"
        head = client.request(scene.key, "POST", {"restore": ""}, body=body)
        more = f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        await client.send(client.request(scene.key) + head[:-2] + more)
        assert (await client.answer()).body == scene.plain
        assert (await client.answer()).status == int(CONTINUE.split()[1])
        await client.send(body)
        assert (await client.answer()).code == "InvalidObjectState"


@pytest.mark.promise("an-s3-client-leaves-nothing")
@in_scene
async def test_beyond_the_most_connections_the_longest_idle_makes_way(scene):
    """If all have asked for something, the last one is turned away."""
    with patch("phonofs.s3door.server.CONNECTIONS_MAX", 2):
        async with scene.clients(2) as [first, second], trio.open_nursery() as nursery:
            for client in (first, second):
                assert (await client.ask(scene.key, headers=FIRST)).status == 206
                await trio.sleep(1)
            third = InProcess.of(scene.door, nursery)
            with pytest.raises(EOFError):
                await first.some()
            for client in (second, third):
                await client.send(client.request(scene.key))
                await client.some()
            fourth = InProcess.of(scene.door, nursery)
            with pytest.raises(EOFError):
                await fourth.some()
            assert scene.door.statistics()["turned_away"] == 1
            for client in (third, fourth):
                await trio.aclose_forcefully(client.stream)


@pytest.mark.promise("an-s3-client-leaves-nothing")
@in_scene
async def test_requests_without_a_key_keep_nobody_out(scene):
    """Neither of clients that do not read their errors, nor of those that always send another."""
    with patch("phonofs.s3door.server.CONNECTIONS_MAX", 2):
        async with scene.clients(2) as [deaf, loud], trio.open_nursery() as nursery:
            await nursery.start(send_without_end, deaf)
            await trio.sleep(1)
            assert scene.gauges() == (2, 1)
            first = InProcess.of(scene.door, nursery)
            await trio.sleep(1)
            await loud.send(UNSIGNED)
            assert (await loud.answer()).code == "AccessDenied"
            second = InProcess.of(scene.door, nursery)
            for each in (first, second):
                await each.send(each.request(scene.key))
                await each.some()
            for each in (deaf, loud):
                await each.rest()
            assert scene.door.statistics()["turned_away"] == 0
            for each in (first, second):
                await trio.aclose_forcefully(each.stream)


UNSIGNED = f"GET /{'a' * 20_000} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


async def send_without_end(
    client: InProcess, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    task_status.started()
    with suppress(trio.BrokenResourceError):
        while True:
            await client.send(UNSIGNED)


@pytest.mark.promise("s3-opens-are-recorded")
@in_scene
async def test_what_cannot_be_recorded_is_not_given(scene):
    """Nor is anything of it told but what a listing tells."""
    async with scene.clients() as [client]:
        with patch("phonofs.access.Access.grant", side_effect=JournalError("the disk is full")):
            answer = await client.ask(scene.key)
            assert (answer.status, answer.code) == (503, "SlowDown")
            assert scene.plain[:20] not in answer.body
        assert (await client.ask(scene.key)).body == scene.plain
