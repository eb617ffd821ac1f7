"""What is done in advance fails: no reader hears of it whose bytes are there."""

import pytest
import trio

from phonofs.errors import Changed, Unavailable
from tests.support.reader_world import KIB, LATENCY, MIB, FakeService, Fault, plain, record, world


def folder(count: int) -> list[tuple[int, object]]:
    return [(number, record(50_000, f"f{number}")) for number in range(count)]


async def read_all(w, files) -> None:
    for ino, one in files:
        handle = w.reader.open(one, ino, pid=5)
        await w.read_on(handle)
        w.reader.release(handle)


@pytest.mark.promise("right-bytes-or-error")
@pytest.mark.parametrize("error", [Unavailable("the disk fails"), ZeroDivisionError()])
@pytest.mark.expected_log("reading ahead")
async def test_a_catalogue_that_fails_costs_no_reader_its_file(error):
    """The files that come next cannot be looked up."""
    files = folder(6)

    def siblings(ino: int, n: int, *, by_inode: bool = False, pid: int = 0):
        raise error

    async with world(siblings=siblings) as w:
        w.reader.listed(5, (0,))
        await read_all(w, files)


@pytest.mark.expected_log("reading ahead")
async def test_a_neighbour_that_cannot_be_cached_costs_no_reader_its_file():
    """No entry is to be had for files that are brought ahead."""
    files = folder(12)
    async with world(files=files) as w:
        really, opened = w.cache.entry, set()

        def entry(record):
            if record.id not in opened:
                raise MemoryError
            return really(record)

        w.cache.entry = entry
        w.reader.listed(5, (0,))
        for ino, one in files:
            opened.add(one.id)
            await read_all(w, [(ino, one)])
        assert len(w.service.asked) == len(files)


async def test_too_little_memory_to_hash_ahead_is_no_fault_of_phonofs():
    """The content is hashed once it is complete; nothing is logged."""
    async with world() as w:
        handle = w.reader.open(record(3 * MIB), 7)
        tried: list[None] = []

        async def no_memory() -> None:
            tried.append(None)
            raise MemoryError

        handle.content.entry.check_ahead = no_memory
        await w.read_on(handle)
        assert tried
        assert handle.content.verification.sure
        w.reader.release(handle)


async def test_a_reader_whose_bytes_are_there_needs_no_fetching():
    """While nothing is fetched (the mount is ending), what is there is given."""
    async with world() as w:
        handle = w.reader.open(record(30 * MIB, checksum=""), 7)
        await w.read_on(handle, 0, MIB)
        w.stop()
        there = handle.content.entry.present.stop_of(0)
        for offset in range(0, there - 128 * KIB, 128 * KIB):
            assert await w.read(handle, offset, 128 * KIB) == plain(offset, offset + 128 * KIB)
        w.reader.release(handle)
        await w.restart()


async def test_a_content_that_changed_is_given_up_before_its_entry_is():
    """Nobody has it open: it ends at once, and is not reset afterwards."""
    service = FakeService(rate=1e6)
    async with world(service) as w:
        handle = w.reader.open(record(9 * MIB, checksum=""), 7)
        await w.read(handle, 0, 128 * KIB)
        entry = handle.content.entry
        pins: list[int] = []
        really = entry.reset

        def reset() -> None:
            pins.append(entry.pins)
            really()

        entry.reset = reset
        service.fault = lambda asked, number: Fault(etag="v2")
        with pytest.raises(Changed):
            await w.read_on(handle, 8 * MIB)
        w.reader.release(handle)
        assert pins
        assert min(pins) > 0


async def test_a_file_that_shrank_below_where_its_reader_is():
    """A read beyond the end moves no window backwards, and reads on at its start are right."""
    service = FakeService(sizes={"a": 100_000})
    async with world(service) as w:
        handle = w.reader.open(record(3 * MIB, checksum=""), 7)
        for _ in range(2):
            assert await w.reader.read(handle, 2 * MIB, 128 * KIB) == b""
        assert handle.window.next >= handle.window.run_start
        await w.read_on(handle)
        w.reader.release(handle)


async def test_what_is_brought_goes_last_until_somebody_reads_it():
    """``bring`` waits for the bytes, which are then there; its request is counted as ``last``."""
    async with world(FakeService()) as w:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.reader.bring, record(50_000), 1)
            await trio.sleep(LATENCY / 2)
            [asked] = w.service.asked
            assert asked.urgent.last
            assert not asked.urgent
            handle = w.reader.open(record(50_000), 1)
            assert await w.read(handle, 0, 50_000) == plain(0, 50_000)
            assert asked.urgent
        assert len(w.service.asked) == 1
        await w.reader.bring(record(60_000, "b"), 2)
        other = w.reader.open(record(60_000, "b"), 2)
        assert await w.read(other, 0, 60_000) == plain(0, 60_000)
        assert len(w.service.asked) == 2
        w.reader.release(handle)
        w.reader.release(other)


async def test_what_cannot_be_brought_is_an_error():
    service = FakeService(fault=lambda asked, number: Fault(error=Unavailable("away")))
    async with world(service) as w:
        with pytest.raises(Unavailable):
            await w.reader.bring(record(50_000), 1)
        assert len(service.asked) == 1
