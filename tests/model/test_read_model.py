"""Random reads of several readers at once, against the plain bytes, while the service misbehaves.

Every byte given is right, or the read is an error, and within its deadline; a file read whole
is right to the last byte even if the service's bytes were false. A failing plan of faults is
printed as ``phonofs demo --fault`` takes it.
"""

import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from phonofs.errors import ServiceError, unwrap
from phonofs.fakeservice.account import Account, flat_item
from phonofs.fakeservice.options import Options
from tests.model import strategies as s
from tests.model.test_tree_model import MODEL, check_gauges, note_plan
from tests.model.world import NOW_MS, Look, World, run
from tests.support.accounts import DELIVERY_METHODS
from tests.support.door_client import Client
from tests.support.s3_in_process import InProcess, door_of

pytestmark = pytest.mark.expected_log("")

MIB = 1 << 20
SIZES = [0, 1, 131_072, 300_001, 2 * MIB, 5 * MIB + 7]
DEADLINE_S = 20.0
ERRORS = (ServiceError, OSError, EOFError)
"""What a reader may get instead of bytes: from the file system, and through the door."""

Read = Callable[[int, int], Awaitable[bytes]]


@dataclass(frozen=True)
class Plan:
    """What each reader reads: (file, where from 0 to 1, how many bytes, pause before in s)."""

    way: str
    cache_size: int
    sizes: list[int]
    rules: list[dict[str, Any]]
    readers: list[list[tuple[int, float, int, float]]]


READS = st.tuples(
    st.integers(0, 2),
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, -1.0])),
    st.sampled_from([1, 4096, 131_072, 131_072, 1_000_000]),
    st.sampled_from([0.0, 0.0, 0.01, 3.0]),
)


def plans(how: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[Plan]:
    return st.builds(
        Plan,
        st.sampled_from(DELIVERY_METHODS),
        st.sampled_from([0, 400_000, 50 * MIB]),
        st.lists(st.sampled_from(SIZES), min_size=1, max_size=3),
        st.lists(s.rule(how), max_size=3),
        st.lists(st.lists(READS, min_size=1, max_size=10), min_size=1, max_size=4),
    )


class Readers:
    """Readers of one world. ``given`` counts bytes that came, so that a test shows something."""

    def __init__(self, world: World, inos: list[int]) -> None:
        self.world = world
        self.inos = inos
        self.given = 0

    async def follow(self, reads: list[tuple[int, float, int, float]]) -> None:
        """One reader; a place of -1 reads on where the last read ended."""
        offset = 0
        for n, at, count, pause_s in reads:
            await trio.sleep(pause_s)
            ino = self.inos[n % len(self.inos)]
            plain = self.world.plain(self.world.key(ino))
            offset = offset if at < 0 else int(at * len(plain))
            try:
                async with self.opened(ino) as read:
                    data = await self.timed(read, offset, count)
            except ERRORS:
                continue
            assert data == plain[offset : offset + count]
            offset += len(data)
            self.given += len(data)

    @contextlib.asynccontextmanager
    async def opened(self, ino: int) -> AsyncIterator[Read]:
        """Open a file; yield what reads it."""
        vfs = self.world.app.vfs
        handle = await vfs.open(ino)

        async def read(offset: int, count: int) -> bytes:
            data = vfs.lend_now(handle, offset, count)
            return await vfs.read(handle, offset, count) if data is None else bytes(data)

        try:
            yield read
        finally:
            vfs.release(handle)

    async def timed(self, read: Read, offset: int, count: int) -> bytes:
        begun = trio.current_time()
        try:
            return await read(offset, count)
        finally:
            assert trio.current_time() - begun <= DEADLINE_S + 0.001

    async def whole(self, ino: int) -> None:
        """Read a file from its first byte to its last; it is right, or an error."""
        plain, got = self.world.plain(self.world.key(ino)), b""
        try:
            async with self.opened(ino) as read:
                while data := await self.timed(read, len(got), 131_072):
                    got += data
        except ERRORS:
            return
        assert got == plain


class DoorReaders(Readers):
    """Readers that are clients of the door, each of a connection of its own for each file."""

    @contextlib.asynccontextmanager
    async def opened(self, ino: int) -> AsyncIterator[Read]:
        """Open a file by its identifier."""
        region, id = self.world.key(ino)
        try:
            async with trio.open_nursery() as nursery:
                client = Client.of(self.world.app.door, nursery)
                try:
                    handle = (await client.open(f".id/{region}/{id}")).handle
                    yield partial(client.read, handle)
                finally:
                    with trio.CancelScope(shield=True):
                        await client.close()
        except BaseExceptionGroup as group:
            raise unwrap(group) from None


class S3Readers(Readers):
    """Readers that are S3 clients, each of a connection of its own for each file.

    A request looks the path up, opens and reads, so it may take several deadlines.
    """

    @contextlib.asynccontextmanager
    async def opened(self, ino: int) -> AsyncIterator[Read]:
        """Connect; each read is a request for a range."""
        path = self.world.app.catalogue.path(ino)
        async with self._connected() as client:

            async def read(offset: int, count: int) -> bytes:
                return await client.get(path, offset, offset + count)

            yield read

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[InProcess]:
        try:
            async with trio.open_nursery() as nursery:
                client = InProcess.of(door_of(self.world.app, self.world.folder), nursery)
                try:
                    yield client
                finally:
                    with trio.CancelScope(shield=True):
                        await client.close()
        except BaseExceptionGroup as group:
            raise unwrap(group) from None

    async def timed(self, read: Read, offset: int, count: int) -> bytes:
        return await read(offset, count)

    async def whole(self, ino: int) -> None:
        """Get a file; if its answer is whole, it is right."""
        path = self.world.app.catalogue.path(ino)
        try:
            async with self._connected() as client:
                got = await client.get(path)
        except ERRORS:
            return
        assert got == self.world.plain(self.world.key(ino))


async def prepared(world: World, plan: Plan, edge: type[Readers]) -> Readers:
    """List all, then misbehave."""
    files = await world.tree()
    note_plan(plan.rules)
    world.misbehave(plan.rules)
    return edge(world, [files[path].ino for path in sorted(files)])


def account(plan: Plan) -> Account:
    return Account(
        flat_item(f"{n}0000000", size, NOW_MS - 3_600_000 * (n + 1))
        for n, size in enumerate(plan.sizes)
    )


async def read_in_parts(plan: Plan, edge: type[Readers] = Readers) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), account(plan), Options(content=plan.way))
        async with world.mounted(Look(cache_size=plan.cache_size)):
            readers = await prepared(world, plan, edge)
            async with trio.open_nursery() as nursery:
                for reads in plan.readers:
                    nursery.start_soon(readers.follow, reads)
            world.misbehave([])
            await trio.sleep(700)
            for ino in readers.inos:
                await readers.whole(ino)
            await trio.sleep(120)
            check_after(world)


async def read_whole(plan: Plan, edge: type[Readers] = Readers) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), account(plan), Options(content=plan.way))
        async with world.mounted(Look(cache_size=plan.cache_size)):
            readers = await prepared(world, plan, edge)
            for _ in range(2):
                async with trio.open_nursery() as nursery:
                    for ino in readers.inos * 2:
                        nursery.start_soon(readers.whole, ino)
            await trio.sleep(700)
            check_after(world)


def check_after(world: World) -> None:
    check_gauges(world)
    cache = world.app.status.document()["cache"]
    assert cache["disk_bytes"] <= world.look.cache_size  # type: ignore[index]


@pytest.mark.promise("right-bytes-or-error", "nobody-waits-for-ever")
@settings(MODEL, max_examples=35)
@given(plans(s.HOW))
def test_random_reads_are_the_plain_bytes(plan):
    """Several readers, random places, failing requests: each read right, or an error in time."""
    run(read_in_parts, plan)


@pytest.mark.promise("whole-is-checked")
@settings(MODEL, max_examples=25)
@given(plans(st.one_of(s.FALSE, s.HOW)))
def test_a_file_read_whole_is_right_whatever_the_service_sends(plan):
    """Flipped, cut, longer, shorter: who reads a file to its end got its bytes, or an error."""
    run(read_whole, plan)


@pytest.mark.promise("door-is-the-tree")
@settings(MODEL, max_examples=15)
@given(plans(s.HOW))
def test_random_reads_through_the_door_are_the_plain_bytes(plan):
    """The same, by clients of the door."""
    run(read_in_parts, plan, DoorReaders)


@pytest.mark.promise("door-is-the-tree")
@settings(MODEL, max_examples=15)
@given(plans(st.one_of(s.FALSE, s.HOW)))
def test_a_file_read_whole_through_the_door_is_right(plan):
    """The same, by clients of the door."""
    run(read_whole, plan, DoorReaders)


@pytest.mark.promise("s3-door-is-the-tree")
@settings(MODEL, max_examples=15)
@given(plans(s.HOW))
def test_random_ranges_of_s3_clients_are_the_plain_bytes(plan):
    """The same, by clients of the S3 door."""
    run(read_in_parts, plan, S3Readers)


@pytest.mark.promise("s3-never-a-false-byte")
@settings(MODEL, max_examples=15)
@given(plans(st.one_of(s.FALSE, s.HOW)))
def test_a_whole_answer_to_an_s3_client_is_right(plan):
    """The same, by clients of the S3 door."""
    run(read_whole, plan, S3Readers)


@pytest.mark.slow
@settings(MODEL, max_examples=2000)
@given(plans(s.HOW))
def test_random_reads_for_long(plan):
    """Thousands of plans."""
    run(read_in_parts, plan)


@pytest.mark.slow
@settings(MODEL, max_examples=1500)
@given(plans(st.one_of(s.FALSE, s.HOW)))
def test_files_read_whole_for_long(plan):
    """Thousands of plans."""
    run(read_whole, plan)
