"""What has to wait is told of once; all else is as if the coroutine were awaited."""

import pytest
import trio
import trio.testing

from phonofs.first_wait import FirstWait


class Told:
    """Counts the calls."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


async def test_what_does_not_wait_is_not_told_of():
    async def work() -> int:
        return 7

    told = Told()
    assert await FirstWait(work(), told) == 7
    assert told.times == 0


async def test_what_waits_is_told_of_once_and_before_it_waits():
    seen = []

    async def work() -> str:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            seen.append(told.times)
        return "done"

    told = Told()
    assert await FirstWait(work(), told) == "done"
    assert seen == [1, 1, 1]


@pytest.mark.parametrize("waits", [0, 1, 2])
async def test_an_error_is_that_of_the_coroutine(waits):
    async def work() -> None:
        for _ in range(waits):
            await trio.lowlevel.checkpoint()
        raise KeyError("it")

    told = Told()
    with pytest.raises(KeyError, match="it"):
        await FirstWait(work(), told)
    assert told.times == (waits > 0)


async def test_a_cancellation_reaches_the_coroutine():
    ended = []

    async def work() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_effective_deadline())

    with trio.CancelScope() as scope:
        await FirstWait(work(), scope.cancel)
    assert scope.cancelled_caught
    assert len(ended) == 1


async def test_what_one_waits_for_may_be_begun_by_whom_is_told():
    """As the watch of a client, which ends the answer."""
    async with trio.open_nursery() as nursery:
        arrived = trio.Event()

        async def arrive() -> None:
            arrived.set()

        await FirstWait(arrived.wait(), lambda: nursery.start_soon(arrive))


async def test_a_coroutine_that_is_given_up_ends():
    """If its loop ends without it, its own ``finally`` runs."""
    ended = []

    async def work() -> None:
        try:
            await trio.lowlevel.checkpoint()
        finally:
            ended.append(True)

    steps = FirstWait(work(), Told()).__await__()
    next(steps)
    steps.close()
    assert ended == [True]
