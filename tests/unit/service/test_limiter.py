"""Slots and the gate: who may send a request now."""

import random

import httpx
import pytest
import trio
import trio.testing

from phonofs.priority import Priority
from phonofs.service.gates import Gates
from phonofs.service.limiter import Permit, PriorityLimiter
from phonofs.service.session import Transport, new_request
from tests.support.service_world import API, cancelled_at


async def test_ahead_leaves_two_slots_free() -> None:
    """What nobody waits for takes all but two; what somebody waits for takes all."""
    slots = PriorityLimiter(4)
    order: list[str] = []

    permits: dict[bool, list[Permit]] = {True: [], False: []}

    async def take(name: str, urgent: bool) -> None:
        permits[urgent].append(await slots.acquire(urgent))
        order.append(name)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(take, f"ahead{number}", False)
        await trio.testing.wait_all_tasks_blocked()
        assert slots.statistics() == {"total": 4, "in_use": 2, "ahead_in_use": 2, "waiting": 2}
        for number in range(3):
            nursery.start_soon(take, f"urgent{number}", True)
        await trio.testing.wait_all_tasks_blocked()
        assert slots.statistics() == {"total": 4, "in_use": 4, "ahead_in_use": 2, "waiting": 3}
        permits[False].pop().release()
        await trio.testing.wait_all_tasks_blocked()
        assert order[-1].startswith("urgent"), "what a reader waits for goes first"
        assert slots.statistics()["ahead_in_use"] == 1
        permits[True].pop().release()
        await trio.testing.wait_all_tasks_blocked()
        assert order[-1].startswith("ahead")
        for urgent in (True, True, False, False):
            permits[urgent].pop().release()
            await trio.testing.wait_all_tasks_blocked()
    permits[False].pop().release()
    assert slots.statistics() == {"total": 4, "in_use": 0, "ahead_in_use": 0, "waiting": 0}


async def test_some_requests_go_after_all_others_until_somebody_waits_for_them() -> None:
    slots = PriorityLimiter(3)  # one ahead of readers at a time
    held = await slots.acquire(False)
    order: list[str] = []
    promoted = Priority(False, last=True)

    async def take(name: str, priority: bool | Priority) -> None:
        permit = await slots.acquire(priority)
        order.append(name)
        await trio.testing.wait_all_tasks_blocked()
        permit.release()

    async with trio.open_nursery() as nursery:
        for name, priority in (
            ("last", Priority(False, last=True)),
            ("promoted", promoted),
            ("ahead", Priority(False)),
            ("ahead too", False),
        ):
            nursery.start_soon(take, name, priority)
            await trio.testing.wait_all_tasks_blocked()
        assert order == []
        promoted.rise()
        await trio.testing.wait_all_tasks_blocked()
        held.release()
    assert order == ["promoted", "ahead", "ahead too", "last"]


async def test_one_slot_serves_everybody() -> None:
    """With ``max_connections=1`` read-ahead still goes on."""
    slots = PriorityLimiter(1)
    for urgent in (False, True):
        permit = await slots.acquire(urgent)
        permit.release()


async def test_cancelled_waits_lose_no_slot() -> None:
    """Random holds and cancellations, thousands of them: all slots are free at the end."""
    chance = random.Random(7)
    slots = PriorityLimiter(5)
    most = 0

    async def work(urgent: bool, patience_s: float, hold_s: float) -> None:
        nonlocal most
        with trio.move_on_after(patience_s):
            permit = await slots.acquire(urgent)
            try:
                most = max(most, slots.in_use)
                await trio.sleep(hold_s)
            finally:
                permit.release()

    async with trio.open_nursery() as nursery:
        for _ in range(3000):
            nursery.start_soon(work, chance.random() < 0.4, chance.random(), chance.random() / 50)
            if chance.random() < 0.1:
                await trio.sleep(chance.random() / 50)
    assert most == 5
    assert slots.statistics() == {"total": 5, "in_use": 0, "ahead_in_use": 0, "waiting": 0}


async def test_a_cancelled_taker_gives_back() -> None:
    """Cancelled at the very checkpoint of taking, nothing stays held."""
    slots = PriorityLimiter(2)
    for urgent in (True, False):
        with trio.CancelScope() as scope:
            scope.cancel()
            await slots.acquire(urgent)
        assert slots.in_use == 0
        with trio.CancelScope() as scope:
            trio.lowlevel.current_trio_token().run_sync_soon(scope.cancel)
            permit = await slots.acquire(urgent)
            try:
                await trio.sleep_forever()
            finally:
                permit.release()
    assert slots.in_use == 0


async def test_the_gate_holds_everybody_for_as_long_as_it_was_asked() -> None:
    """A later and shorter wish does not open it; afterwards they come spread, not all at once."""
    gates = Gates()
    start = trio.current_time()
    times: list[float] = []

    async def pass_it() -> None:
        await gates.passed("one")
        times.append(trio.current_time() - start)

    await gates.passed("one")
    gates.close("one", 10)
    gates.close("one", 2)
    assert gates.closed_s("one") == gates.longest_s == 10
    assert gates.closed_s("other") == 0
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(pass_it)
        await trio.sleep(5)
        gates.close("one", 15)
    assert min(times) >= 20
    assert max(times) <= 22
    assert len(set(times)) > 10
    assert gates.closed_s("one") == gates.longest_s == 0


async def test_what_is_waited_for_after_all_lets_another_go_ahead() -> None:
    """A reader that comes upon what is being brought ahead has one more brought beside it."""
    slots = PriorityLimiter(6)
    urgencies = [Priority(False) for _ in range(4)]
    holds = [await slots.acquire(priority) for priority in urgencies]
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(slots.acquire, False)
        await trio.testing.wait_all_tasks_blocked()
        assert slots.statistics() == {"total": 6, "in_use": 4, "ahead_in_use": 4, "waiting": 3}
        urgencies[0].rise()
        assert slots.statistics() == {"total": 6, "in_use": 5, "ahead_in_use": 4, "waiting": 2}
        urgencies[1].rise()
        assert slots.in_use == 5, "one stays free for who comes next"
        last = await slots.acquire(True)
        nursery.cancel_scope.cancel()
    last.release()
    for hold in holds:
        hold.release()
    assert slots.statistics() == {"total": 6, "in_use": 1, "ahead_in_use": 1, "waiting": 0}


async def test_a_slot_that_was_given_back_cannot_be_promoted() -> None:
    """Nor does one count twice that was waited for before it had its slot."""
    slots = PriorityLimiter(6)
    early, late = Priority(False), Priority(False)
    hold = await slots.acquire(late)
    hold.release()
    late.rise()
    async with trio.open_nursery() as nursery:
        permits = [await slots.acquire(False) for _ in range(4)]
        nursery.start_soon(slots.acquire, early)
        await trio.testing.wait_all_tasks_blocked()
        early.rise()
        permits.pop().release()
        await trio.testing.wait_all_tasks_blocked()
        assert slots.statistics() == {"total": 6, "in_use": 4, "ahead_in_use": 3, "waiting": 0}


async def test_one_that_waits_is_promoted_in_its_place() -> None:
    """A reader comes upon a request that read-ahead has queued: not all others go before it."""
    served: list[str] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        served.append(request.url.path)
        await trio.sleep(1)
        return httpx.Response(200)

    async with Transport(API, http=httpx.MockTransport(handler), max_connections=4) as way:

        async def ask(path: str, urgent: bool | Priority) -> None:
            stream = await way.open(new_request("test", f"{API}/{path}"), urgent=urgent)
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(ask, f"first-{number}", True)
            await trio.testing.wait_all_tasks_blocked()
            priority = Priority(False)
            nursery.start_soon(ask, "promoted", priority)
            nursery.start_soon(ask, "ahead", False)
            for number in range(40):
                await trio.sleep(0.05)
                nursery.start_soon(ask, f"{number}", True)
                if number == 9:
                    priority.rise()
        assert served.index("/promoted") < 4 + 4
        assert served.index("/ahead") > len(served) - 5
        assert way.statistics()["slots"] == {
            "total": 4, "in_use": 0, "ahead_in_use": 0, "waiting": 0
        }  # fmt: skip


@pytest.mark.parametrize("rises", [0, 1, 2])
async def test_who_waits_may_be_promoted_and_cancelled_at_any_step(rises: int) -> None:
    """Before it has a slot, as it gets it, and afterwards: no slot is lost or counted twice."""
    step, more = 0, True
    while more:
        step += 1
        slots = PriorityLimiter(3)
        priority = Priority(False)

        async def take(slots: PriorityLimiter = slots, priority: Priority = priority) -> None:
            hold = await slots.acquire(priority)
            try:
                await trio.lowlevel.checkpoint()
            finally:
                hold.release()

        async with trio.open_nursery() as nursery:
            holds = [await slots.acquire(True) for _ in range(3)]

            async def others(
                slots: PriorityLimiter = slots,
                priority: Priority = priority,
                holds: list[Permit] = holds,
            ) -> None:
                for number, hold in enumerate(holds):
                    if number == rises:
                        priority.rise()
                    await trio.lowlevel.checkpoint()
                    hold.release()

            nursery.start_soon(others)
            more = await cancelled_at(step, take)
        assert slots.statistics() == {"total": 3, "in_use": 0, "ahead_in_use": 0, "waiting": 0}


class Holder:
    """A request that takes ten seconds, unless its permit is wanted elsewhere."""

    def __init__(self, slots: PriorityLimiter, urgent: bool) -> None:
        self.slots, self.priority = slots, Priority(urgent)
        self.scope = trio.CancelScope()
        self.began_s: float | None = None
        self.permit: Permit | None = None

    async def run(self) -> None:
        permit = self.permit = await self.slots.acquire(self.priority)
        self.began_s = trio.current_time()
        permit.on_want(self.scope.cancel)
        try:
            with self.scope:
                await trio.sleep(10)
        finally:
            permit.release()
            permit.on_want(self.scope.cancel)  # too late: nothing is held any more
            permit.pause()


async def test_who_waits_overtakes_all_that_nobody_waits_for() -> None:
    """Queued or running: the 300th in the queue begins as soon as a reader waits for it."""
    slots = PriorityLimiter(16)
    async with trio.open_nursery() as nursery:
        readers = [Holder(slots, True) for _ in range(2)]
        ahead = [Holder(slots, False) for _ in range(300)]
        for holder in (*readers, *ahead):
            nursery.start_soon(holder.run)
        await trio.sleep(1)
        assert sum(holder.began_s is not None for holder in ahead) == 14
        last = next(holder for holder in reversed(ahead) if holder.began_s is None)
        last.priority.rise()
        await trio.testing.wait_all_tasks_blocked()
        assert last.began_s == 1
        assert sum(holder.scope.cancelled_caught for holder in ahead) == 1
        assert not any(holder.scope.cancelled_caught for holder in (*readers, last))
        nursery.cancel_scope.cancel()


async def test_a_paused_request_gives_way_to_any_other() -> None:
    """The one that was paused first; one that goes on does not, if a reader waited for it."""
    slots = PriorityLimiter(4)
    async with trio.open_nursery() as nursery:
        holders = [Holder(slots, True) for _ in range(4)]
        for holder in holders:
            nursery.start_soon(holder.run)
        await trio.testing.wait_all_tasks_blocked()
        permits = [holder.permit for holder in holders if holder.permit is not None]
        for number in (2, 1, 3):
            permits[number].on_want(holders[number].scope.cancel)
            permits[number].pause()
        permits[2].resume()
        for urgent in (False, True):
            later = Holder(slots, urgent)
            nursery.start_soon(later.run)
            await trio.testing.wait_all_tasks_blocked()
            assert later.began_s == 0
        assert [holder.scope.cancelled_caught for holder in holders] == [False, True, False, True]
        nursery.cancel_scope.cancel()
    assert slots.statistics() == {"total": 4, "in_use": 0, "ahead_in_use": 0, "waiting": 0}


async def test_nothing_is_given_up_while_permits_are_free() -> None:
    """Not even in the moment in which a background request has come and has none yet."""
    slots = PriorityLimiter(8)
    async with trio.open_nursery() as nursery:
        paused = Holder(slots, True)
        nursery.start_soon(paused.run)
        await trio.testing.wait_all_tasks_blocked()
        assert paused.permit is not None

        async def ask() -> None:
            (await slots.acquire(False)).release()

        for number in range(40):
            nursery.start_soon(ask)
            for _ in range(number % 4):
                await trio.lowlevel.checkpoint()
            paused.permit.pause()
            await trio.testing.wait_all_tasks_blocked()
        assert not paused.scope.cancel_called
        nursery.cancel_scope.cancel()
