"""The reader over a service with latency: what comes, when, and what it costs."""

import pytest
import trio

from phonofs.errors import Unavailable
from phonofs.reader.limits import Limits
from tests.support.reader_world import KIB, LATENCY, MIB, FakeService, Fault, plain, record, world


async def test_first_bytes_take_one_round_trip():
    """The first 64 KiB of a large file come after one latency and 64 KiB of body."""
    async with world() as w:
        handle = w.reader.open(record(64 * MIB), 7)
        began = trio.current_time()
        assert await w.read(handle, 0, 64 * KIB) == plain(0, 64 * KIB)
        assert trio.current_time() - began < 1.1 * LATENCY
        w.reader.release(handle)


async def test_a_small_file_comes_in_one_request():
    """A file of up to 4 MiB is fetched whole by one request, and checked before its end."""
    async with world() as w:
        handle = w.reader.open(record(3 * MIB), 7)
        await w.read_on(handle)
        assert [(asked.start, asked.stop) for asked in w.service.asked] == [(0, 3 * MIB)]
        assert handle.content.entry.verified
        w.reader.release(handle)


async def test_sequential_reading_uses_connections_side_by_side():
    """At 50 ms and 40 MB/s a connection, a long file comes at four times one connection's rate."""
    async with world() as w:
        handle = w.reader.open(record(128 * MIB), 7)
        began = trio.current_time()
        await w.read_on(handle)
        took = trio.current_time() - began
        assert 128 * MIB / took > 3.5 * 40e6
        assert w.service.sent() == 128 * MIB
        assert w.service.most_open <= 10
        w.reader.release(handle)


async def test_without_latency_requests_are_few():
    """At 0 ms and high rates a long file comes in large parts, two or three side by side."""
    service = FakeService(latency_s=0.0002, rate=700e6, chunk=256 * KIB)
    async with world(service) as w:
        handle = w.reader.open(record(128 * MIB), 7)
        await w.read_on(handle)
        assert len(service.asked) < 50
        assert service.most_open <= 5
        w.reader.release(handle)


async def test_a_header_does_not_download_a_film():
    """Reading 64 KiB of a 1 GiB file fetches at most 4 MiB, also where the kernel reads 1 MiB."""
    async with world() as w:
        film = record(1024 * MIB)
        handle = w.reader.open(film, 7)
        await w.read_on(handle, 0, MIB)
        await trio.sleep(3)
        w.reader.release(handle)
        await trio.sleep(20)
        assert w.service.sent() <= 4 * MIB


async def test_a_seek_costs_one_round_trip_and_little_else():
    """The tail, then random places: one latency each, from the very offset, at most 1 MiB."""
    async with world() as w:
        size = 300 * MIB
        handle = w.reader.open(record(size), 7)
        await w.read(handle, 0, 64 * KIB)
        for offset in (
            size - 64 * KIB,
            100 * MIB + 17,
            50 * MIB,
            200 * MIB + 3,
            7 * MIB,
            150 * MIB,
        ):
            sent, began = w.service.sent(), trio.current_time()
            await trio.sleep(1)
            began = trio.current_time()
            sent = w.service.sent()
            assert await w.read(handle, offset, 64 * KIB) == plain(offset, offset + 64 * KIB)
            assert trio.current_time() - began < 1.2 * LATENCY
            assert w.service.asked[-1].start == offset
            await trio.sleep(1)
            assert w.service.sent() - sent <= MIB
        w.reader.release(handle)


async def test_the_tail_of_a_small_file_comes_first():
    """A read near the end of a small file takes one round trip; the rest comes behind it."""
    async with world(FakeService(rate=4e6)) as w:
        size = 4 * MIB
        handle = w.reader.open(record(size), 7)
        began = trio.current_time()
        assert await w.read(handle, size - 64 * KIB, 64 * KIB) == plain(size - 64 * KIB, size)
        assert trio.current_time() - began < 1.4 * LATENCY
        await trio.sleep(5)
        assert handle.content.entry.verified
        assert w.service.sent() == size
        w.reader.release(handle)


async def test_slow_connections_do_not_keep_others_waiting():
    """While 16 readers read over slow connections, others come soon.

    Each of them holds a connection, and none is held for much longer than a second.
    """
    async with world(FakeService(rate=1e6)) as w:

        async def read(number: int, stop: int | None) -> None:
            handle = w.reader.open(record(12 * MIB, f"f{number}", checksum=""), number)
            await w.read_on(handle, 0, stop)
            w.reader.release(handle)

        async with trio.open_nursery() as nursery:
            for number in range(1, 17):
                nursery.start_soon(read, number, None)
            await trio.sleep(3)
            for number in range(17, 21):
                began = trio.current_time()
                await read(number, 128 * KIB)
                assert trio.current_time() - began < 2.5
        assert w.service.sent() < 16 * 12 * MIB + 4 * 2 * MIB


async def test_what_lingers_in_memory_is_bounded():
    """Many small files read and closed without a cache on disk do not stay in memory."""
    async with world(in_memory=True, limits=Limits(memory_bytes=8 * MIB)) as w:
        for number in range(20):
            handle = w.reader.open(record(2 * MIB, f"f{number}"), number + 1)
            await w.read_on(handle)
            w.reader.release(handle)
        assert sum(entry.present.total() for entry in w.cache.entries.values()) <= 8 * MIB


async def test_it_runs_again_after_it_was_stopped():
    """A handle that was open meanwhile reads on."""
    async with world() as w:
        handle = w.reader.open(record(30 * MIB), 7)
        await w.read_on(handle, 0, MIB)
        w.stop()
        await trio.sleep(1)
        with pytest.raises(Unavailable):
            await w.read(handle, 20 * MIB, 1000)
        await w.restart()
        await w.read_on(handle)
        w.reader.release(handle)


async def test_a_reader_on_pause_stops_the_fetching():
    """Nothing beyond the window comes while nobody reads."""
    async with world() as w:
        handle = w.reader.open(record(256 * MIB), 7)
        await w.read_on(handle, 0, 16 * MIB)
        await trio.sleep(10)
        sent = w.service.sent()
        assert sent <= 16 * MIB + 2 * 16 * MIB + 8 * MIB
        await trio.sleep(1000)
        assert w.service.sent() == sent
        w.reader.release(handle)


@pytest.mark.parametrize("apart_s", [0.0, 0.01, 0.3])
async def test_eight_readers_of_one_file_fetch_each_byte_once(apart_s):
    """Single flight: every byte comes once however many read it."""
    async with world() as w:
        file = record(40 * MIB)

        async def one(number: int) -> None:
            await trio.sleep(number * apart_s)
            handle = w.reader.open(file, 7)
            await w.read_on(handle)
            w.reader.release(handle)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(one, number)
        assert w.service.sent() == 40 * MIB


async def test_eight_readers_of_eight_files_share():
    """No reader is below half of its share."""
    async with world() as w:
        took = []

        async def one(number: int) -> None:
            handle = w.reader.open(record(24 * MIB, f"f{number}"), number)
            await w.read_on(handle)
            took.append(trio.current_time() - began)
            w.reader.release(handle)

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(one, number)
        assert max(took) < 2 * min(took)


async def test_reads_out_of_order_are_still_sequential():
    """Two requests in flight that change places do not look like seeks."""
    async with world() as w:
        handle = w.reader.open(record(32 * MIB), 7)
        step = 128 * KIB
        for block in range(0, 256, 2):
            async with trio.open_nursery() as nursery:
                for offset in (block + 1, block):
                    nursery.start_soon(w.read, handle, offset * step, step)
        assert handle.window.sequential_bytes == 32 * MIB
        assert w.service.sent() == 32 * MIB
        assert len(w.service.asked) < 40
        w.reader.release(handle)


async def test_opened_again_within_five_seconds_finds_its_stream():
    """A player that closes and opens again goes on from what is there and on its way."""
    async with world() as w:
        file = record(64 * MIB)
        handle = w.reader.open(file, 7)
        await w.read_on(handle, 0, 2 * MIB)
        w.reader.release(handle)
        await trio.sleep(4)
        again = w.reader.open(file, 7)
        assert again.content is handle.content
        assert w.reader.statistics()["lingering"] == 0
        asked = len(w.service.asked)
        await w.read_on(again, 0, 4 * MIB)
        assert w.service.asked[asked:] == [] or w.service.asked[asked].start > 4 * MIB
        w.reader.release(again)


async def test_closing_ends_what_nobody_waits_for():
    """Five seconds after the close nothing is fetched any more."""
    async with world(FakeService(rate=1_000_000)) as w:
        handle = w.reader.open(record(256 * MIB), 7)
        await w.read_on(handle, 0, 6 * MIB)
        w.reader.release(handle)
        await trio.sleep(5.5)
        sent = w.service.sent()
        await trio.sleep(60)
        assert w.service.sent() - sent <= 512 * KIB


async def test_memory_holds_no_more_than_the_windows():
    """Without a cache on disk a long file passes through a bounded window."""
    async with world(in_memory=True) as w:
        handle = w.reader.open(record(64 * MIB), 7)
        await w.read_on(handle)
        assert handle.content.entry.most_kept <= 24 * MIB
        assert w.service.sent() == 64 * MIB
        w.reader.release(handle)


async def test_an_end_of_the_file_is_short_and_beyond_it_empty():
    """Exactly the bytes up to the end, none behind it."""
    async with world() as w:
        handle = w.reader.open(record(1000), 7)
        assert await w.read(handle, 900, 500) == plain(900, 1000)
        assert await w.read(handle, 1000, 10) == b""
        assert await w.read(handle, 5000, 10) == b""
        w.reader.release(handle)


async def test_nothing_is_fetched_by_open_and_close():
    """An open without a read asks the service for nothing."""
    async with world() as w:
        w.reader.release(w.reader.open(record(MIB), 7))
        assert w.service.asked == []


@pytest.mark.promise("nobody-waits-for-ever")
async def test_a_read_ends_by_its_deadline():
    """With the service stalled a read fails after read_deadline, and nothing stays behind."""
    async with world(FakeService(fault=lambda asked, n: Fault(stall=True))) as w:
        handle = w.reader.open(record(64 * MIB), 7)
        began = trio.current_time()
        with pytest.raises(Unavailable, match="within 60 s"):
            await w.read(handle, 0, 1000)
        assert trio.current_time() - began == pytest.approx(60)
        w.reader.release(handle)


async def test_being_held_back_is_no_latency():
    """After a pause that the service asked for, a byte further on is still asked for at once.

    At 5 ms and 1 MB/s, waiting for bytes 400 KiB ahead takes 80 times as long as asking for them.
    """
    service = FakeService(latency_s=0.005, rate=1e6, held_back_s=50)
    async with world(service) as w:
        film = record(256 * MIB)
        handles = [w.reader.open(film, 7) for _ in range(3)]
        for number in range(6):
            await w.read(handles[0], number * 16 * MIB, 128 * KIB)
            service.held_back_s = 0
            await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.read, handles[1], 200 * MIB, 128 * KIB)
            await trio.sleep(0.006)
            began = trio.current_time()
            await w.read(handles[2], 200 * MIB + 400 * KIB, 4 * KIB)
            assert trio.current_time() - began < 0.1
        for handle in handles:
            w.reader.release(handle)
