"""Windows, ranges to download, throughput, background downloads, parked waiters."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from phonofs.errors import Malformed, Unavailable, Untrusted
from phonofs.priority import Priority
from phonofs.ranges import Ranges
from phonofs.reader.download import Download
from phonofs.reader.limits import (
    FIRST_WINDOW,
    INITIAL_READAHEAD,
    KIB,
    LEAST_PART,
    MIB,
    Limits,
    backoff_s,
)
from phonofs.reader.readahead import (
    ThroughputEstimator,
    Window,
    download_size,
    missing_ranges,
    run_on,
    split,
)
from phonofs.reader.slow_start import starting_pieces
from tests.support.reader_world import LATENCY, FakeService, record, world

BLOCK = 128 * KIB


def read_on(window: Window, start: int, count: int) -> None:
    for number in range(count):
        window.note(start + number * BLOCK, start + (number + 1) * BLOCK)


def test_the_window_doubles_with_the_run():
    """Reading on for long brings twice the run ahead, at most what is allowed."""
    window = Window()
    seen = []
    for number in range(64):
        window.note(number * BLOCK, (number + 1) * BLOCK)
        seen.append(window.ahead(8 * MIB))
    assert seen == sorted(seen)
    assert seen[0] == INITIAL_READAHEAD
    assert seen[15] == 2 * 16 * BLOCK
    assert seen[-1] == 8 * MIB


def test_a_seek_begins_a_small_window():
    """After a seek only a little is brought on top."""
    window = Window()
    read_on(window, 0, 100)
    assert window.note(500 * MIB, 500 * MIB + BLOCK)
    assert window.ahead(64 * MIB) == INITIAL_READAHEAD
    assert not window.is_sequential


def test_whoever_hops_about_gets_ever_less():
    """Seek after seek the little becomes nothing; a run makes it whole again."""
    window = Window()
    brought = []
    for hop in range(12):
        window.note(hop * 10 * MIB, hop * 10 * MIB + 4096)
        brought.append(window.ahead(64 * MIB))
    assert brought == sorted(brought, reverse=True)
    assert brought[-1] < 4096
    read_on(window, 300 * MIB, 20)
    window.note(0, 4096)
    assert window.ahead(64 * MIB) == INITIAL_READAHEAD


def test_the_same_read_twice_is_one():
    """The fast path and the slow path note the same read; the run does not grow by it."""
    window = Window()
    for number in range(10):
        for _ in range(2):
            window.note(number * BLOCK, (number + 1) * BLOCK)
    assert window.sequential_bytes == 10 * BLOCK


def test_strides_do_not_look_like_a_run():
    """Small reads with gaps between count only what they read."""
    window = Window()
    for number in range(100):
        window.note(number * 900 * KIB, number * 900 * KIB + 4096)
    assert window.sequential_bytes <= 100 * 4096


@given(st.lists(st.tuples(st.integers(0, 1 << 24), st.integers(1, 1 << 18)), max_size=40))
def test_a_window_keeps_its_invariants(reads):
    """Whatever is read: run_start <= next, the run fits between, the window within its bound."""
    window = Window()
    for start, count in reads:
        window.note(start, start + count)
        assert window.run_start <= window.next
        assert 0 <= window.sequential_bytes <= window.next - window.run_start
        assert 0 <= window.ahead(8 * MIB) <= 8 * MIB


def test_part_sizes_grow_with_the_window():
    """A quarter of the window, from 256 KiB to 8 MiB."""
    sizes = [download_size(ahead) for ahead in (0, MIB, 4 * MIB, 64 * MIB, 640 * MIB)]
    assert sizes == [256 * KIB, 256 * KIB, MIB, 8 * MIB, 8 * MIB]


intervals = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda ab: (min(ab), max(ab))), max_size=6
)


def brought(trips: int, most_window: int) -> int:
    """What a connection that starts slowly brings in so many round trips."""
    return sum(min(FIRST_WINDOW << trip, most_window) for trip in range(trips))


@pytest.mark.parametrize("connections", [8, 14])
@pytest.mark.parametrize("most_window", [MIB, 4 * MIB])
@pytest.mark.parametrize("size", [n * MIB + 1234 for n in (5, 8, 17, 32, 63)])
def test_pieces_that_start_slowly(size, most_window, connections):
    """They take no more round trips than equal ones, and not less is there before the last of them
    without a gap from the start on."""
    pieces = starting_pieces([(0, size)], connections, most_window)
    assert [a for a, _ in pieces] == [0, *(b for _, b in pieces[:-1])]
    assert pieces[-1][1] == size
    assert len(pieces) <= connections
    trips = next(n for n in range(99) if connections * brought(n, most_window) >= size)
    assert max(b - a for a, b in pieces) <= max(brought(trips, most_window), LEAST_PART)
    early = brought(trips - 1, most_window)
    there = Ranges((a, min(b, a + early)) for a, b in pieces).stop_of(0)
    assert there >= min(early, size // connections)


@pytest.mark.parametrize(("size", "there"), [(8, 3_900_000), (32, 17_700_000)])
def test_most_of_what_starts_slowly_is_there_early(size, there):
    """Before the last round trip: half of the file, which can be hashed while the rest comes."""
    pieces = starting_pieces([(0, size * MIB)], 14, 4 * MIB)
    trips = next(n for n in range(99) if 14 * brought(n, 4 * MIB) >= size * MIB)
    early = brought(trips - 1, 4 * MIB)
    assert Ranges((a, min(b, a + early)) for a, b in pieces).stop_of(0) > there


@given(intervals, st.integers(1, 20), st.integers(0, 60))
def test_pieces_that_start_slowly_lie_in_the_gaps(gaps, connections, most_window):
    """In order, one for each connection at most, from the first gap on."""
    gaps = [(a * MIB, b * MIB) for a, b in Ranges(gaps)]
    pieces = starting_pieces(gaps, connections, most_window * MIB)
    assert len(pieces) <= connections
    left = Ranges(gaps)
    for a, b in pieces:
        assert left.stop_of(a) >= b > a
        assert not any(start < a for start, _ in left)
        left.remove(a, b)
    assert not left or len(pieces) == connections


@given(intervals, intervals, st.integers(0, 60), st.integers(0, 60))
def test_uncovered_is_what_is_neither_there_nor_coming(present, flying, start, stop):
    """Against plain sets of integers."""
    gaps = missing_ranges(Ranges(present), flying, start, stop)
    covered = {n for a, b in [*present, *flying] for n in range(a, b)}
    assert [n for a, b in gaps for n in range(a, b)] == [
        n for n in range(start, stop) if n not in covered
    ]


@given(intervals, intervals, *[st.integers(0, 60)] * 3)
def test_what_runs_on_is_the_first_gap_to_its_end(present, flying, begin, end, far_end):
    """Against plain sets of integers: it begins in the window, and may end far behind it."""
    covered = {n for a, b in [*present, *flying] for n in range(a, b)}
    first = next((n for n in range(begin, end) if n not in covered), None)
    gap = []
    while first is not None and first + len(gap) < far_end and first + len(gap) not in covered:
        gap.append(first + len(gap))
    wanted = [(gap[0], gap[-1] + 1)] if gap else []
    assert run_on(Ranges(present), flying, begin, end, far_end) == wanted


@given(intervals, st.integers(1, 20), st.integers(0, 60))
def test_pieces_cover_the_gaps(gaps, part, open_end):
    """In order, none twice, none much larger than a part; only an open end may be left out."""
    gaps = list(Ranges(gaps))
    cut = list(split(gaps, part, open_end))
    assert all(a < b < a + part + part // 2 + 1 for a, b in cut)
    left = Ranges(gaps)
    for a, b in cut:
        assert left.covers(a, b)
        left.remove(a, b)
    assert all(b == open_end and b - a < part for a, b in left)


def test_lanes_follow_latency_and_rate():
    """Slow connections far away are used side by side, fast ones near by are not."""
    far, near = ThroughputEstimator(), ThroughputEstimator()
    far.answered(0.05)
    far.received(8 * MIB, 8 * MIB / 40e6)
    near.answered(0.0005)
    near.received(8 * MIB, 8 * MIB / 600e6)
    assert far.join_distance() == pytest.approx(2_000_000, rel=0.01)
    assert near.join_distance() == 4 * MIB


def test_limits_are_bounded_by_cache_and_memory():
    """A small cache or none makes small windows."""
    assert Limits(cache_bytes=40 * MIB).most_ahead(False, 1) == 10 * MIB
    assert Limits().most_ahead(False, 1) == Limits().most_ahead(False, 7) == 64 * MIB
    assert Limits().most_ahead(False, 8) == Limits().most_ahead(False, 16) == 4 * MIB
    assert Limits().most_ahead(False, 17) == 64 * MIB
    assert Limits(connections=1).most_ahead(False, 1) == 64 * MIB
    assert Limits(connections=2).most_ahead(False, 2) == 4 * MIB
    assert Limits(cache_bytes=0).most_ahead(True, 1) == 16 * MIB
    assert Limits(cache_bytes=0).most_ahead(True, 8) == 2 * MIB
    assert Limits(connections=1).background == 1


def test_pauses_double_and_end():
    """From a tenth of a second to five, spread over half."""
    error = Unavailable("busy")
    assert backoff_s(error, 1, 0.0) == 0.05
    assert backoff_s(error, 1, 1.0) == pytest.approx(0.1)
    assert backoff_s(error, 50, 1.0) == 5.0


def test_what_no_pause_mends_is_not_tried_again():
    """A certificate at once, an unusable answer the fourth time; the service may ask for more."""
    assert backoff_s(Untrusted("a certificate"), 1, 0.5) is None
    pauses = [backoff_s(Malformed("a part"), failures, 0.0) for failures in (1, 2, 3, 4)]
    assert pauses == [0.05, 0.1, 0.2, None]
    assert backoff_s(Unavailable("busy", 30.0), 4, 0.0) == 30.0
    assert backoff_s(Unavailable("busy", 0.01), 4, 0.0) == 0.4


@pytest.mark.parametrize("promoted", [None, 4])
async def test_downloads_go_in_the_order_they_were_planned_in(promoted):
    """In whatever order their tasks begin to run. One that is waited for goes first."""
    service = FakeService(connections=4)
    async with world(service) as w:
        content = w.reader._content(record(64 * MIB, checksum=""), 7)
        content.hold()
        downloads = [content.start(n * MIB, (n + 1) * MIB, urgent=False) for n in range(9)]
        if promoted is not None:
            await trio.sleep(LATENCY / 2)
            downloads[promoted].priority.rise()
        await trio.sleep(5)
        order = [asked.start // MIB for asked in service.asked]
        if promoted is not None:
            assert order.pop(2) == promoted
        planned = [n for n in range(9) if n != promoted]
        assert all(abs(order.index(n) - at) <= 1 for at, n in enumerate(planned))
        assert service.most_open == (2 if promoted is None else 3)
        content.unhold()
        w.reader._idle(content)


async def test_waiters_are_woken_when_theirs_is_there():
    """Progress wakes those it satisfies and nobody else."""
    part = Download(0, 1000, Priority(True))
    woken = []

    async def wait(need: int) -> None:
        await part.until(need, 60)
        woken.append(need)

    async with trio.open_nursery() as nursery:
        for need in (300, 100, 200, 1000):
            nursery.start_soon(wait, need)
        await trio.testing.wait_all_tasks_blocked()
        part.advance(200)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(woken) == [100, 200]
        part.cut(250)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(woken) == [100, 200, 300, 1000]
        assert part.waiting == 0


async def test_the_end_of_a_part_tells_why():
    """Whoever has not got its bytes gets the error, whoever has them does not."""
    part = Download(0, 1000, Priority(True))
    part.advance(500)
    part.error = Unavailable("down")
    part.end()
    await part.until(500, 60)
    with pytest.raises(Unavailable, match="down"):
        await part.until(501, 60)
