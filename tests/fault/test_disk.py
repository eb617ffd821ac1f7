"""Faults of the disk under the cache and the catalogue: what is served is right, or an error."""

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio

from phonofs.cache import breaker
from phonofs.errors import CatalogueError, PhonofsError
from phonofs.fakeservice.account import Account, flat_item
from phonofs.fakeservice.faults import Faults, plan
from phonofs.tree.layout import ROOT
from tests.fault.scene import Scene, fast, living, outcome, standing, thinned, until
from tests.fault.tools import needs
from tests.support.accounts import NOON_MS, flat
from tests.support.failing_sqlite import look_at_statements

pytestmark = pytest.mark.expected_log

SIZES = (1, 4095, 300_000, (2 << 20) + 17)
DEADLINE_S = 20.0
ENDS = ("right", "EIO", "CatalogueError", "Unavailable")
"""How reading may end on a disk that fails."""


def command(*words: object) -> subprocess.CompletedProcess[bytes]:
    """A short one; the event loop may wait for it."""
    return subprocess.run(words, capture_output=True, check=False)


async def visit(service, folder, **options):
    """One mount, all read; how each file ended. An error while opening is an end too."""
    ends = {}
    with contextlib.suppress(PhonofsError):
        try:
            async with living(service, folder, **options) as scene:
                for path, ino in (await scene.tree()).items():
                    ends[path] = await outcome(scene, ino, DEADLINE_S)
        except BaseExceptionGroup as group:
            if group.split(PhonofsError)[1] is not None:
                raise
    return ends


async def all_right(service, folder, **options):
    ends = await visit(service, folder, **options)
    assert len(ends) == len(service.account)
    assert set(ends.values()) == {"right"}


# what lies on disk is touched between two mounts


def held(folder: Path) -> list[Path]:
    return sorted((folder / "cache/content").glob("??/*"))


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x10]))


def swap(folder: Path) -> None:
    first, second, *_ = sorted(held(folder), key=lambda path: -path.stat().st_size)
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def each(change):
    return lambda folder: [change(path) for path in held(folder)]


def index(folder: Path) -> Path:
    return folder / "cache/content/index.sqlite"


DAMAGE = {
    "truncated": each(lambda path: os.truncate(path, path.stat().st_size // 2)),
    "emptied": each(lambda path: os.truncate(path, 0)),
    "longer": each(lambda path: os.truncate(path, path.stat().st_size + 5000)),
    "zeros": each(lambda path: path.write_bytes(bytes(path.stat().st_size))),
    "a bit in the first byte": each(lambda path: flip(path, 0)),
    "a bit in the last byte": each(lambda path: flip(path, path.stat().st_size - 1)),
    "removed": each(Path.unlink),
    "a folder in its place": each(lambda path: (path.unlink(), path.mkdir())),
    "a link in its place": each(lambda path: (path.unlink(), path.symlink_to("/etc/passwd"))),
    "a pipe in its place": each(lambda path: (path.unlink(), os.mkfifo(path))),
    "not readable": each(lambda path: path.chmod(0)),
    "swapped": swap,
    "index removed": lambda folder: index(folder).unlink(),
    "index emptied": lambda folder: os.truncate(index(folder), 0),
    "index of text": lambda folder: index(folder).write_text("no database" * 1000),
    "index truncated": lambda folder: os.truncate(index(folder), 5000),
    "content removed": lambda folder: shutil.rmtree(folder / "cache/content"),
    "all removed": lambda folder: shutil.rmtree(folder / "cache"),
}


HARMLESS = {"longer", "not readable"}
"""Bytes behind the end say nothing; root may read all."""

OBSTINATE = {"a folder in its place", "a link in its place", "a pipe in its place"}
"""What is not a file is not removed by itself at once: somebody planted it."""


@pytest.mark.promise("nothing-unchecked-from-disk")
@pytest.mark.parametrize("name", thinned(DAMAGE, 3))
@fast
async def test_damage_between_two_mounts_costs_a_fetch(tmp_path, name):
    """Whatever happened to the cache, the next mount gives every byte right."""
    async with standing(flat(*SIZES)) as service:
        await all_right(service, tmp_path)
        assert len(held(tmp_path)) == len(SIZES)
        DAMAGE[name](tmp_path)
        service.counters.clear()
        await all_right(service, tmp_path)
        assert service.counters.bytes > 0 or name in HARMLESS, "nothing was damaged"
        service.counters.clear()
        await all_right(service, tmp_path)
        if name not in OBSTINATE:
            assert service.counters.bytes == 0, "not cached again"


@pytest.mark.parametrize("seed", thinned(range(24), 12))
@fast
async def test_bits_flipped_anywhere(tmp_path, seed):
    """Twenty random bits in whatever lies in the cache folder: right, or an error."""
    chance = random.Random(seed)
    async with standing(flat(*SIZES)) as service:
        await all_right(service, tmp_path)
        files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
        files = [path for path in files if path.stat().st_size]
        for _ in range(20):
            path = chance.choice(files)
            flip(path, chance.randrange(path.stat().st_size))
        ends = await visit(service, tmp_path)
        assert "AssertionError" not in ends.values()
        await visit(service, tmp_path)  # the catalogue may need a second mount to be made anew
        shutil.rmtree(tmp_path / "cache")
        await all_right(service, tmp_path)


# every call fails once


CALLS = {
    "names": ("open", "unlink", "rename", "ftruncate", "mkdir"),
    "looks": ("stat", "fstat", "fstatvfs", "listdir", "fsync"),
    "reads": ("pread", "preadv"),
}
"""What the cache calls with a descriptor of its own, by what it is for."""


class Failing:
    """Counts I/O calls of the cache and the catalogue, and has the n-th one fail."""

    def __init__(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.at = 0
        if kind == "sqlite":
            look_at_statements(monkeypatch, self.sqlite)
        elif kind in CALLS:
            for name in CALLS[kind]:
                self._patch(monkeypatch, name, OSError(5, "Input/output error"))
        else:
            full = OSError(28, "No space left on device")
            error = full if kind == "pwrite" else OSError(5, "Input/output error")
            self._patch(monkeypatch, kind, error)

    def begin(self, at: int) -> None:
        self.count, self.at = 0, at

    def hit(self) -> bool:
        self.count += 1
        return self.count == self.at

    def _patch(self, monkeypatch, name, error):
        real = getattr(os, name)
        of_cache = name in ("pwrite", "pread", "preadv", "ftruncate")

        def call(*args, **kwargs):
            ours = of_cache or kwargs.get("dir_fd") or kwargs.get("src_dir_fd")
            ours = ours or (name in CALLS["looks"] and isinstance(args[0], int))
            if ours and self.hit():
                raise error
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    def sqlite(self, statement: str) -> None:
        if statement != "ROLLBACK" and self.hit():
            raise sqlite3.OperationalError("disk I/O error")


async def twice(service, folder):
    """Two mounts, the second with a cache too small, so that it evicts."""
    await visit(service, folder)
    await visit(service, folder, cache_size="2500K")


@pytest.mark.parametrize("kind", ["pwrite", *CALLS, "sqlite"])
def test_every_call_fails_once(tmp_path, kind, monkeypatch, request):
    """The n-th call fails: nothing false is served, nothing stays held, and all is well after."""
    failing = Failing(kind, monkeypatch)
    fail_everywhere(tmp_path, failing, request)


def test_every_request_fails_once(tmp_path, request):
    """The same for the n-th request of any kind, which is reset in its body."""

    class Requests:
        count = 0

        def begin(self, at):
            self.at = at

    fail_everywhere(tmp_path, Requests(), request)


def fail_everywhere(tmp_path, failing, request):
    most = 10**6 if request.config.getoption("--long") else 2

    @fast
    async def run(at):
        folder = tmp_path / str(at)
        folder.mkdir()
        async with standing(flat(*SIZES)) as service:
            if not hasattr(failing, "hit"):
                rule = {"nth": max(at, 1), "fail": "reset", "after": 100, "name": "fault"}
                service.faults = Faults(plan([rule] if at else []))
            failing.begin(at)
            await twice(service, folder)
            if not hasattr(failing, "hit"):
                failing.count = sum(service.counters.requests.values())
                assert not at or service.faults.fired["fault"]
            assert not at or failing.count >= at, "it did not fire"
            failing.begin(0)
            service.faults = Faults()
            await all_right(service, folder)
        shutil.rmtree(folder)

    @fast
    async def measure():
        (tmp_path / "measure").mkdir()
        async with standing(flat(*SIZES)) as service:
            failing.begin(0)
            await twice(service, tmp_path / "measure")
            measure.total = failing.count or sum(service.counters.requests.values())

    measure.total = 0
    measure()
    total = measure.total
    assert total > 5
    step = max(1, total // most)
    for at in range(1, total * 9 // 10, step):  # the number of the last calls varies
        run(at=at)


# real disks


@contextlib.contextmanager
def tmpfs(folder: Path, size: str):
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", folder], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.promise("disk-trouble-is-not-the-readers")
@fast
async def test_a_disk_that_fills_up(tmp_path, monkeypatch):
    """Somebody else fills the disk: reading goes on, and when there is room, caching does."""
    monkeypatch.setattr(breaker, "PAUSE_S", 6.0)
    with tmpfs(tmp_path / "cache", "6m"):
        async with standing(flat(*[1 << 20] * 12)) as service:
            async with living(service, tmp_path, cache_size="1G") as scene:
                inodes = list((await scene.tree()).values())
                assert await outcome(scene, inodes[0], DEADLINE_S) == "right"
                filler = tmp_path / "cache/filler"
                with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                    while file.write(bytes(65536)):
                        pass
                for ino in inodes:
                    assert await outcome(scene, ino, DEADLINE_S) == "right"
                filler.unlink()
                for ino in inodes:
                    assert await outcome(scene, ino, DEADLINE_S) == "right"

                async def on_again():
                    return scene.app.status.document()["cache"]["state"] == "on"

                await until(on_again, 60, 1)
                before = service.counters.bytes
                for ino in inodes[-2:] * 2:
                    assert await outcome(scene, ino, DEADLINE_S) == "right"
                assert service.counters.bytes - before <= 2 << 20
            await all_right(service, tmp_path)


@pytest.mark.promise("disk-trouble-is-not-the-readers")
@fast
async def test_a_disk_that_fills_up_before_all_is_listed(tmp_path):
    """What was listed is shown, the rest is an error until there is room; nothing is left out."""
    items = [flat_item(f"day-{n}", 100, NOON_MS + n * 86_400_000) for n in range(20)]
    with tmpfs(tmp_path / "cache", "6m"):
        account = Account(items, (items[0].region,))
        async with (
            standing(account) as service,
            living(service, tmp_path, poll_interval="1h") as scene,
        ):
            days = [
                ino
                for year in await entries(scene, ROOT)
                for month in await entries(scene, year)
                for ino in await entries(scene, month)
            ]
            assert len(await entries(scene, days[0])) == 1
            filler = tmp_path / "cache/filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(65536)):
                    pass
            assert len(await entries(scene, days[0])) == 1
            with pytest.raises(CatalogueError):
                await counts(scene, days)
            filler.unlink()
            assert await counts(scene, days) == [1] * len(days)


async def counts(scene: Scene, inodes: Iterable[int]) -> list[int]:
    """How many names each folder has."""
    return [len(await entries(scene, ino)) for ino in inodes]


async def entries(scene: Scene, ino: int) -> list[int]:
    """What a folder shows, by inode."""
    return [entry.ino for entry in (await scene.vfs.open_folder(ino)).entries]


@pytest.mark.parametrize("size", ["64k", "300k", "1m"])
@fast
async def test_a_disk_too_small_from_the_start(tmp_path, size):
    """Nearly no room: an error of one sentence, or everything is right."""
    with tmpfs(tmp_path / "cache", size):
        async with standing(flat(*SIZES)) as service:
            ends = await visit(service, tmp_path)
            assert set(ends.values()) <= {"right", "CatalogueError", "Unavailable"}
        del service


@pytest.mark.promise("disk-trouble-is-not-the-readers")
@fast
async def test_a_read_only_disk(tmp_path):
    """A cache folder that became read-only: refused in a sentence, or read through memory."""
    with tmpfs(tmp_path / "cache", "20m"):
        async with standing(flat(*SIZES)) as service:
            await all_right(service, tmp_path)
            folder = tmp_path / "cache"
            assert command("mount", "-o", "remount,ro", folder).returncode == 0
            ends = await visit(service, tmp_path)
            assert set(ends.values()) <= {"right"}
            assert command("mount", "-o", "remount,rw", folder).returncode == 0
            await all_right(service, tmp_path)


@pytest.mark.parametrize("what", ["content", "."])
@fast
async def test_the_folder_is_removed_while_it_is_used(tmp_path, what):
    """rm -rf of the cache under a mount costs fetches, nothing else."""
    async with standing(flat(*SIZES)) as service:
        async with living(service, tmp_path) as scene:
            inodes = list((await scene.tree()).values())
            assert await outcome(scene, inodes[-1], DEADLINE_S) == "right"
            shutil.rmtree(tmp_path / "cache" / what)
            for ino in inodes * 2:
                assert await outcome(scene, ino, DEADLINE_S) == "right"
        await all_right(service, tmp_path)


class Ext4:
    """A file system that loses what was not synced, at the cache folder."""

    def __init__(self, folder: Path) -> None:
        self._image, self.folder = folder / "image", folder / "cache"
        self._image.touch()
        os.truncate(self._image, 40 << 20)
        assert command("mkfs.ext4", "-q", "-F", self._image).returncode == 0
        self.folder.mkdir()
        self.mount()
        self.folder.chmod(0o700)
        assert command("sync", "-f", self.folder).returncode == 0

    def mount(self) -> None:
        done = command("mount", "-o", "loop", self._image, self.folder)
        if done.returncode:
            pytest.skip(f"no loop device can be mounted: {done.stderr.decode().strip()}")
        shutil.rmtree(self.folder / "lost+found", ignore_errors=True)

    def cut(self) -> None:
        assert command("xfs_io", "-x", "-c", "shutdown", self.folder).returncode == 0

    def power(self) -> None:
        """Mount a copy of what is on the disk.

        A process of another test may have the former one in a mount name space of its own. Mounting
        that image again would give the file system that was shut down.
        """
        assert command("umount", self.folder).returncode == 0
        former, self._image = self._image, self._image.with_name(f"{self._image.name}-")
        assert command("cp", "--sparse=always", former, self._image).returncode == 0
        former.unlink()
        self.mount()


@pytest.fixture
def ext4(tmp_path):
    needs("mkfs.ext4", "xfs_io", "losetup")
    disk = Ext4(tmp_path)
    try:
        yield disk
    finally:
        command("umount", "-l", disk.folder)


@fast
async def test_a_power_cut(tmp_path, ext4):
    """ext4 that loses what was not synced: right before, during and after."""
    async with standing(flat(*SIZES, *[1 << 20] * 6)) as service:
        async with living(service, tmp_path) as scene:
            inodes = list((await scene.tree()).values())
            for ino in inodes[:-3]:
                assert await outcome(scene, ino, DEADLINE_S) == "right"
            ext4.cut()
            for ino in inodes:
                assert await outcome(scene, ino, DEADLINE_S) == "right"
        ext4.power()
        await visit(service, tmp_path)
        await all_right(service, tmp_path)


def test_power_cuts_in_the_middle(tmp_path, ext4, request):
    """While the cache fills and evicts and the catalogue is written: nothing false, then or after.

    The catalogue may be a little older after a cut, never another one.
    """
    account = flat(*SIZES, *[1 << 20] * 6)
    for seed in range(24 if request.config.getoption("--long") else 3):
        one_power_cut(tmp_path=tmp_path, ext4=ext4, account=account, chance=random.Random(seed))


@fast
async def one_power_cut(tmp_path, ext4, account, chance):
    async with standing(account) as service:
        try:
            async with living(
                service, tmp_path, cache_size="4M", poll_interval="0.5s", read_deadline="5s"
            ) as scene:
                await until_it_is_cut(scene, ext4, chance)
        except BaseExceptionGroup as group:  # the catalogue cannot be closed on such a disk
            if group.split((PhonofsError, sqlite3.Error))[1] is not None:
                raise
        except sqlite3.Error:
            pass
        ext4.power()
        async with living(service, tmp_path, poll_interval="0.5s") as scene:

            async def is_whole():
                return len(await scene.tree()) == len(account)

            await until(is_whole, 60, 0.5)
            for ino in (await scene.tree()).values():
                assert await outcome(scene, ino, DEADLINE_S) == "right"


async def until_it_is_cut(scene, ext4, chance):
    """Read, add and withdraw until a random moment after the first evictions, and a bit beyond."""
    inodes = list((await scene.tree()).values())
    service, account = scene.service, scene.service.account
    known = scene.app.catalogue.totals()[0]

    async def read_on():
        while True:
            assert await ending(scene, chance.choice(inodes)) in (
                "right",
                "EIO",
                "CatalogueError",
                "Unavailable",
            )

    async def write_on():
        while True:
            id = f"x{len(account):07d}"
            account.put(flat_item(id, 300, NOON_MS + len(account), updated_ms=service.now_ms()))
            await trio.sleep(0.2)

    async def is_at_stake():
        evictions = scene.app.status.document()["cache"]["evictions"]
        return evictions > 5 and scene.app.catalogue.totals()[0] > known + 2

    async def is_noticed():
        return scene.app.status.document()["cache"]["errors"] > 0

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read_on)
        nursery.start_soon(write_on)
        await until(is_at_stake, 60, 0.1)
        await trio.sleep(chance.random())
        ext4.cut()
        await until(is_noticed, 60, 0.1)
        for ino in inodes:
            assert await ending(scene, ino) in ENDS
        nursery.cancel_scope.cancel()


async def ending(scene, ino):
    """As :func:`outcome`; a catalogue that cannot be read is EIO to the kernel."""
    try:
        return await outcome(scene, ino, DEADLINE_S)
    except sqlite3.Error:
        return "EIO"
