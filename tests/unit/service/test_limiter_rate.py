"""The rate of the limiter: who is sent when requests have to wait for it."""

import random
from collections.abc import Callable
from functools import partial

import httpx
import pytest
import trio
import trio.testing

from phonofs.priority import Priority
from phonofs.service.limiter import Permit, PriorityLimiter
from phonofs.service.rate_limit import LEAST_PAUSE_S, QUIET_S
from phonofs.service.session import Transport, new_request
from phonofs.units import Rate
from tests.support.service_world import API, STORE, cancelled_at
from tests.unit.service.test_rate_limit import most_in_a_period


class Sender:
    """Sends requests of no duration; ``sent`` has the name and the time of each, in order."""

    def __init__(self, slots: PriorityLimiter) -> None:
        self.slots = slots
        self.sent: list[tuple[str, float]] = []
        self._began = trio.current_time()

    async def send(
        self, name: str, priority: bool | Priority, *, metered: bool = True, takes_s: float = 0
    ) -> None:
        permit = await self.slots.acquire(priority, metered=metered)
        try:
            permit.use(trio.current_time())
            self.sent.append((name, round(trio.current_time() - self._began, 3)))
            await trio.sleep(takes_s)
        finally:
            permit.release()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.sent]

    @property
    def times(self) -> list[float]:
        return [time for _, time in self.sent]


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


@pytest.mark.promise("rate-is-kept")
async def test_readers_overtake_all_that_is_read_ahead() -> None:
    """While one that somebody waits for is short of its turn, nothing else is sent."""
    sender = Sender(PriorityLimiter(16, Rate(6, 60)))
    promoted = Priority(False)
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(sender.send, f"ahead {number}", False)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(sender.send, "last", Priority(False, last=True))
        nursery.start_soon(sender.send, "promoted", promoted)
        await trio.sleep(1)
        for number in range(3):
            nursery.start_soon(sender.send, f"urgent {number}", True)
            await trio.sleep(8)
        promoted.rise()
    assert sender.names == [
        "ahead 0", "urgent 0", "urgent 1", "promoted", "urgent 2",
        "ahead 1", "ahead 2", "ahead 3", "ahead 4", "last",
    ]  # fmt: skip
    assert sender.times == [10.0 * number for number in range(10)]


@pytest.mark.promise("rate-is-kept")
async def test_what_is_due_goes_in_its_turn_among_readers() -> None:
    """As polls for changes, which would never come to it while readers use up the rate."""
    sender = Sender(PriorityLimiter(16, Rate(6, 60)))
    async with trio.open_nursery() as nursery:
        for name, priority in (
            ("ahead", Priority(False)),
            ("urgent", True),
            ("ahead", Priority(False)),
            ("due", Priority(False, due=True)),
            ("urgent", True),
        ):
            nursery.start_soon(sender.send, name, priority)
            await trio.testing.wait_all_tasks_blocked()
    assert sender.names == ["ahead", "urgent", "due", "urgent", "ahead"]


async def test_readers_find_one_that_is_left_for_them() -> None:
    """A queue of what is read ahead does not make the first reader wait for a whole interval."""
    sender = Sender(PriorityLimiter(16, Rate(20, 60)))
    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(sender.send, f"ahead {number}", False)
        await trio.sleep(31)
        nursery.start_soon(sender.send, "urgent", True)
        await trio.testing.wait_all_tasks_blocked()
        assert sender.sent[-1] == ("urgent", 31)
        nursery.cancel_scope.cancel()


async def test_what_does_not_count_is_not_held_back() -> None:
    """Requests to a store and for a token go by the ones that wait for the rate."""
    sender = Sender(PriorityLimiter(4, Rate(1, 60)))
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(sender.send, f"metered {number}", number % 2 == 0)
        await trio.testing.wait_all_tasks_blocked()
        for urgent in (True, False):
            await sender.send(f"free {urgent}", urgent, metered=False)
        assert sender.names[1:] == ["free True", "free False"]
        assert sender.slots.rate_statistics()["waiting"] == 9
        nursery.cancel_scope.cancel()
    assert sender.slots.rate_statistics()["waiting"] == 0


async def test_cancelled_requests_cost_nothing() -> None:
    """Thousands wait, are promoted and cancelled: others go in their place, as fast as before."""
    chance = random.Random(5)
    sender = Sender(PriorityLimiter(5, Rate(50, 10)))

    async def work(priority: Priority, patience_s: float) -> None:
        with trio.move_on_after(patience_s):
            await sender.send("", priority, takes_s=chance.random() / 10)

    async with trio.open_nursery() as nursery:
        for _ in range(3000):
            priority = Priority(chance.random() < 0.3)
            nursery.start_soon(work, priority, chance.random() * 2)
            if chance.random() < 0.3:
                await trio.sleep(chance.random() / 10)
            if chance.random() < 0.3:
                priority.rise()
    took_s = sender.times[-1]
    assert most_in_a_period(sender.times, 10) == 50
    assert len(sender.times) > 4.5 * took_s
    assert sender.slots.statistics() == {"total": 5, "in_use": 0, "ahead_in_use": 0, "waiting": 0}


@pytest.mark.parametrize("urgent", [True, False])
async def test_one_that_is_cancelled_at_any_step_gives_back_what_it_did_not_use(
    urgent: bool,
) -> None:
    """Before it may go, as it may, and afterwards; the next one goes at the time that is left."""
    step, more = 0, True
    while more:
        step += 1
        slots = PriorityLimiter(3, Rate(1, 10))
        used: list[float] = []

        async def take(slots: PriorityLimiter = slots, used: list[float] = used) -> None:
            permit = await slots.acquire(urgent, metered=True)
            try:
                await trio.lowlevel.checkpoint()
                permit.use(trio.current_time())
                used.append(trio.current_time())
                await trio.lowlevel.checkpoint()
            finally:
                permit.release()

        began = trio.current_time()
        await take()
        async with trio.open_nursery() as nursery:
            follower = Sender(slots)

            async def later(follower: Sender = follower) -> None:
                await trio.sleep(5)
                await follower.send("", False)

            nursery.start_soon(later)
            more = await cancelled_at(step, take)
        assert follower.times == [10 * len(used)]
        assert trio.current_time() - began == 10 * len(used)


async def test_another_rate_is_taken_up_by_those_that_wait() -> None:
    slots = PriorityLimiter(16, Rate(1, 3600))
    sender = Sender(slots)
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(sender.send, f"{number}", number > 2)
        await trio.sleep(10)
        assert len(sender.sent) == 1
        slots.set_rate(Rate(1, 10))
        await trio.sleep(25)
        assert sender.times == pytest.approx([0, 20, 30], abs=0.1)
        slots.set_rate(None)
        await trio.testing.wait_all_tasks_blocked()
        assert sender.times[3:] == [35, 35]


async def test_nobody_waits_for_a_limit_that_has_ended() -> None:
    """Not even if the status found that out, and another one that waited was cancelled then."""
    sender = Sender(PriorityLimiter(1))
    sender.slots.note_429(trio.current_time(), trio.current_time())
    ends_at = trio.current_time() + LEAST_PAUSE_S + 15 * QUIET_S
    await trio.sleep_until(ends_at - 0.1)
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(sender.send, f"{number}", False)
        async with trio.open_nursery() as leaving:
            await trio.testing.wait_all_tasks_blocked()
            leaving.start_soon(sender.send, "cancelled", False)
            await trio.sleep_until(ends_at)
            assert sender.slots.rate_statistics()["limit_per_s"] is None
            assert len(sender.sent) < 3
            leaving.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(sender.names) == ["0", "1", "2"]


async def test_only_one_task_wakes_up_for_each_request() -> None:
    """However many wait, and none while nobody does."""
    sender = Sender(PriorityLimiter(16, Rate(6, 60)))
    steps = Steps()
    async with trio.open_nursery() as nursery:
        for number in range(500):
            nursery.start_soon(sender.send, f"{number}", number % 3 == 0)
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(995)
        assert len(sender.sent) == 100
        assert steps.count < 6 * 100
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 86400)
        await trio.testing.wait_all_tasks_blocked()
        steps.count = 0
    assert steps.count <= 3
    trio.lowlevel.remove_instrument(steps)


async def test_nothing_is_given_up_for_one_that_waits_for_the_rate() -> None:
    """A connection would not help it; and what is given up has to be requested again."""
    slots = PriorityLimiter(3, Rate(2, 60))
    given_up: list[str] = []

    def giving_up(permit: Permit, name: str) -> Callable[[], None]:
        def give_up() -> None:
            given_up.append(name)
            permit.release()

        return give_up

    held = {"paused": await slots.acquire(True), "ahead": await slots.acquire(False)}
    counting = await slots.acquire(True, metered=True)
    for name, permit in held.items():
        permit.on_want(giving_up(permit, name))
    held["paused"].pause()
    sender = Sender(slots)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(partial(sender.send, "", True, takes_s=100))
        await trio.sleep(29)
        assert (given_up, counting.wanted) == ([], False)
        await trio.sleep(2)
        assert (given_up, counting.wanted) == (["paused"], False)
        await trio.sleep(28)
        assert (given_up, counting.wanted) == (["paused"], False)
        await trio.sleep(32)
        assert (given_up, counting.wanted) == (["paused", "ahead"], True)
        counting.release()
    assert sender.times == [30, 60, 91]
    assert slots.statistics() == {"total": 3, "in_use": 0, "ahead_in_use": 0, "waiting": 0}


@pytest.mark.promise("rate-is-kept")
async def test_a_429_slows_down_the_service_alone() -> None:
    """Readers go first after the pause, one after another; a store and tokens are not slowed."""
    asked: list[tuple[str, float]] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.path, trio.current_time()))
        first = len(asked) == 1
        return httpx.Response(429, headers={"Retry-After": "30"}) if first else httpx.Response(200)

    async with Transport(API, http=httpx.MockTransport(handler), max_connections=4) as transport:

        async def ask(url: str, urgent: bool = True, kind: str = "test") -> None:
            await (await transport.open(new_request(kind, url), urgent=urgent)).aclose()

        await ask(f"{API}/first")
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, f"{API}/ahead", False)
                nursery.start_soon(ask, f"{API}/urgent")
                nursery.start_soon(ask, f"{STORE}/{number}")
            nursery.start_soon(ask, f"{API}/token", True, "token")
            await trio.testing.wait_all_tasks_blocked()
            assert len(asked) == 1 + 20 + 1
            assert trio.current_time() == began
            assert transport.statistics()["rate"] == {
                "max_per_s": None, "limit_per_s": 2, "throttled": 1, "waiting": 40
            }  # fmt: skip
        later = [(path, time - began) for path, time in asked[22:]]
    assert [path for path, _ in later] == ["/urgent"] * 20 + ["/ahead"] * 20
    assert later[0][1] == 30
    assert later[-1][1] == pytest.approx(30 + 39 / 2, abs=1.6)
    assert most_in_a_period([time for _, time in later], 10) <= 20
