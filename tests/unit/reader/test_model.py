"""Random readers with random faults against the plain bytes, and cancellation everywhere."""

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from phonofs.errors import Changed, Corrupt, Malformed, ServiceError, Unavailable
from phonofs.reader.limits import Limits
from tests.support.reader_world import (
    KIB,
    MIB,
    Asked,
    FakeService,
    Fault,
    World,
    plain,
    record,
    world,
)

SIZES = (0, 1, 5000, 300 * KIB, 3 * MIB, 6 * MIB + 1, 9 * MIB)


@dataclass
class Plan:
    """What a run does: files, reads of each reader, and faults by request."""

    size: int
    way: str
    known: bool
    in_memory: bool
    slow: bool
    readers: list[list[tuple[float, int]]]
    faults: dict[int, Fault] = field(default_factory=dict)


faults = st.one_of(
    st.builds(Fault, error=st.sampled_from([Unavailable("503"), Unavailable("429", 3.0)])),
    st.builds(Fault, error=st.just(Malformed("html"))),
    st.builds(Fault, cut_after=st.integers(0, 2 * MIB)),
)
plans = st.builds(
    Plan,
    size=st.sampled_from(SIZES),
    way=st.sampled_from(["range", "range", "stream"]),
    known=st.booleans(),
    in_memory=st.booleans(),
    slow=st.booleans(),
    readers=st.lists(
        st.lists(
            st.tuples(st.floats(0, 1.1), st.sampled_from([1, 4096, 131072, 131072, 700_000])),
            min_size=1, max_size=12,
        ),
        min_size=1, max_size=4,
    ),
    faults=st.dictionaries(st.integers(0, 15), faults, max_size=6),
)  # fmt: skip


async def follow(w: World, plan: Plan, number: int) -> None:
    """One reader: seeks where the plan says, and in between reads on."""
    await trio.sleep(0.03 * number)
    handle = w.reader.open(record(plan.size), 7)
    offset = 0
    try:
        for where, count in plan.readers[number]:
            offset = int(where * plan.size) if where < 0.7 else offset
            try:
                data = await w.read(handle, offset, count)
            except Malformed:
                continue
            assert data == plain(offset, max(offset, min(plan.size, offset + count)))
            offset += len(data)
    finally:
        w.reader.release(handle)


async def run_plan(plan: Plan) -> None:
    service = FakeService(way=plan.way, known=plan.known, fault=lambda asked, n: plan.faults.get(n))
    limits = Limits(memory_bytes=4 * MIB)
    async with world(service, in_memory=plan.in_memory, slow=plan.slow, limits=limits) as w:
        async with trio.open_nursery() as nursery:
            for number in range(len(plan.readers)):
                nursery.start_soon(follow, w, plan, number)
        if plan.way == "range" and not plan.in_memory:
            assert service.sent() <= plan.size + 64 * KIB * len(service.asked)


def run(main: Callable[..., object], *args: object) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(functools.partial(main, *args), clock=clock)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(plans)
@example(
    Plan(
        size=3 * MIB, way="range", known=False, in_memory=False, slow=False, faults={},
        readers=[[(0.0, 1)], [(0.5, 700_000), (1.0, 700_000)]],
    )
)  # fmt: skip
def test_random_readers_get_the_plain_bytes(plan):
    """Several readers, random reads, failing requests: each read is right, nothing stays held."""
    run(run_plan, plan)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(plans)
def test_random_readers_for_long(plan):
    """The same, a few thousand times."""
    run(run_plan, plan)


@pytest.mark.expected_log("wrong content")
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    size=st.sampled_from([1000, 300 * KIB, 3 * MIB, 6 * MIB]),
    flips=st.lists(st.floats(0, 0.999), min_size=1, max_size=3),
    in_memory=st.booleans(),
)
def test_a_file_read_whole_is_right_or_an_error(size, flips, in_memory):
    """Bytes flipped on the way in the first requests: no reader ends with a wrong file."""

    def fault(asked: Asked, number: int) -> Fault | None:
        return Fault(flip=int(flips[number] * size)) if number < len(flips) else None

    async def main() -> None:
        async with world(FakeService(fault=fault), in_memory=in_memory) as w:
            for ino in (1, 2):
                handle = w.reader.open(record(size), ino)
                got = []
                try:
                    for offset in range(0, size, 128 * KIB):
                        got.append(await w.read(handle, offset, 128 * KIB))
                except Corrupt:
                    pass
                else:
                    assert b"".join(got) == plain(0, size)
                w.reader.release(handle)

    run(main)


class Countdown(trio.abc.Instrument):
    """Cancels a scope when its task is about to run for the n-th time."""

    def __init__(self, scope: trio.CancelScope, task: trio.lowlevel.Task, count: int) -> None:
        self.scope, self.task, self.count = scope, task, count
        self.fired = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.count -= 1
            if self.count == 0:
                self.fired = True
                self.scope.cancel()


async def read_cancelled(w: World, count: int, offsets: list[int]) -> bool:
    """Read in a task that is cancelled at its n-th step; whether that came to pass."""
    handle = w.reader.open(record(24 * MIB), 7)
    with trio.CancelScope() as scope:
        instrument = Countdown(scope, trio.lowlevel.current_task(), count)
        trio.lowlevel.add_instrument(instrument)
        try:
            for offset in offsets:
                data = await w.read(handle, offset, 128 * KIB)
                assert data == plain(offset, offset + len(data))
        finally:
            trio.lowlevel.remove_instrument(instrument)
            w.reader.release(handle)
    return instrument.fired


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("beside", [False, True])
async def test_a_reader_cancelled_anywhere_leaves_nothing(slow, beside):
    """Cancelled at its n-th step for every n: no waiter, no slot, no part, no pin stays behind,
    and who reads beside it gets its bytes."""
    offsets = [0, 128 * KIB, 256 * KIB, 20 * MIB, 10 * MIB, 11 * MIB]
    fired = True
    count = 0
    while fired:
        count += 1
        faults = {1: Fault(cut_after=100 * KIB), 3: Fault(error=Unavailable("503"))}
        service = FakeService(fault=lambda asked, n, faults=faults: faults.get(n))
        async with world(service, slow=slow) as w:
            async with trio.open_nursery() as nursery:
                other = w.reader.open(record(24 * MIB), 7)
                if beside:
                    nursery.start_soon(w.read_on, other, 0, MIB)
                fired = await read_cancelled(w, count, offsets)
            w.reader.release(other)
    assert count > 5


async def test_the_reader_cancelled_anywhere_gives_all_back():
    """The whole room cancelled after n steps of its tasks: every slot and pin is given back."""
    random.seed(1)
    for number in range(60):
        service = FakeService(fault=lambda asked, n: Fault(cut_after=MIB) if n == 2 else None)
        async with trio.open_nursery() as nursery:
            maker = world(service)
            w = await nursery.start(_keep_open, maker)
            handle = w.reader.open(record(24 * MIB), 7)
            nursery.start_soon(_read_until_cancelled, w, handle)
            await trio.sleep(number * 0.007)
            nursery.cancel_scope.cancel()
        assert service.limiter.in_use == 0
        assert w.cache.pinned == 1
        w.reader.release(handle)
        assert w.cache.pinned == 0
        assert w.reader.statistics()["waiters"] == 0
        assert w.reader.statistics()["parts"] == 0


async def _keep_open(maker, *, task_status) -> None:
    async with maker as w:
        task_status.started(w)
        await trio.sleep_forever()


async def _read_until_cancelled(w: World, handle) -> None:
    try:
        await w.read_on(handle)
    except (ServiceError, Changed):
        raise AssertionError("a cancelled reader saw an error") from None
