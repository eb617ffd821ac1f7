"""Clocks that jump or stand still: the tree, the bytes and the token do not depend on ours.

The wall clock is set by hand, by NTP after a dead battery, or by a virtual machine that goes on
from a snapshot; the monotonic one stands still while the machine is suspended, and the service's
does not. No test touches the machine's own clocks.
"""

import os
import subprocess
import time
from datetime import UTC, datetime

import pytest
import trio

from phonofs.fakeservice.account import change, flat_item
from phonofs.fakeservice.options import Options
from phonofs.fakeservice.server import serve
from phonofs.tree.layout import ROOT
from tests.fault.scene import KERNEL, fast, living, outcome, until
from tests.fault.tools import needs, quiet, status
from tests.support.accounts import NOON_MS, content_of, flat
from tests.support.counted_service import Service
from tests.support.mounts import Mount, files
from tests.support.mounts import standing as standing_apart
from tests.support.mounts import until as happens

HOUR_S = 3600.0
DAY_S = 86_400.0
YEAR_S = 365 * DAY_S
SIZES = (1, 4095, 300_000, (2 << 20) + 17)
DEADLINE_S = 20.0
TWELVE_HOURS_MS = 12 * 3_600_000


class Wall:
    """The wall clock of this process, off by ``off_s``; ``looks`` says how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.off_s = 0.0
        self.looks = 0
        real_s, real_ns = time.time, time.time_ns

        def now_s() -> float:
            self.looks += 1
            return real_s() + self.off_s

        def now_ns() -> int:
            self.looks += 1
            return real_ns() + int(self.off_s * 1e9)

        monkeypatch.setattr(time, "time", now_s)
        monkeypatch.setattr(time, "time_ns", now_ns)


class There:
    """The clock of the service, which nobody here can set; starts at noon of the objects' day."""

    def __init__(self) -> None:
        self.now_ms = NOON_MS + 3_600_000


@pytest.fixture
def wall(monkeypatch):
    return Wall(monkeypatch)


def served(account, there, **options):
    """A fake service with its own clock."""
    return serve(Service(account, Options(**options), now_ms=lambda: there.now_ms))


async def shown(scene, condition):
    async def is_true():
        return condition(await scene.tree())

    await until(is_true, 60, 0.5)


JUMPS = {
    "three days on": 3 * DAY_S,
    "thirty years on": 30 * YEAR_S,
    "a year back": -YEAR_S,
    "1970": -1.7e9,
}


@pytest.mark.promise("clocks-do-not-matter")
@pytest.mark.parametrize("way", ["range", "presign"])
@pytest.mark.parametrize("jump", JUMPS)
@fast
async def test_the_wall_clock_jumps(tmp_path, wall, jump, way):
    """In the middle of reads, polls and listings, there and back: nothing lost, nothing false."""
    account, there = flat(*SIZES), There()
    async with (
        served(account, there, content=way, bytes_per_s=4 << 20) as service,
        living(service, tmp_path, poll_interval="1s") as scene,
    ):
        tree = await scene.tree()
        mtimes = [folder_mtime(scene)]
        for number, off_s in enumerate((JUMPS[jump], 0.0)):
            before = wall.looks
            ends = []
            async with trio.open_nursery() as nursery:
                for ino in tree.values():
                    nursery.start_soon(note_end, scene, ino, ends)
                await trio.sleep(0.3)
                wall.off_s = off_s
                there.now_ms += 60_000
                added = flat_item(f"new{number:05d}", 5000, NOON_MS, updated_ms=there.now_ms)
                account.put(added)
            assert set(ends) == {"right"}
            await shown(scene, lambda tree, added=added: any(added.id in path for path in tree))
            assert wall.looks > before, "nobody looked at the clock"
            change(account, "us-east", added.id, there.now_ms + 1000, state="REVOKED")
            there.now_ms += 60_000
            await shown(scene, lambda tree, added=added: not any(added.id in p for p in tree))
            mtimes.append(folder_mtime(scene))
            assert 0 <= scene.app.status.document()["uptime_s"] < HOUR_S
        assert mtimes == sorted(set(mtimes)), "the folder's time went back, or stood still"
        assert await scene.tree() == tree


async def note_end(scene, ino, ends):
    ends.append(await outcome(scene, ino, DEADLINE_S))


def folder_mtime(scene):
    """Of the day that all objects are in."""
    ino = ROOT
    while (entry := scene.app.catalogue.children(ino)[0]).is_directory:
        ino = entry.ino
    return scene.vfs.entry(ino).mtime_ms


@pytest.mark.promise("clocks-do-not-matter")
@pytest.mark.parametrize("jump", JUMPS)
@fast
async def test_a_mount_that_begins_with_a_wrong_clock(tmp_path, wall, jump):
    """The first mount has another year than the second, the catalogue is the same: so is the
    tree, and both follow."""
    account, there = flat(*SIZES), There()
    async with served(account, there) as service:
        for off_s in (JUMPS[jump], 0.0, JUMPS[jump]):
            wall.off_s = off_s
            there.now_ms += 9 * 86_400_000  # longer than what a record's time may leap by
            async with living(service, tmp_path, poll_interval="1s") as scene:
                await shown(scene, lambda tree: len(tree) == len(account))
                id = f"at{there.now_ms:x}"[:8]
                account.put(flat_item(id, 900, there.now_ms, updated_ms=there.now_ms))
                await shown(scene, lambda tree, id=id: any(id in path for path in tree))
                for ino in (await scene.tree()).values():
                    assert await outcome(scene, ino, DEADLINE_S) == "right"


@fast
async def test_midnight_with_a_clock_a_year_behind(tmp_path, wall):
    """The new day is the service's: its folder comes with its first object, and is whole."""
    account, there = flat(*SIZES), There()
    wall.off_s = -YEAR_S
    async with (
        served(account, there) as service,
        living(service, tmp_path, poll_interval="1s") as scene,
    ):
        days = {path.rpartition("/")[0] for path in await scene.tree()}
        there.now_ms = NOON_MS + TWELVE_HOURS_MS + 5000
        account.put(flat_item("midnight", 1000, there.now_ms - 1000, updated_ms=there.now_ms))
        await shown(scene, lambda tree: any("midnight" in path for path in tree))
        after = {path.rpartition("/")[0] for path in await scene.tree()}
        assert [path[-10:] for path in after - days] == ["2026-03-03"]
        assert days < after


@fast
async def test_the_oldest_goes_first_whatever_the_clock_says(tmp_path, wall):
    """Eviction goes by the order of use, so a jump makes nobody young or old."""
    sizes = [1 << 20] * 4
    async with (
        served(flat(*sizes), There()) as service,
        living(service, tmp_path, cache_size="3500K") as scene,
    ):
        first, second, third, fourth = (await scene.tree()).values()
        for ino, off_s in ((first, 0.0), (second, -20 * YEAR_S), (third, 20 * YEAR_S)):
            wall.off_s = off_s
            assert await outcome(scene, ino, DEADLINE_S) == "right"
        await scene.settled()
        wall.off_s = -40 * YEAR_S
        assert await outcome(scene, first, DEADLINE_S) == "right"  # now it is the youngest
        await scene.settled()
        assert await outcome(scene, fourth, DEADLINE_S) == "right"
        await until(lambda: cached(scene, second, 0), 60, 0.5)
        assert await cached(scene, first, sizes[0])


async def cached(scene, ino, size):
    record = scene.app.catalogue.record(ino)
    return scene.app.cache.cached_bytes(record) == size


@pytest.mark.promise("clocks-do-not-matter")
@fast
async def test_a_token_that_died_in_a_suspend(tmp_path):
    """Its deadline says half an hour, the service says 401: one refresh for all who met it."""
    async with (
        served(flat(*[200_000] * 12), There()) as service,
        living(service, tmp_path, cache_size="0") as scene,
    ):
        inodes = list((await scene.tree()).values())
        assert await outcome(scene, inodes[-1], DEADLINE_S) == "right"
        service.tokens.revoke()
        assert scene.app.status.document()["service"]["token"]["life_s"] > 1000
        tokens = service.counters.tokens
        ends = []
        async with trio.open_nursery() as nursery:
            for ino in inodes[:-1]:
                nursery.start_soon(note_end, scene, ino, ends)
        assert set(ends) == {"right"}
        assert service.counters.statuses[401] > 0, "it did not fire"
        assert service.counters.tokens == tokens + 1


@pytest.mark.promise("clocks-do-not-matter")
@pytest.mark.parametrize("way", ["presign", "redirect"])
@fast
async def test_links_that_died_in_a_suspend(tmp_path, way):
    """The service is eight hours on, ours stood still: 403, a new link, and the right bytes."""
    there = There()
    async with (
        served(flat((6 << 20) + 3), there, content=way) as service,
        living(service, tmp_path, cache_size="0") as scene,
    ):
        (ino,) = (await scene.tree()).values()
        handle = await scene.vfs.open(ino)
        truth = scene.truth(ino)
        assert await scene.piece(handle, 0, KERNEL) == truth[:KERNEL]
        there.now_ms += 8 * 3_600_000
        refused = service.counters.statuses[403]
        assert await scene.piece(handle, 5 << 20, KERNEL) == truth[5 << 20 :][:KERNEL]
        assert service.counters.statuses[403] > refused, "it did not fire"
        scene.vfs.release(handle)
        assert await outcome(scene, ino, DEADLINE_S) == "right"


# a real mount, with a wall clock of its own


class Faked:
    """libfaketime under a mount: what its wall clock says is in a file, that may change."""

    def __init__(self, folder):
        needs("faketime")
        self._file = folder / "faketime"
        self.set(0)
        library = subprocess.run(
            ["faketime", "-f", "+0", "printenv", "LD_PRELOAD"], capture_output=True, text=True
        )
        if library.returncode:
            pytest.skip(f"libfaketime cannot be used: {library.stderr.strip()}")
        self.environment = {
            "LD_PRELOAD": library.stdout.strip(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, off_s):
        aside = self._file.with_suffix(".new")
        aside.write_text(f"{off_s:+.0f}\n")
        aside.rename(self._file)


def polled_off_s(mount):
    """How far the mount's wall clock is from ours, by the time it notes of its last poll."""
    followed = status(mount)["catalogue"]["followed"]["us-east"]
    return (followed["polled_at"] or 0) - time.time()


@pytest.mark.fuse
@pytest.mark.parametrize("off_s", [-20 * YEAR_S, pytest.param(3 * DAY_S, marks=pytest.mark.slow)])
def test_a_real_mount_whose_wall_clock_jumps(tmp_path, off_s):
    """Presigned links, polls, a token that died meanwhile, the log: all go on, there and back."""
    faked = Faked(tmp_path)
    account = flat(*SIZES)
    with standing_apart(account, Options(content="presign")) as stand_in:
        mount = Mount(
            stand_in.url, tmp_path / "m", tmp_path / "cache", poll_interval="0.3s", cache_size="2M"
        )
        mount.environment |= faked.environment
        try:
            mount.start()
            paths = files(mount.point)
            mtime = paths[0].parent.stat().st_mtime_ns
            for number, off in enumerate((off_s, 0.0)):
                read_right(stand_in, paths)
                faked.set(off)
                stand_in.service.tokens.revoke()
                happens(lambda off=off: abs(polled_off_s(mount) - off) < 3600)
                read_right(stand_in, paths)
                added = flat_item(
                    f"new{number:05d}", 5, NOON_MS, updated_ms=stand_in.service.now_ms()
                )
                account.put(added)
                happens(lambda added=added: any(added.id in p.name for p in files(mount.point)))
                assert paths[0].parent.stat().st_mtime_ns > mtime
                mtime = paths[0].parent.stat().st_mtime_ns
                assert datetime.fromtimestamp(mtime / 1e9, UTC) <= datetime.now(UTC)
                assert 0 <= status(mount)["uptime_s"] < HOUR_S
            happens(lambda: quiet(mount))
            assert mount.stop() == 0
            assert "Traceback" not in mount.log_text()
            assert "WARNING" not in mount.log_text()
        finally:
            mount.clean_up()


def read_right(stand_in, paths):
    for number, path in enumerate(paths):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert file.read() == content_of(stand_in.service, f"{number:08d}")
