"""Faults of the process and of the mount: killed, stopped, out of descriptors, aborted."""

import errno
import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from phonofs.fakeservice.account import flat_item
from phonofs.fakeservice.options import Options
from tests.fault.scene import fast, living, outcome, thinned
from tests.fault.tools import fds_of, needs, quiet, reading, status
from tests.fault.worker import OPTIONS
from tests.support.accounts import NOON_MS, content_of, flat
from tests.support.mounts import (
    START_S,
    Mount,
    files,
    is_followed,
    mounted,
    standing,
    status_of,
    until,
)
from tests.support.timing import Stopwatch

SIZES = [1, 4095, 200_000, 700_000, 1_300_000, (5 << 19) + 3] * 2


@pytest.mark.expected_log
@pytest.mark.parametrize("part", thinned(range(4), 4))
def test_killed_at_random_points_nothing_false_is_served(tmp_path, part, request):
    """kill -9 while filling, evicting and listing, again and again over one cache; 200 times."""
    rounds = 50 if request.config.getoption("--long") else 4
    chance = random.Random(rounds + part)
    with standing(flat(*SIZES)) as stand_in:
        at_stake = 0
        for number in range(rounds):
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.fault.worker", stand_in.url, tmp_path, str(number)],
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": "src:."},
            )
            try:
                if number % 3:  # else it is killed while it starts and lists
                    assert worker.stdout.readline() == b"begun\n"
                with_luck_s = chance.random() * (0.4 if number % 3 else 0.6)
                assert ended(worker, with_luck_s) is None, "it found a wrong byte"
            finally:
                worker.kill()
                worker.wait(60)
                worker.stdout.close()
            held = (tmp_path / "cache/content").glob("??/*")
            at_stake += sum(path.stat().st_blocks for path in held)
            if number % 3 == 2:
                check(stand_in, tmp_path)
        assert at_stake > 0
        check(stand_in, tmp_path)


def ended(process, within_s):
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        return None


def check(stand_in, folder):
    @fast
    async def run():
        options = {**OPTIONS, "cache_size": "1G"}
        async with living(stand_in.service, folder, **options) as scene:
            tree = await scene.tree()
            assert len(tree) == len(SIZES)
            for ino in tree.values():
                assert await outcome(scene, ino, 10.0) == "right"

    run()


@pytest.mark.fuse
def test_stopped_and_continued(tmp_path):
    """SIGSTOP in the middle of reads, as a suspended laptop: nothing is lost or false after."""
    with (
        standing(flat(*[2 << 20] * 6), Options(bytes_per_s=4 << 20, token_life_s=2)) as stand_in,
        mounted(stand_in.url, tmp_path, timeout="2s") as mount,
    ):
        paths = files(mount.point)
        with ThreadPoolExecutor(6) as pool:
            contents = [pool.submit(path.read_bytes) for path in paths]
            until(lambda: stand_in.service.counters.bytes > 1 << 20)
            mount.process.send_signal(signal.SIGSTOP)
            assert ended(mount.process, 2.5) is None  # tokens die and connections idle meanwhile
            mount.process.send_signal(signal.SIGCONT)
            for number, content in enumerate(contents):
                assert content.result(60) == content_of(stand_in.service, f"{number:08d}")
        until(lambda: quiet(mount))
        assert "Traceback" not in mount.log_text()


@pytest.mark.fuse
def test_out_of_descriptors(tmp_path):
    """With 40 descriptors, 60 readers: right or an error; afterwards all is well again."""
    sizes = [300_000] * 60
    with (
        standing(flat(*sizes)) as stand_in,
        mounted(stand_in.url, tmp_path, read_deadline="2s") as mount,
    ):
        paths = files(mount.point)
        pid = mount.process.pid
        needs("prlimit")
        few = fds_of(pid) + 6
        subprocess.run(["prlimit", "--pid", str(pid), f"--nofile={few}:4096"], check=True)
        with reading((path, 0, 300_000) for path in paths) as readers:
            ends = [got for got, _ in readers.ends()]
        assert {got for got in ends if got < 0} <= {-errno.EIO}
        assert fds_of(pid) <= few
        assert len(os.listdir(paths[0].parent)) == 60
        subprocess.run(["prlimit", "--pid", str(pid), "--nofile=1024:4096"], check=True)
        for number, path in enumerate(paths):
            until(lambda path=path: _read(path) is not None)
            assert _read(path) == content_of(stand_in.service, f"{number:08d}")
        until(lambda: quiet(mount))
        assert mount.stop() == 0
        assert mount.log_text().count("no memory for content") <= 1


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return None


STUCK = """
import sys, time
from pathlib import Path
from phonofs.cli import main
from phonofs.fuse.operations import Operations

asked = Path(sys.argv.pop(1))

async def never(*arguments):
    asked.touch()
    time.sleep(3600)

for name in ("getattr", "lookup", "opendir", "statfs"):
    setattr(Operations, name, never)
main()
"""
"""A mount whose loop hangs in its first request, of which it tells by a file."""


@pytest.mark.promise("crash-is-not-deletion")
@pytest.mark.fuse
@pytest.mark.parametrize("watched", [False, True])
def test_killed_in_the_middle_of_an_answer(tmp_path, watched):
    """Whoever waits for it gets an error, and the process ends: no thread of it waits, too.

    A thread that waits for an answer of its own process cannot be killed, and keeps the mount.
    """
    asked = tmp_path / "asked"
    with standing(flat(1000)) as stand_in:
        mount = Mount(stand_in.url, tmp_path / "m", tmp_path / "cache")
        mount.program = ("-c", STUCK, str(asked))
        if watched:
            mount.environment |= {"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "600000000"}
        try:
            mount.start(wait=False)
            until(lambda: asked.exists() or "mounted on" in mount.log_text())
            other = subprocess.Popen(["stat", mount.point], stderr=subprocess.DEVNULL)
            until(asked.exists)
            assert mount.stop(signal.SIGKILL) == -signal.SIGKILL
            assert other.wait(START_S) != 0
        finally:
            subprocess.run(["umount", "-f", mount.point], stderr=subprocess.DEVNULL)
            mount.clean_up()


@pytest.mark.promise("crash-is-not-deletion")
@pytest.mark.fuse
def test_killed_while_a_change_is_to_be_told_in_a_directory_where_a_lookup_waits(tmp_path):
    """The kernel has the directory locked until the lookup is answered, which it never is."""
    account = flat(1000)
    with standing(account) as stand_in:
        mount = Mount(
            stand_in.url, tmp_path / "m", tmp_path / "cache",
            poll_interval="0.2s", read_deadline="10m", timeout="10m",
        )  # fmt: skip
        try:
            mount.start()
            until(lambda: is_followed(status_of(mount)))
            [month] = mount.point.glob("*/*")
            [day] = os.listdir(month)
            stalled = stand_in.faults({"kind": "search", "fail": "stall", "count": 1})
            other = subprocess.Popen(["stat", month / day / "none"], stderr=subprocess.DEVNULL)
            until(lambda: stalled.fired)
            known = status_of(mount)["catalogue"]["objects"]
            news = flat_item("0000ffff", 5, NOON_MS, updated_ms=stand_in.service.now_ms())
            account.put(news)
            until(lambda: status_of(mount)["catalogue"]["objects"] > known)
            assert mount.stop(signal.SIGKILL) == -signal.SIGKILL
            assert other.wait(START_S) != 0
        finally:
            subprocess.run(["umount", "-f", mount.point], stderr=subprocess.DEVNULL)
            mount.clean_up()


@pytest.mark.fuse
def test_unmounted_from_outside(tmp_path):
    """fusermount3 -u: the process ends with 0 and leaves nothing."""
    needs("fusermount3")
    with standing(flat(1000)) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        (path,) = files(mount.point)
        assert len(path.read_bytes()) == 1000
        with path.open("rb"):
            busy = subprocess.run(["fusermount3", "-u", mount.point], capture_output=True)
            assert busy.returncode != 0
            assert len(path.read_bytes()) == 1000
        until(lambda: status(mount)["fuse"]["open_files"] == 0)
        subprocess.run(["fusermount3", "-u", mount.point], check=True)
        assert mount.process.wait(60) == 0
        mount.process = None
        assert "Traceback" not in mount.log_text()


@pytest.mark.fuse
def test_aborted_through_fusectl(tmp_path, kernel):
    """The connection is aborted while reads wait: they end, it says so, umount mends it."""
    with standing(flat(3 << 20)) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        (path,) = files(mount.point)
        connection = kernel.connection(mount.point)
        faults = stand_in.faults({"kind": "content", "fail": "stall", "name": "stalled"})
        with reading([(path, 0, 1000)] * 5) as readers:
            until(lambda: faults.fired["stalled"] > 0)
            watch = Stopwatch()
            (connection / "abort").write_text("1")
            ends = readers.ends()
            assert {got for got, _ in ends} <= {-errno.ECONNABORTED, -errno.ENOTCONN, -errno.EIO}
            assert mount.process.wait(60) == 32
            mount.process = None
            assert watch.within(5)
        with pytest.raises(OSError, match="not connected"):
            os.listdir(mount.point)
        assert "aborted" in mount.log_text()
        assert "Traceback" not in mount.log_text()
        command = [sys.executable, "-m", "phonofs.cli", "umount", str(mount.point)]
        subprocess.run(command, env=mount.environment, check=True)
        assert not os.path.ismount(mount.point)
        stand_in.faults()
        mount.start()
        assert path.read_bytes() == content_of(stand_in.service, "00000000")
