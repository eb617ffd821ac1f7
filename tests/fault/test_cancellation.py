"""Cancelled at every step, a read, a listing, a fetch or a task leaves nothing held."""

import contextlib
from functools import partial

import pytest
import trio

from phonofs.app import TASKS
from phonofs.errors import Unavailable
from phonofs.fakeservice.account import flat_item
from phonofs.fakeservice.options import Options
from phonofs.tree.layout import ROOT
from tests.fault.scene import fast, living, outcome, standing, until
from tests.support.accounts import NOON_MS, flat

pytestmark = pytest.mark.expected_log

COUNT = 48


class Cancelling(trio.abc.Instrument):
    """Cancels a scope before the n-th step of the task that has it."""

    def __init__(self) -> None:
        self.task = None
        self.steps = 0
        self.at = 0
        self.scope = trio.CancelScope()

    def before_task_step(self, task) -> None:
        if task is self.task:
            self.steps += 1
            if self.steps == self.at:
                self.scope.cancel()

    async def run(self, at: int, what) -> bool:
        """Whether it was cancelled; False: it was done before its n-th step."""
        self.task, self.steps, self.at = trio.lowlevel.current_task(), 0, at
        with trio.CancelScope() as self.scope:
            await what()
        self.task = None
        return self.scope.cancelled_caught


async def at_every_step(work, least: int) -> None:
    instrument = Cancelling()
    trio.lowlevel.add_instrument(instrument)
    try:
        for at in range(1, COUNT):
            if not await instrument.run(at, lambda at=at: work(at)):
                break
        assert at > least, "it has fewer steps than a read that waits"
    finally:
        trio.lowlevel.remove_instrument(instrument)


@pytest.mark.parametrize("cache_size", ["1G", "0"])
@pytest.mark.parametrize("way", ["range", "presign", "stream"])
@fast
async def test_a_read_cancelled_anywhere(tmp_path, way, cache_size):
    """Each on a file of its own; afterwards all files are right and all gauges zero."""
    async with (
        standing(flat(*[200_001] * COUNT), Options(content=way, bytes_per_s=4 << 20)) as service,
        living(service, tmp_path, cache_size=cache_size, max_connections=4) as scene,
    ):
        inodes = list((await scene.tree()).values())
        await at_every_step(lambda at: scene.read(inodes[at], 70_000), 3)
        assert scene.app.status.document()["reader"]["waiters"] == 0
        assert scene.app.status.document()["reader"]["handles"] == 0
        for ino in inodes:
            assert await outcome(scene, ino, 20.0) == "right"


@fast
async def test_a_listing_cancelled_anywhere(tmp_path):
    """A caller that goes leaves the listing to the next one; nothing stays behind."""

    async def open_all(scene, ino):
        for entry in (await scene.vfs.open_folder(ino)).entries:
            if entry.is_directory:
                await open_all(scene, entry.ino)

    async with standing(flat(*[10] * 250), Options(latency_s=0.1)) as service:
        instrument = Cancelling()
        trio.lowlevel.add_instrument(instrument)
        for at in range(1, 7):
            folder = tmp_path / str(at)
            folder.mkdir()
            async with living(service, folder, max_connections=4) as scene:
                await instrument.run(at, lambda scene=scene: open_all(scene, ROOT))
                assert len(await scene.tree()) == 250
        trio.lowlevel.remove_instrument(instrument)


@fast
async def test_an_app_cancelled_anywhere(tmp_path):
    """The whole app ends in the middle of reads, again and again, over one cache."""
    async with standing(flat(*[700_001] * 4), Options(bytes_per_s=4 << 20)) as service:
        for number in range(8):
            with trio.CancelScope() as scope:
                async with living(service, tmp_path) as scene, trio.open_nursery() as nursery:
                    for ino in (await scene.tree()).values():
                        nursery.start_soon(scene.read, ino)
                    await trio.sleep(0.3 * number)
                    scope.cancel()
        async with living(service, tmp_path) as scene:
            for ino in (await scene.tree()).values():
                assert await outcome(scene, ino, 20.0) == "right"


# the tasks of the app


class CancellingAll(Cancelling):
    """The same, before the n-th step of the task or of any that it started."""

    def before_task_step(self, task) -> None:
        while task is not None and task is not self.task:
            task = task.parent_nursery.parent_task if task.parent_nursery else None
        if task is not None:
            super().before_task_step(task)


@pytest.mark.parametrize("name", sorted(TASKS.keys() - {"the metrics"}))  # which are off here
def test_a_task_of_the_app_cancelled_anywhere(tmp_path, name, monkeypatch, request):
    """In the middle of reads, listings, polls and evictions; run again, it goes on with them."""
    instrument = CancellingAll()
    monkeypatch.setitem(TASKS, name, twice(TASKS[name], instrument))
    most = 60 if request.config.getoption("--long") else 2
    total = at_work(tmp_path=tmp_path / "0", instrument=instrument, at=0)
    step = max(1, total // most)
    points = range(1 + step // 2, total, step)
    fired = [is_cancelled(tmp_path, instrument, at=at) for at in points]
    assert sum(fired) >= len(fired) / 2, "it was cancelled too seldom"


def is_cancelled(tmp_path, instrument, at):
    """Whether a run was cancelled at this step, or at an earlier one because it had fewer.

    How many steps a run has depends on how often its tree had to be looked at until it was right.
    """
    wanted = at
    for again in range(4):
        steps = at_work(tmp_path=tmp_path / f"{at}-{again}", instrument=instrument, at=wanted)
        if steps >= wanted:
            return True
        wanted = 1 + steps // 2
    return False


def twice(task_of, instrument):
    """A task of an app that is cancelled once, and then run again."""

    def cancelled_once(app):
        task = task_of(app)

        async def run(*, task_status):
            await instrument.run(instrument.next_at, partial(task, task_status=task_status))
            await task(task_status=task_status)

        return run

    return cancelled_once


def at_work(tmp_path, instrument, at):
    """One app at work; how many steps the task had done in the end."""
    tmp_path.mkdir()

    @fast
    async def run():
        instrument.next_at = at
        trio.lowlevel.add_instrument(instrument)
        options = {
            "poll_interval": "1s", "cache_size": "1500K", "max_connections": "4",
            "index": "records", "journal": str(tmp_path / "journal"), "journal_sync": "1s",
        }  # fmt: skip
        account = flat(*[200_001] * 12)
        async with (
            standing(account, Options(bytes_per_s=4 << 20, token_life_s=2)) as service,
            living(service, tmp_path, **options) as scene,
        ):
            await until(partial(is_right, scene, 12), 60, 0.5)
            account.put(flat_item("new", 5000, NOON_MS, updated_ms=service.now_ms()))
            async with trio.open_nursery() as nursery:
                for ino in (await scene.tree()).values():
                    nursery.start_soon(attempt, scene, ino)
            await until(partial(is_right, scene, 13), 60, 0.5)
        trio.lowlevel.remove_instrument(instrument)

    run()
    return instrument.steps


async def is_right(scene, count):
    """Whether the tree has so many files, all right; not while a task begins again."""
    with contextlib.suppress(Unavailable):
        tree = await scene.tree()
        ends = {await attempt(scene, ino) for ino in tree.values()}
        return ends == {"right"} and len(tree) == count
    return False


async def attempt(scene, ino):
    try:
        return await outcome(scene, ino, 20.0)
    except Unavailable:  # it could not even be opened
        return "Unavailable"
