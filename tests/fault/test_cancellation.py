"""Cancelled at every step, a read, a listing or a fetch leaves nothing held."""

import pytest
import trio

from phonofs.demo.options import Options
from phonofs.tree.layout import ROOT
from tests.fault.scene import fast, living, outcome, standing
from tests.mount.conftest import flat

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
        assert scene.house.status()["reader"]["waiters"] == 0
        assert scene.house.status()["reader"]["handles"] == 0
        for ino in inodes:
            assert await outcome(scene, ino, 20.0) == "right"


@fast
async def test_a_listing_cancelled_anywhere(tmp_path):
    """A caller that goes leaves the listing to the next one; nothing stays behind."""

    async def open_all(scene, ino):
        for entry in (await scene.vfs.open_folder(ino)).entries:
            if entry.folder:
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
async def test_a_house_cancelled_anywhere(tmp_path):
    """The whole house ends in the middle of reads, again and again, over one cache."""
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
