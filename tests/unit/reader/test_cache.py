"""The reader over the real cache on disk."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from phonofs.cache import maintenance
from phonofs.cache.blocks import BLOCK
from phonofs.cache.cache import Cache
from phonofs.errors import Changed, Corrupt
from phonofs.model import Record
from phonofs.ranges import Ranges
from phonofs.reader.context import content_key
from phonofs.reader.limits import Limits
from phonofs.reader.reader import Reader
from tests.support.reader_world import (
    KIB,
    MIB,
    Asked,
    FakeCache,
    FakeService,
    Fault,
    World,
    plain,
    record,
)

pytestmark = pytest.mark.real_clock


def quick(**options) -> FakeService:
    return FakeService(latency_s=0, rate=1e12, chunk=256 * KIB, **options)


class Running:
    """A reader over the real cache in a folder."""

    def __init__(
        self,
        folder: Path,
        service: FakeService,
        *,
        size: int = 256 * MIB,
        limits: Limits | None = None,
        then: Sequence[tuple[int, Record]] = (),
    ) -> None:
        """``then`` are the files that follow any other one in its directory."""
        self.folder, self.service, self.size = folder, service, size
        self.limits = limits or Limits()
        self.then = then

    async def __aenter__(self) -> World:
        self.cache = Cache.open(self.folder, size_bytes=self.size, min_free_bytes=0)
        limits = replace(self.limits, cache_bytes=self.size)
        wrong: list[int] = []
        reader = Reader(
            self.service, self.cache, limits, on_wrong=wrong.append,
            siblings=lambda ino, n, **_: self.then[:n],
        )  # fmt: skip
        self.nurseries = trio.open_nursery()
        self.nursery = await self.nurseries.__aenter__()
        self.nursery.start_soon(maintenance.run, self.cache)
        await self.nursery.start(reader.run)
        return World(self.service, FakeCache(), reader, wrong=wrong)

    async def __aexit__(self, *error: object) -> None:
        self.nursery.cancel_scope.cancel()
        await self.nurseries.__aexit__(*error)
        self.cache.close()


async def test_bytes_that_were_waited_for_are_lent(tmp_path):
    """Readers of several files that wait share one buffer: each finds its own bytes there."""
    async with Running(tmp_path / "cache", FakeService()) as w:
        seen: list[type] = []

        async def read(name: str, start: int) -> None:
            handle = w.reader.open(record(20 * MIB, name, checksum=""), 7)
            data = await w.reader.lend(handle, start, MIB)
            seen.append(type(data))
            assert data == plain(start, start + MIB)
            w.reader.release(handle)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(read, f"f{number}", number * MIB)
        assert memoryview in seen


async def test_what_is_opened_ahead_does_not_change_a_buffer_that_is_lent(tmp_path):
    """The last read of a file has the next one opened; of its cached bytes a block is cut then."""
    other = record(300_000, "b")
    running = Running(tmp_path / "cache", quick(), then=[(8, other)])
    async with running as w:
        entry = running.cache.entry(record(20 * MIB, "b", checksum=other.checksum))
        entry.write(0, plain(0, MIB))
        running.cache.release(entry)
        w.reader.listed(7, (7,))
        handle = w.reader.open(record(2 * MIB), 7, pid=7)
        await w.read(handle, 0, MIB)
        data = await w.reader.lend(handle, MIB, MIB)
        assert isinstance(data, memoryview)
        assert data == plain(MIB, 2 * MIB)
        w.reader.release(handle)
        await trio.testing.wait_all_tasks_blocked()
        assert w.reader.statistics()["ahead_files"] == 1


@pytest.mark.parametrize("size", [1, 50_000, 3 * MIB, 9 * MIB + 5])
async def test_what_was_read_is_served_again_after_a_remount(tmp_path, size):
    """A file read whole is checked, kept, and read by the next mount without a request."""
    service = quick()
    for _ in range(2):
        async with Running(tmp_path / "cache", service) as w:
            handle = w.reader.open(record(size), 7)
            await w.read_on(handle)
            assert handle.content.entry.verified
            w.reader.release(handle)
        assert service.sent() == size


async def test_a_part_that_was_read_is_not_fetched_again(tmp_path):
    """Of a file read in part the next mount fetches only the rest."""
    service = quick()
    async with Running(tmp_path / "cache", service) as w:
        handle = w.reader.open(record(20 * MIB), 7)
        await w.read_on(handle, 0, 5 * MIB)
        await trio.sleep(0.1)
        w.reader.release(handle)
    async with Running(tmp_path / "cache", service) as w:
        handle = w.reader.open(record(20 * MIB), 7)
        await w.read_on(handle)
        assert handle.content.entry.verified
        w.reader.release(handle)
    assert service.sent() <= 20 * MIB + 256 * KIB


@pytest.mark.expected_log("the cache lost")
@pytest.mark.parametrize(
    ("lost", "sent"), [("nothing", 0), ("everything", 1), ("its file", 1), ("its record", 0)]
)
async def test_a_file_that_is_opened_again_is_fetched_only_if_it_was_lost(tmp_path, lost, sent):
    """What is left of its former opening counts only while all of its bytes are there."""
    service, size = quick(), 3 * MIB
    running = Running(tmp_path / "cache", service)
    async with running as w:
        it = record(size)
        for _ in range(3):
            handle = w.reader.open(it, 7)
            content = handle.content
            assert await w.read(handle, 0, size) == plain(0, size)
            w.reader.release(handle)
            w.reader.release(handle)
        assert service.sent() == size
        match lost:
            case "everything":
                running.cache.forget(it.region, it.id)
            case "its file":
                [file] = (each for each in running.folder.rglob("*") if each.stat().st_size == size)
                os.truncate(file, 100_000)
            case "its record":
                it = record(size)
        handle = w.reader.open(it, 7)
        assert (handle.content is content) == (lost in ("nothing", "its file"))
        assert await w.read(handle, 0, size) == plain(0, size)
        assert handle.content.sure
        w.reader.release(handle)
    assert service.sent() <= (1 + sent) * size
    assert (service.sent() > size) == bool(sent)


async def test_what_was_given_of_a_file_is_known_while_it_is_used(tmp_path, monkeypatch):
    """However many others were opened since. If it is lost, none of it is given unchecked."""
    monkeypatch.setattr("phonofs.reader.context.MOST_GIVEN", 2)
    files = {name: record(3 * MIB, name) for name in "abc"}
    async with Running(tmp_path / "cache", quick()) as w:
        for name in "aaabca":
            handle = w.reader.open(it := files[name], 7)
            assert await w.read(handle, 0, KIB) == plain(0, KIB)
            await w.read_on(handle)
            w.reader.release(handle)
        assert w.reader._context.given_of(content_key(it)) == Ranges([(0, 3 * MIB)])


@pytest.mark.expected_log("the cache lost", "wrong content")
async def test_what_the_service_answered_is_forgotten_when_a_file_is_closed(tmp_path):
    """If the cache loses some of it later, that is fetched as if nothing had come before.

    So a content that came under several ETags, and was right all the same, is not given unchecked.
    """
    life = 0

    def fault(asked: Asked, number: int) -> Fault:
        if life == 0:
            return Fault(etag=f"v{number}")
        return Fault(etag=f"w{number}", flip=asked.start if number % 2 else None)

    service = quick(fault=fault)
    async with Running(tmp_path / "cache", service) as w:
        it = record(40 * MIB)
        handle = w.reader.open(it, 7)
        for start in (0, 20 * MIB, 30 * MIB):
            assert await w.read(handle, start, KIB) == plain(start, start + KIB)
        await w.read_on(handle)
        assert handle.content.sure
        w.reader.release(handle)
        life = 1
        handle = w.reader.open(it, 7)
        for block in (80, 160, 240):
            handle.content.entry._lose(block, block + 1)
        for block in (80, 160, 240):
            start = block * BLOCK
            with suppress(Changed, Corrupt):
                assert await w.read(handle, start, KIB) == plain(start, start + KIB)
        w.reader.release(handle)


@pytest.mark.parametrize("size", [0, 8 * MIB])
async def test_without_room_on_disk_it_passes_through_memory(tmp_path, size):
    """cache_size=0, or a file larger than the cache: every byte right, each fetched once."""
    service = quick()
    async with Running(tmp_path / "cache", service, size=size) as w:
        handle = w.reader.open(record(40 * MIB), 7)
        await w.read_on(handle)
        assert service.sent() == 40 * MIB
        assert handle.content.verification.sure
        w.reader.release(handle)


@pytest.mark.expected_log("wrong content")
async def test_a_wrong_content_does_not_stay(tmp_path):
    """Wrong twice: an error, and the cache has nothing of it."""
    service = quick(fault=lambda asked, n: Fault(flip=1000))
    async with Running(tmp_path / "cache", service) as w:
        handle = w.reader.open(record(50_000), 7)
        with pytest.raises(Corrupt):
            await w.read(handle, 0, 50_000)
        w.reader.release(handle)
        service.fault = lambda asked, n: None
        again = w.reader.open(record(50_000), 7)
        assert await w.read(again, 0, 50_000) == plain(0, 50_000)
        w.reader.release(again)


async def test_the_real_length_is_remembered(tmp_path):
    """A file longer than its record says is read to its real end, also by the next mount."""
    service = quick(sizes={"a": 60_000})
    for _ in range(2):
        async with Running(tmp_path / "cache", service) as w:
            handle = w.reader.open(record(50_000, checksum=""), 7)
            await w.read_on(handle)
            assert handle.size == 60_000
            w.reader.release(handle)
    assert service.sent() == 2 * 60_000, "twice, to prove it, and not again by the next mount"


async def test_eight_readers_of_one_file(tmp_path):
    """Each byte is fetched once, and all read the same."""
    service = quick()
    async with Running(tmp_path / "cache", service) as w:

        async def one() -> None:
            handle = w.reader.open(record(30 * MIB), 7)
            await w.read_on(handle)
            w.reader.release(handle)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(one)
    assert service.sent() == 30 * MIB


@pytest.mark.parametrize(("size", "ready"), [(MIB, True), (MIB - 1, False)])
async def test_a_thread_is_ready_to_hash_before_the_first_byte(
    tmp_path: Path, size: int, ready: bool
):
    """So the read that completes an object waits for little; a small one is hashed at the end."""
    async with Running(tmp_path, FakeService(latency_s=0.05, rate=1e12)) as w:
        handle = w.reader.open(record(size), 7)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.read, handle, 0, 4 * KIB)
            await trio.testing.wait_all_tasks_blocked()
            assert handle.content.verification.busy == ready
            assert not handle.content.entry.present
        w.reader.release(handle)
