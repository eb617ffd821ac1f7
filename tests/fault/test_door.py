"""Clients of the door that are slow, idle, or too many, under a fake clock."""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import trio

from phonofs.door import protocol
from phonofs.door.connection import HELD_S, REQUEST_S
from phonofs.fakeservice.account import Account, change, flat_item
from phonofs.fakeservice.options import Options
from tests.model.world import NOW_MS, Look, World, run
from tests.support.door_client import Client
from tests.support.file_sends import Readiness
from tests.support.wrapped_tests import takes_fixtures_of

MIB = 1 << 20


def in_world(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test in a world with one object of 8 MiB, under a fake clock."""

    async def main(**fixtures: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            account = Account([flat_item("0000000a", 8 * MIB, NOW_MS - 3_600_000)], ["us-east"])
            world = World(Path(folder), account, Options())
            async with world.mounted(Look(cache_size=50 * MIB)):
                await function(world, **fixtures)

    @wraps(function)
    def test(**fixtures: Any) -> None:
        run(partial(main, **fixtures))

    takes_fixtures_of(test, function, "world")
    return test


@asynccontextmanager
async def clients(world: World, count: int = 1) -> AsyncIterator[list[Client]]:
    """Connect some clients; afterwards the door has none of them, and nothing is held."""
    async with trio.open_nursery() as nursery:
        made = [Client.of(world.app.door, nursery) for _ in range(count)]
        try:
            yield made
        finally:
            for client in made:
                await trio.aclose_forcefully(client.stream)
    door = world.app.door.statistics()
    assert (door["connections"], door["handles"], door["active"]) == (0, 0, 0)
    reader = world.app.status.document()["reader"]
    assert (reader["handles"], reader["waiters"]) == (0, 0)


PATH = ".id/us-east/0000000a"


@pytest.mark.promise("a-client-leaves-nothing")
@in_world
async def test_a_client_that_does_not_read_is_hung_up_on(world):
    """It has got a part of what it asked for, and no end; its file is closed."""
    async with clients(world) as [client]:
        opened = await client.open(PATH)
        await client.send(protocol.Read(opened.handle, 0, 8 * MIB))
        await trio.sleep(protocol.SLOW_S - 1)
        assert world.app.door.statistics()["connections"] == 1
        await trio.sleep(30)
        assert world.app.door.statistics()["connections"] == 0
        with pytest.raises(EOFError):
            await client.data()


@in_world
async def test_one_that_reads_now_and_then_is_not(world):
    async with clients(world) as [client]:
        opened = await client.open(PATH)
        await client.send(protocol.Read(opened.handle, 0, 8 * MIB))
        await trio.sleep(protocol.SLOW_S / 2)
        plain = world.plain(("us-east", "0000000a"))
        assert await client.data(pause_s=protocol.SLOW_S / 16) == plain


@asynccontextmanager
async def read_again(world: World, ready: Readiness) -> AsyncIterator[Client]:
    """Read the object into the cache; yield a client that has asked for it, and taken nothing."""
    async with clients(world) as [client]:
        await client.cat([PATH])
        with ready.patched():
            opened = await client.open(PATH)
            await client.send(protocol.Read(opened.handle, 0, 8 * MIB))
            await trio.sleep(protocol.SLOW_S / 2)
            yield client


@in_world
async def test_what_is_in_the_cache_is_sent_from_its_file(world):
    """To a client that takes it slowly, too."""
    ready = Readiness()
    async with read_again(world, ready) as client:
        plain = world.plain(("us-east", "0000000a"))
        assert await client.data(pause_s=protocol.SLOW_S / 16) == plain
    assert ready.sent == len(plain)
    assert ready.asked >= 16, "each message is looked at before and while it is sent"


@pytest.mark.parametrize("every", [1, 2, 3])
@in_world
async def test_what_has_left_the_page_cache_meanwhile_is_read(world, every):
    """Before a message begins, or amid it; a client that is slow gets the same bytes."""
    ready = Readiness(lambda number: number % every == 0)
    async with read_again(world, ready) as client:
        plain = world.plain(("us-east", "0000000a"))
        assert await client.data(pause_s=protocol.SLOW_S / 16) == plain
        opened = await client.open(PATH)
        for at, size in ((1, 3 * MIB), (MIB - 1, 100_001), (8 * MIB - 70_000, MIB)):
            assert await client.read(opened.handle, at, size) == plain[at : at + size]
    assert ready.asked


@pytest.mark.promise("withdrawn-is-gone")
@in_world
async def test_what_is_withdrawn_amid_an_answer_is_sent_no_further(world):
    """The client is hung up on, since the answer cannot be ended; it asks again, and is told."""
    async with read_again(world, Readiness()) as client, trio.open_nursery() as nursery:
        change(world.account, "us-east", "0000000a", world.now_ms(), state="REVOKED")
        await world.app.follower.poll("us-east")
        assert world.app.catalogue.find("us-east", "0000000a") is None
        assert world.app.door.statistics()["connections"] == 1, "it was hung up on before"
        with pytest.raises(EOFError):
            await client.data()
        again = Client.of(world.app.door, nursery)
        with pytest.raises(FileNotFoundError):
            await again.open(PATH)
        await again.close()


@in_world
async def test_an_idle_connection_is_hung_up_on(world):
    """After a minute without a request; with an open file, after an hour."""
    async with clients(world, 2) as [idle, holding]:
        began = trio.current_time()
        await idle.ask(protocol.Hello())
        await holding.open(PATH)
        await trio.sleep(protocol.IDLE_S - 1)
        await idle.ask(protocol.Hello())
        with pytest.raises(EOFError):
            await idle.receive()
        assert protocol.IDLE_S * 2 - 1 <= trio.current_time() - began <= protocol.IDLE_S * 2 + 1
        with pytest.raises(EOFError):
            await holding.receive()
        assert HELD_S <= trio.current_time() - began <= HELD_S + 1


@in_world
async def test_a_request_that_does_not_come_to_its_end_is_not_waited_for(world):
    """Neither is one that comes a byte at a time; one that pauses for a moment is answered."""
    async with clients(world, 3) as [silent, slow, dripping]:
        request = protocol.pack(protocol.Info(PATH))
        began = trio.current_time()
        await silent.stream.send_all(request[:6])
        with pytest.raises(EOFError):
            await silent.receive()
        assert trio.current_time() - began <= REQUEST_S + 1
        await slow.stream.send_all(request[:-1])
        await trio.sleep(REQUEST_S / 2)
        await slow.stream.send_all(request[-1:])
        assert isinstance((await slow.receive())[0], protocol.About)
        with pytest.raises(trio.BrokenResourceError):
            await drip(dripping, request)


async def drip(client: Client, request: bytes) -> None:
    for at in range(len(request)):
        await client.stream.send_all(request[at : at + 1])
        await trio.sleep(REQUEST_S / 4)


@in_world
async def test_beyond_the_most_connections_one_is_turned_away(world):
    """With an error that says so; when one ends, there is a place again."""
    with patch("phonofs.door.server.CONNECTIONS_MAX", 2):
        await too_many(world)


async def too_many(world: World) -> None:
    async with clients(world, 2) as [first, second], trio.open_nursery() as nursery:
        for client in (first, second):
            await client.ask(protocol.Hello())
        third = Client.of(world.app.door, nursery)
        with pytest.raises(OSError, match="connections already"):
            await third.receive()
        with pytest.raises(EOFError):
            await third.receive()
        await third.close()
        await first.close()
        await trio.sleep(1)
        fourth = Client.of(world.app.door, nursery)
        assert isinstance(await fourth.ask(protocol.Hello()), protocol.Welcome)
        await fourth.close()


@pytest.mark.promise("a-client-leaves-nothing")
@in_world
async def test_one_that_takes_many_files_too_slowly_is_no_fault_of_phonofs(world):
    """Its ``cat`` ends as a read does: nothing is logged, counted, or sent after a part."""
    async with clients(world) as [client]:
        await client.send(protocol.Cat([(PATH, None, None)] * 3))
        await trio.sleep(protocol.SLOW_S + 1)
        statistics = world.app.door.statistics()
        assert (statistics["connections"], statistics["errnos"]) == (0, {})
