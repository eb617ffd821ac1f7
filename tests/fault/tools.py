"""Helpers for fault tests on real mounts: blocked readers, gauges, the kernel's counters."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.support.mounts import Mount

READERS = """
import json, os, sys, threading, time
plan = json.load(sys.stdin)
ends = [None] * len(plan)
def read(number, path, offset, size):
    begun = time.monotonic()
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            got = len(os.pread(fd, size, offset))
        finally:
            os.close(fd)
    except OSError as error:
        got = -error.errno
    ends[number] = [got, time.monotonic() - begun]
threading.stack_size(262144)
threads = [threading.Thread(target=read, args=(n, *one)) for n, one in enumerate(plan)]
[thread.start() for thread in threads]
print("begun", flush=True)
[thread.join() for thread in threads]
print(json.dumps(ends), flush=True)
"""


class Readers:
    """A process with a thread for each read; ``ends()`` gives each (bytes or -errno, seconds)."""

    def __init__(self, reads: Iterable[tuple[Path, int, int]]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", READERS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        plan = [(str(path), offset, size) for path, offset, size in reads]
        self.process.stdin.write(json.dumps(plan))
        self.process.stdin.close()
        assert self.process.stdout.readline() == "begun\n"

    def ends(self, within_s: float = 60) -> list[tuple[int, float]]:
        line = self.process.stdout.readline()
        self.process.wait(within_s)
        return [(got, took) for got, took in json.loads(line)]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)
        self.process.stdout.close()


@contextlib.contextmanager
def reading(reads: Iterable[tuple[Path, int, int]]) -> Iterator[Readers]:
    readers = Readers(reads)
    try:
        yield readers
    finally:
        readers.kill()


def status(mount: Mount) -> dict:
    """Read the gauges as a user does, through the mount."""
    return json.loads(os.getxattr(mount.point, "user.phonofs.status"))


def gauges(mount: Mount) -> dict[str, int]:
    """Return everything that must be zero when nothing is being read."""
    now = status(mount)
    slots = now["service"]["slots"]
    return {
        "open_files": now["fuse"]["open_files"],
        "waiting": now["fuse"]["waiting"],
        "waiters": now["reader"]["waiters"],
        "parts": now["reader"]["parts"],
        "ahead": now["reader"]["ahead"],
        "ahead_queued": now["reader"]["ahead_queued"],
        "slots": slots["in_use"],
        "slots_waiting": slots["waiting"],
    }


def quiet(mount: Mount) -> bool:
    return not any(gauges(mount).values())


class Kernel:
    """fusectl, mounted in a directory of the test: the kernel's view of a connection."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def connection(self, point: Path) -> Path:
        return self._folder / str(os.minor(os.stat(point).st_dev))

    @staticmethod
    def waiting(connection: Path) -> int:
        """Return the number of requests in flight; 0 if the connection is gone."""
        try:
            return int((connection / "waiting").read_text())
        except FileNotFoundError:
            return 0


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    if os.geteuid() != 0:
        pytest.skip("mounting fusectl needs root")
    folder = tmp_path / "fusectl"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "fusectl", "none", folder], capture_output=True)
    if done.returncode:
        pytest.skip(f"fusectl cannot be mounted: {done.stderr.decode().strip()}")
    try:
        yield Kernel(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def in_state(letter: str, pids: Iterable[int]) -> list[int]:
    """Return the processes with a thread in this state of proc(5), for example D."""
    found = []
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/stat"):
            with contextlib.suppress(OSError):
                if task.read_text().rpartition(")")[2].split()[0] == letter:
                    found.append(pid)
    return found


def needs(*programs: str) -> None:
    """Skip the test, with the reason, if a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def fds_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def rss_of(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
