"""One response runs on: a read in sequence costs a round trip, and no byte that nobody wants."""

import pytest
import trio

from phonofs.reader.limits import TURN_S, Limits
from phonofs.reader.readahead import MEASURE_S, RETRY_S, SETTLE_S, Flow, ThroughputEstimator
from tests.support.reader_world import KIB, LATENCY, MIB, FakeService, plain, record, world

BLOCK = 128 * KIB


@pytest.mark.parametrize("size", [4 * MIB, 8 * MIB, 32 * MIB, 100 * MIB])
async def test_a_whole_file_costs_one_round_trip_and_its_bytes(size):
    """Whatever its size: one request, whose bytes come as fast as the line gives them."""
    service = FakeService(rate=400e6, chunk=256 * KIB)
    async with world(service) as w:
        handle = w.reader.open(record(size, checksum=""), 7)
        began = trio.current_time()
        await w.read_on(handle)
        assert trio.current_time() - began < LATENCY + 0.015 + size / 400e6  # 10 ms for its check
        assert len(service.asked) == 1
        w.reader.release(handle)


@pytest.mark.parametrize("header", [4 * KIB, 64 * KIB, 256 * KIB, 1500 * KIB])
async def test_a_header_costs_a_mebibyte_beyond_it(header):
    """What else the service sends stays in the socket; one connection is dropped."""
    async with world(FakeService(rate=400e6)) as w:
        handle = w.reader.open(record(300 * MIB, checksum=""), 7)
        await w.read_on(handle, 0, header + BLOCK)  # the kernel reads a block or two ahead
        await trio.sleep(3)
        w.reader.release(handle)
        await trio.sleep(30)
        assert w.service.sent() <= header + MIB
        assert w.reader.statistics()["dropped"] == 1


async def test_headers_of_a_whole_folder_cost_few_connections():
    """After some of them short responses are asked for, which end; one file read resets that."""
    async with world(FakeService(rate=400e6)) as w:
        for number in range(20):
            handle = w.reader.open(record(20 * MIB, f"f{number}", checksum=""), number + 1)
            began = trio.current_time()
            await w.read_on(handle, 0, 2 * BLOCK)
            assert trio.current_time() - began < 1.2 * LATENCY
            w.reader.release(handle)
            await trio.sleep(8)
        assert w.reader.statistics()["dropped"] <= 3
        assert w.service.sent() < 20 * 64 * KIB * 16
        handle = w.reader.open(record(8 * MIB, "read", checksum=""), 99)
        began = trio.current_time()
        await w.read_on(handle)
        assert trio.current_time() - began < 2 * LATENCY + 0.05
        assert len(w.service.asked) == 22
        w.reader.release(handle)
        handle = w.reader.open(record(8 * MIB, "next", checksum=""), 98)
        await w.read_on(handle)
        assert len(w.service.asked) == 23
        w.reader.release(handle)


async def test_a_seek_gives_the_response_up_in_time():
    """Its connection is free again within seconds, although the file stays open."""
    async with world() as w:
        handle = w.reader.open(record(300 * MIB, checksum=""), 7)
        await w.read_on(handle, 0, MIB)
        await w.read(handle, 200 * MIB, BLOCK)
        await trio.sleep(6)
        assert w.service.open_now == 1
        assert w.reader.statistics()["dropped"] == 1
        await trio.sleep(16)
        assert w.service.open_now == 0
        w.reader.release(handle)


async def test_a_player_never_waits():
    """One that takes a block every eight seconds has it there, for a request every 40 s."""
    async with world() as w:
        handle = w.reader.open(record(40 * MIB, checksum=""), 7)
        await w.read_on(handle, 0, BLOCK)
        for offset in range(BLOCK, 60 * BLOCK, BLOCK):
            await trio.sleep(8)
            assert w.reader.read_now(handle, offset, BLOCK) == plain(offset, offset + BLOCK)
        assert len(w.service.asked) <= 12
        w.reader.release(handle)


@pytest.mark.parametrize("in_memory", [False, True])
async def test_more_open_files_than_connections(in_memory):
    """Forty files, each read a little and left open: each read takes a round trip."""
    limits = Limits(cache_bytes=0) if in_memory else Limits()
    async with world(in_memory=in_memory, limits=limits) as w:
        handles = [w.reader.open(record(100 * MIB, f"f{n}", checksum=""), n + 1) for n in range(40)]
        for offset in (0, BLOCK, 2 * BLOCK):
            for handle in handles:
                began = trio.current_time()
                await w.read(handle, offset, BLOCK)
                assert trio.current_time() - began < 1.2 * LATENCY
        assert w.service.most_open <= 16
        for handle in handles:
            w.reader.release(handle)


async def test_who_reads_on_keeps_the_connection():
    """Readers who come back within a round trip need one request each, however many wait."""
    async with world(FakeService(rate=1e9)) as w:
        handles = [w.reader.open(record(9 * MIB, f"f{n}", checksum=""), n + 1) for n in range(40)]

        async def read(handle):
            for offset in range(0, 9 * MIB, MIB):
                await w.read(handle, offset, MIB)
                await trio.sleep(0.8 * LATENCY)

        async with trio.open_nursery() as nursery:
            for handle in handles:
                nursery.start_soon(read, handle)
        assert len(w.service.asked) == 40
        assert w.service.most_open <= 16
        for handle in handles:
            w.reader.release(handle)


@pytest.mark.parametrize(("readers", "least", "most"), [(4, 20, 40), (8, 8, 8 + 4 + 1)])
async def test_little_is_received_ahead_of_many(readers, least, most):
    """What eight readers want later does not come before what they want now."""
    async with world(FakeService(rate=1e9)) as w:
        handles = [w.reader.open(record(40 * MIB, f"f{n}", checksum=""), n) for n in range(readers)]

        async def read(handle):
            for offset in range(0, 8 * MIB, MIB):
                await w.read(handle, offset, MIB)
                await trio.sleep(0.2 * LATENCY)

        async with trio.open_nursery() as nursery:
            for handle in handles:
                nursery.start_soon(read, handle)
        await trio.sleep(1)
        sent = max(w.service.sent(f"f{n}") for n in range(readers))
        assert least * MIB < sent <= most * MIB
        for handle in handles:
            w.reader.release(handle)


async def test_who_does_not_read_on_gives_the_connection_up():
    """After a round trip, if others wait; so these wait two."""
    async with world(FakeService(rate=1e9)) as w:
        handles = [w.reader.open(record(9 * MIB, f"f{n}", checksum=""), n + 1) for n in range(32)]
        began, took = trio.current_time(), []

        async def read(handle):
            await w.read(handle, 0, BLOCK)
            took.append((trio.current_time() - began) / LATENCY)

        async with trio.open_nursery() as nursery:
            for handle in handles:
                nursery.start_soon(read, handle)
        assert max(took[:16]) < 1.1
        assert max(took) < 3.1
        await trio.sleep(1)
        began = trio.current_time()
        for handle in handles[:16]:
            await w.read(handle, 4 * MIB, BLOCK)  # all connections are held by others
        assert (trio.current_time() - began) / LATENCY < 16.5
        for handle in handles:
            w.reader.release(handle)


async def test_who_reads_on_for_long_gives_the_connection_up():
    """Readers who always come back within a round trip let others have their turn, too."""
    limits = Limits(cache_bytes=0)  # so that little is received ahead of them
    async with world(FakeService(rate=1e9), in_memory=True, limits=limits) as w:
        handles = [w.reader.open(record(99 * MIB, f"f{n}", checksum=""), n + 1) for n in range(17)]

        async def read(handle):
            for offset in range(0, 99 * MIB, MIB):
                await w.read(handle, offset, MIB)
                await trio.sleep(0.8 * LATENCY)

        async with trio.open_nursery() as nursery:
            for handle in handles[:16]:
                nursery.start_soon(read, handle)
            await trio.sleep(0.5)
            began = trio.current_time()
            await w.read(handles[16], 0, BLOCK)
            assert trio.current_time() - began < TURN_S + 3 * LATENCY
        for handle in handles:
            w.reader.release(handle)


async def test_what_nobody_waits_for_gives_way():
    """Every connection brings what nobody waits for: a read gets one of them at once."""
    async with world(FakeService(rate=1e6)) as w:
        contents = [(n, record(3 * MIB, f"f{n}", checksum="")) for n in range(20)]
        opened = [w.reader._content(one, n) for n, one in contents]
        for content in opened:
            content.hold()
            content.prefetch(3 * MIB)
        await trio.sleep(0.5)
        assert w.service.open_now == 14
        handles = [w.reader.open(record(9 * MIB, f"r{n}", checksum=""), n + 50) for n in range(10)]
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for handle in handles:
                nursery.start_soon(w.read, handle, 0, 64 * KIB)
        assert trio.current_time() - began < LATENCY + 3 * 64 * KIB / 1e6
        for content in opened:
            content.unhold()
        for handle in handles:
            w.reader.release(handle)
        await trio.sleep(60)
        for content in opened:
            w.reader._idle(content)


@pytest.mark.parametrize(
    ("size", "window", "trips"),
    [
        (8, 1, 13.7 * 1.1),
        (8, 4, 10.5),
        (32, 1, 38 / 1.45),
        (32, 4, 17),
        (128, 1, 134 / 2),
        (128, 4, 38 / 1.15),
    ],
)
async def test_a_line_that_starts_slowly(size, window, trips):
    """Never much slower than one connection, and long files faster by several of them.

    One connection takes 13.6, 10.3, 38, 16, 134 and 38 round trips.
    """
    service = FakeService(rate=1e9, window=window * MIB, chunk=256 * KIB)
    async with world(service) as w:
        for number in range(2):
            handle = w.reader.open(record(size * MIB, f"f{number}", checksum=""), number + 7)
            began = trio.current_time()
            await w.read_blindly(handle)
            assert (trio.current_time() - began) / LATENCY < trips
            w.reader.release(handle)
            await trio.sleep(10)


@pytest.mark.parametrize(
    ("size", "window", "trips"), [(8, 1, 8.5), (8, 4, 8.5), (32, 1, 12), (32, 4, 11), (128, 4, 23)]
)
async def test_a_line_that_is_known_to_start_slowly(size, window, trips):
    """Several connections begin at once. One would take 13.6, 10.3, 38, 16 and 38 round trips."""
    service = FakeService(rate=1e9, window=window * MIB, chunk=256 * KIB)
    async with world(service) as w:
        for number, mib in enumerate((4, size)):
            handle = w.reader.open(record(mib * MIB, f"f{number}", checksum=""), number + 7)
            began = trio.current_time()
            await w.read_blindly(handle)
            took = trio.current_time() - began
            w.reader.release(handle)
            await trio.sleep(1)
        assert took / LATENCY < trips
        assert w.service.sent("f1") == size * MIB


@pytest.mark.parametrize(
    ("size", "window", "trips"), [(8, 1, 6.3), (8, 4, 6.3), (32, 1, 8.9), (32, 4, 8.9)]
)
async def test_who_reads_much_at_once_begins_over_more_connections(size, window, trips):
    """A first read of 1 MiB is no look at a header; over 8 connections 32 MiB take 10 and 9 trips.

    The first piece is not as long as the read if another one brings the rest of it sooner: of 8
    MiB it would take a trip more.
    """
    async with world(FakeService(rate=1e9, window=window * MIB, chunk=256 * KIB)) as w:
        for number, mib in enumerate((4, size)):
            handle = w.reader.open(record(mib * MIB, f"f{number}", checksum=""), number + 7)
            began = trio.current_time()
            await w.read_on(handle, step=MIB)
            took = trio.current_time() - began
            w.reader.release(handle)
        assert took / LATENCY < trips
        assert sum(asked.id == "f1" for asked in w.service.asked) == 14
        assert w.service.sent("f1") == size * MIB


@pytest.mark.parametrize("header", [4 * KIB, 64 * KIB, 256 * KIB])
async def test_a_header_over_a_line_that_starts_slowly(header):
    """It costs no more than over any other; the other connections are dropped, too."""
    async with world(FakeService(rate=1e9, window=MIB)) as w:
        handle = w.reader.open(record(4 * MIB, "first", checksum=""), 6)
        await w.read_blindly(handle)
        w.reader.release(handle)
        handle = w.reader.open(record(300 * MIB, checksum=""), 7)
        await w.read_on(handle, 0, header + BLOCK)
        await trio.sleep(3)
        w.reader.release(handle)
        await trio.sleep(30)
        assert len([asked for asked in w.service.asked if asked.id == "a"]) > 1
        assert w.service.sent("a") <= header + BLOCK + MIB
        assert w.reader.statistics()["dropped"] <= 8


async def test_a_player_over_a_line_that_starts_slowly():
    """Nothing waits for most of its bytes, so they are not fetched over several connections."""
    async with world(FakeService(rate=1e9, window=MIB)) as w:
        handle = w.reader.open(record(4 * MIB, "first", checksum=""), 6)
        await w.read_blindly(handle)
        w.reader.release(handle)
        handle = w.reader.open(record(40 * MIB, checksum=""), 7)
        await w.read_on(handle, 0, MIB)
        await trio.sleep(1)
        for offset in range(MIB, 2 * MIB, BLOCK):
            assert w.reader.read_now(handle, offset, BLOCK) == plain(offset, offset + BLOCK)
            await trio.sleep(8)
        assert w.service.sent("a") < 12 * MIB
        w.reader.release(handle)


async def test_what_is_known_of_a_line_is_forgotten():
    """A minute after the last slow start, one response runs on again."""
    async with world(FakeService(rate=1e9, window=MIB)) as w:
        for number, pause_s in enumerate((2 * RETRY_S, 0)):
            handle = w.reader.open(record(4 * MIB, f"f{number}", checksum=""), number + 7)
            await w.read_blindly(handle)
            w.reader.release(handle)
            await trio.sleep(pause_s)
            handle = w.reader.open(record(9 * MIB, f"g{number}", checksum=""), number + 70)
            await w.read(handle, 0, BLOCK)
            requests = sum(asked.id == f"g{number}" for asked in w.service.asked)
            assert (requests > 1) == (pause_s == 0)
            await w.read_blindly(handle)
            w.reader.release(handle)
            await trio.sleep(2 * RETRY_S)


async def test_a_line_that_is_shared_gets_its_connections_back():
    """Several connections that together are no faster than half of them: half is used."""
    line, now = ThroughputEstimator(), 0.0
    line.widen(0, now)
    wide = line.connections
    seen = [wide]
    while now < 40:
        now += 0.1
        line.arrived(2_000_000, now)
        if line.connections != seen[-1]:
            seen.append(line.connections)
    assert seen == [wide, wide // 2, wide // 4, 1]
    line.widen(0, now)
    assert line.connections == 1
    line.widen(0, now + RETRY_S)
    assert line.connections == wide


async def test_connections_that_are_of_use_are_kept():
    """With half of them only half comes: all are used again, for a good while."""
    line, now, narrow_s = ThroughputEstimator(), 0.0, 0.0
    line.widen(0, now)
    wide = line.connections
    while now < SETTLE_S + 4 * MEASURE_S + RETRY_S:
        now += 0.1
        line.arrived(1_000_000 * line.connections, now)
        narrow_s += 0.1 * (line.connections < wide)
    assert line.connections == wide
    assert narrow_s <= 2 * MEASURE_S + 0.2


def samples(*counts: int) -> list[bool]:
    """Feed a flow one burst a round trip; what it says to each."""
    flow, now = Flow(ThroughputEstimator(), 0.0), 0.0
    said = []
    for count in counts:
        now += LATENCY
        said.append(flow.received(count, LATENCY, now))
    return said


@pytest.mark.parametrize(
    ("counts", "known"),
    [
        ([14_000 << n for n in range(5)], True),
        ([14_000, 28_000], False),
        ([300_000, 500_000] * 5, False),
        ([500_000] * 5 + [500_000 << n for n in range(5)], False),
    ],
)
def test_what_counts_as_a_slow_start(counts, known):
    """Growth for three round trips from the first byte on; not that of a line with other users."""
    line, now = ThroughputEstimator(), 0.0
    line.answered(LATENCY)
    flow = Flow(line, now)
    for count in [*counts, 0]:
        now += LATENCY
        flow.received(count, LATENCY, now)
    assert line.starts_slowly(now) == known


def test_a_connection_that_grows_is_not_slow():
    """Not as long as each sample brings more; then it is, unless it is fast."""
    assert samples(*(14_000 << n for n in range(7))) == [False] * 7
    assert samples(*[500_000] * 5) == [False, False, True, True, True]
    assert samples(*[20_000_000] * 5) == [False] * 5
