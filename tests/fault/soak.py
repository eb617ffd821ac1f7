"""Load: many readers over many objects, a cache a tenth of their size, one request in twenty fails.

``contrib/bench/soak`` runs it for minutes, ``test_load.py`` for seconds. No wrong byte; the
descriptors, the memory and the gauges of the mount come out flat; the log can be read. Where
stress-ng is installed, it asks for the attributes of a day's files all the while.
"""

import argparse
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from phonofs.fakeservice.account import Account, flat_item
from tests.fault.storms import stats, storm
from tests.fault.tools import fds_of, gauges, quiet, rss_of, status
from tests.support.mounts import Mount, StandIn, files, mounted, standing, until

NOON_MS = 1_772_452_800_000  # 2026-03-02T12:00Z
PER_DAY = 500
DAY_MS = 86_400_000

READERS = """
import errno, json, os, random, sys, threading, time
plan = json.load(sys.stdin)
files, end = plan["files"], time.monotonic() + plan["seconds"]
ramp = bytes(range(251)) * (4 * 1024 * 1024 // 251 + 2)
counts = {"reads": 0, "bytes": 0, "wrong": 0, "errors": {}}
lock = threading.Lock()
def read(chance):
    path, size, phase = chance.choice(files)
    whole = chance.random() < 0.5
    start = 0 if whole else chance.randrange(size)
    length = size if whole else chance.randrange(1, 200000)
    want = min(length, size - start)
    fd = os.open(path, os.O_RDONLY)
    if chance.random() < 0.9:  # else the kernel soon has all, and the mount nothing to do
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        got = 0
        while got < want:
            data = os.pread(fd, min(1 << 18, want - got), start + got)
            first = (start + got + phase) % 251
            if not data or data != ramp[first:first + len(data)]:
                return got, False
            got += len(data)
        return got, True
    finally:
        os.close(fd)
def work(seed):
    chance = random.Random(seed)
    while time.monotonic() < end:
        try:
            got, right = read(chance)
        except OSError as error:
            with lock:
                name = errno.errorcode[error.errno]
                counts["errors"][name] = counts["errors"].get(name, 0) + 1
        else:
            with lock:
                counts["reads"] += 1
                counts["bytes"] += got
                counts["wrong"] += not right
threading.stack_size(262144)
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(plan["readers"])]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(json.dumps(counts), flush=True)
"""

RULES = [
    {"name": "503", "probability": 0.01, "fail": "status", "status": 503},
    {"name": "reset", "probability": 0.01, "kind": "content", "fail": "reset", "after": 3000},
    {"name": "cut", "probability": 0.01, "kind": "content", "fail": "cut", "after": 20_000},
    {"name": "stall", "probability": 0.01, "kind": "content", "fail": "stall", "after": 100},
    {"name": "short", "probability": 0.01, "kind": "content", "fail": "wrong_range", "by": 1},
]


KEPT = 24
"""Additional descriptors that are no leak: idle connections."""


@dataclass
class Outcome:
    """The readers' results, and samples of the process before, during and after the run."""

    readers: int = 0
    reads: int = 0
    bytes: int = 0
    wrong: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    descriptors: list[int] = field(default_factory=list)
    descriptors_before: int = 0
    descriptors_after: int = 0
    memory: list[int] = field(default_factory=list)
    fired: dict[str, int] = field(default_factory=dict)
    log_lines: int = 0
    stats: int | None = None
    left: dict[str, int] = field(default_factory=dict)

    def faults(self) -> list[str]:
        """Return a sentence for each thing that went wrong."""
        found = []
        if self.wrong:
            found.append(f"{self.wrong} reads gave wrong bytes")
        if not self.reads or self.errors.get("EIO", 0) > 0.02 * self.reads + 5:
            found.append(f"{self.reads} reads went well, and failed: {self.errors}")
        if any(self.left.values()):
            found.append(f"not back to zero: {self.left}")
        if grows(self.descriptors, self.readers):  # each reader may have a file open, or none
            found.append(f"descriptors grow: {self.descriptors}")
        if self.descriptors_after > self.descriptors_before + KEPT:
            found.append(f"descriptors left: {self.descriptors_after}")
        if grows(self.memory, 24 << 20):
            found.append(f"memory grows: {[size >> 20 for size in self.memory]} MiB")
        if self.stats == 0:
            found.append("nobody asked for attributes")
        if not any(self.fired.values()):
            found.append("no fault fired")
        return found


def grows(samples: list[int], slack: int) -> bool:
    """Whether the second half is above the first by more than ``slack``."""
    half = len(samples) // 2
    return half > 1 and max(samples[half:]) > max(samples[1:half] or [0]) + slack


def account(objects: int) -> Account:
    chance = random.Random(5)
    sizes = (chance.choice((900, 40_000, 120_000, 700_000, 2_000_000)) for _ in range(objects))
    return Account(
        flat_item(
            f"{number:08d}",
            size,
            NOON_MS - DAY_MS * (number // PER_DAY) + 60_000 * (number % PER_DAY),
        )
        for number, size in enumerate(sizes)
    )


def plan_of(mount: Mount, stand_in: StandIn, seconds: float, readers: int) -> str:
    """Return what the readers' process needs: path, size and first value of each ramp."""
    by_name = {item.id: item for item in stand_in.service.account}
    listed = []
    for path in files(mount.point):
        item = by_name[path.stem.rpartition("_")[2]]
        listed.append((str(path), item.content.size, item.content.phase))
    assert len(listed) == len(by_name)
    return json.dumps({"files": listed, "seconds": seconds, "readers": readers})


def soak(folder: Path, seconds: float, readers: int, objects: int) -> Outcome:
    """Mount, run the load, and unmount."""
    made = account(objects)
    size = sum(item.content.size for item in made)
    with (
        standing(made) as stand_in,
        mounted(
            stand_in.url, folder, cache_size=str(size // 10), timeout="2s", read_deadline="30s"
        ) as mount,
    ):
        plan = plan_of(mount, stand_in, seconds, readers)
        faults = stand_in.faults(*RULES)
        outcome = Outcome(readers, descriptors_before=fds_of(mount.process.pid))
        with beside(folder, files(mount.point)[0].parent, seconds) as running:
            counts = read_at_random(plan, mount, outcome, seconds)
            if running is not None:
                outcome.stats = running.operations().get("fstat", 0)
        for name, value in counts.items():
            setattr(outcome, name, value)
        outcome.fired = dict(faults.fired)
        stand_in.faults()
        end = time.monotonic() + 30
        until(lambda: quiet(mount) or time.monotonic() > end, within_s=40)
        outcome.left = gauges(mount)
        lingering = status(mount)["cache"]["open"]  # some time after their files were closed
        outcome.descriptors_after = fds_of(mount.process.pid) - 2 * lingering  # disk and memory
        outcome.log_lines = len(mount.log_text().splitlines())
        if "Traceback" in mount.log_text():
            outcome.left["tracebacks"] = mount.log_text().count("Traceback")
    return outcome


def beside(folder: Path, day: Path, seconds: float):
    """Run a storm of stat over a day's directory if stress-ng is installed."""
    if shutil.which("stress-ng") is None:
        return contextlib.nullcontext()
    temporary = folder / "temporary"
    temporary.mkdir()
    return storm(temporary, seconds, *stats(day, 2))


def read_at_random(plan: str, mount: Mount, outcome: Outcome, seconds: float) -> dict[str, object]:
    """Run the readers in a separate process; return their counts."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", READERS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        process.stdin.write(plan)
        process.stdin.close()
        watch(process, mount.process.pid, outcome, seconds)
        return json.loads(process.stdout.read())
    finally:
        process.kill()
        process.wait(60)
        process.stdout.close()


def watch(process: subprocess.Popen[str], pid: int, outcome: Outcome, seconds: float) -> None:
    """Take samples at intervals until the readers are done."""
    while True:
        try:
            process.wait(max(0.5, seconds / 20))
        except subprocess.TimeoutExpired:
            outcome.descriptors.append(fds_of(pid))
            outcome.memory.append(rss_of(pid))
        else:
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", default=10)
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--objects", type=int, default=5000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="phonofs-soak-") as folder:
        outcome = soak(Path(folder), 60 * given.minutes, given.readers, given.objects)
    for name, value in vars(outcome).items():
        print(f"{name}: {value}")
    for fault in outcome.faults():
        print(f"FAULT: {fault}")
    return 1 if outcome.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
