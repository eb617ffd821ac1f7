"""The tasks: each is one round over all peers, in turns, step by step."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from statistics import median

from phonobench.bench import CLIENT, LATENCY_S, LIMIT, PLAIN, RAW, Bench
from phonobench.peers import BEFORE, OURS, Mount, Site
from phonobench.processes import Failed, fetch, read, run
from phonobench.table import BIG, SLOW_STARTS
from phonobench.things import MARK, MIB, SPANS, Thing, folder_of

FIO_S = 2
IDLE_S = 2.0
"""Between ``ls`` and ``ls -l``: longer than rclone's default attribute timeout of 1 s."""


def _speed(found: dict[str, float]) -> float:
    """MB/s (10^6)."""
    return found["bytes"] / found["s"] / 1e6


def _raw(bench: Bench, row: str, url: str, thing: Thing) -> None:
    found = read("raw", f"{url}/storage/us-east/v3/objects/{thing.id}/content")
    bench.figures.add(row, RAW, _speed(found))


def _client(bench: Bench, row: str, site: Site, things: Sequence[Thing]) -> None:
    """The same by the bare client; a row in seconds is of one thing, others are a speed."""
    found = fetch(*(f"{site.api}/storage/us-east/v3/objects/{each.id}/content" for each in things))
    bench.figures.add(row, CLIENT, _speed(found) if len(things) > 1 else found["s"])


def _sequential(bench: Bench, row: str, mounts: Sequence[Mount], thing: Thing) -> None:
    for mount in mounts:
        path = mount.file(thing)
        with bench.cpu(row, mount):
            found = read("sequential", path)
        bench.add(row, mount, _speed(found))


def sequential(bench: Bench) -> None:
    """One large file: cold, again, after a remount, with the disk cold; random reads."""
    thing, site = bench.one("big"), bench.near()
    _raw(bench, "cold", site.api, thing)
    with bench.mounts(site, names=bench.usual(), remount=True) as mounts:
        _sequential(bench, "cold", mounts, thing)
        for mount in mounts:
            bench.verify(mount, [thing])
        _sequential(bench, "hot", mounts, thing)
        bench.figures.add("hot", PLAIN, _speed(read("sequential", str(bench.source(thing)))))
    for row, disk_cold in (("warm", False), ("disk", True)):
        with bench.mounts(
            site, names=bench.usual(), keep=True, keepers=True, disk_cold=disk_cold
        ) as mounts:
            _sequential(bench, row, mounts, thing)
    with bench.mounts(site, names=bench.usual(), keep=True, keepers=True) as mounts:
        for jobs in (1, 16):
            for mount in mounts:
                bench.add(f"fio{jobs}", mount, _fio(mount.file(thing), jobs))


def _fio(path: str, jobs: int) -> float:
    """Random reads of 4 KiB through the page cache, emptied before; a second."""
    command = [
        "fio", "--name=random", "--readonly", "--rw=randread", "--bs=4k", "--ioengine=psync",
        f"--filename={path.replace(':', chr(92) + ':')}", f"--numjobs={jobs}", "--invalidate=1",
        "--time_based", f"--runtime={FIO_S}", "--group_reporting", "--output-format=json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Failed(f"fio: {done.stderr.strip() or done.stdout[:200]}")
    figures = json.loads(done.stdout[done.stdout.index("{") :])
    return float(figures["jobs"][0]["read"]["iops"])


def limited(bench: Bench) -> None:
    """A file whose every connection is slow: only parallel ranges help."""
    thing, site = bench.one("limited"), bench.far(LIMIT)
    if not bench.round:
        _raw(bench, "limited", site.api, thing)
    with bench.mounts(site) as mounts:
        _sequential(bench, "limited", mounts, thing)


def seeks(bench: Bench) -> None:
    """The start of a film, its end, then here and there."""
    film, door, site = bench.one("film"), bench.one("door"), bench.far()
    with bench.mounts(site, names=bench.usual()) as mounts:
        for mount in mounts:
            found = read("seeks", mount.file(film), mount.file(door))
            bench.add("first", mount, found["first_s"] / LATENCY_S)
            bench.add("last", mount, found["last_s"] / LATENCY_S)
            bench.add("random", mount, median(found["random_s"]) / LATENCY_S)
            bench.add("worst", mount, max(found["random_s"]) / LATENCY_S)


def small(bench: Bench) -> None:
    """Many small files in one folder, straight after the mount."""
    things, names = bench.group("small"), _slow_names(bench)
    for row in ("grep", "cat", "cp") if bench.long else ("grep",):
        with bench.mounts(bench.far(), names=names, remount=row == "grep") as mounts:
            for mount in mounts:
                with bench.cpu(row, mount):
                    took_s = run(_tool(bench, row, mount))
                bench.add(row, mount, took_s)
            for mount in mounts if row == "grep" else ():
                bench.verify(mount, things)
                mount.read_s = time.monotonic()
        if row == "grep":
            with bench.mounts(bench.far(), names=names, keep=True, keepers=True) as mounts:
                for mount in mounts:
                    with bench.cpu("again", mount):
                        took_s = run(_tool(bench, row, mount))
                    bench.add("again", mount, took_s)


def _tool(bench: Bench, row: str, mount: Mount) -> list[str]:
    """The command over the small files of this mount."""
    folder, target = mount.folder(folder_of("small")), bench.work / "copy"
    shutil.rmtree(target, ignore_errors=True)
    os.sync()  # the disk would still be at it while the command writes
    return {
        "grep": ["grep", "-rc", MARK.decode(), folder],
        "cat": ["sh", "-c", 'exec cat "$0"/* >/dev/null', folder],
        "cp": ["cp", "-r", folder, str(target)],
    }[row]


def _slow_names(bench: Bench) -> list[str]:
    """In the short run, from the second round on, rclone's better mode only: it takes long."""
    usual, figures = bench.usual(), bench.figures.rows["grep"]
    if bench.long or not bench.round:
        return usual
    rclones = [name for name in usual if name not in (OURS, BEFORE)]
    best = min(rclones, key=lambda name: figures[name][0], default=OURS)
    return [name for name in usual if name in (OURS, BEFORE, best)]


def listing(bench: Bench) -> None:
    """10,000 names, then with all their attributes."""
    folder, site = folder_of("many"), bench.local()
    with bench.mounts(site) as mounts:
        for row, command in (("ls", ["ls"]), ("ls-l", ["ls", "-l"])):
            for mount in mounts:
                with bench.cpu(row, mount):
                    took_s = run([*command, mount.folder(folder)])
                bench.add(row, mount, took_s)
            time.sleep(IDLE_S)


def parallel(bench: Bench) -> None:
    """8 readers at once, of 8 files, then of one."""
    things = bench.group("eight")
    for row, key, chosen in (("eight", "8", things), ("one", "1", things[:1] * 8)):
        with bench.mounts(bench.far(), names=bench.usual()) as mounts:
            for mount in mounts:
                _parallel(bench, mount, row, key, chosen)
        if row == "eight":
            _client(bench, row, bench.far(), chosen)


def latency(bench: Bench) -> None:
    """Files of all sizes over lines of several kinds; many readers at once."""
    for latency_s in (0.0, 0.05, 0.15):
        _spans(bench, f"at{latency_s * 1000:.0f}", bench.far(latency_s=latency_s))
    for window in SLOW_STARTS:
        _spans(bench, f"slow{window}", bench.far(window=window * MIB))
    things, far = bench.group("crowd"), bench.far()
    with bench.mounts(far, names=bench.usual()) as mounts:
        for mount in mounts:
            _warm(bench, mount)
            found = read("parallel", *(mount.file(thing) for thing in things))
            bench.add("crowd", mount, _speed(found))
            bench.figures.add("worst32", mount.peer.name, found["worst"])
    _client(bench, "crowd", far, things)


def _spans(bench: Bench, line: str, site: Site) -> None:
    """Each size once, cold. ``at0`` comes first: the others are compared with it."""
    rows, slow = bench.figures.rows, line.startswith("slow")
    with bench.mounts(site, names=bench.usual()) as mounts:
        for mount in mounts:
            _warm(bench, mount)
        for size in (*SPANS, BIG):
            thing = bench.one("big" if size == BIG else f"span{size}")
            for mount in () if slow and size == BIG else mounts:
                name, key = mount.peer.name, f"{line}-{size}"
                found = read("known", mount.file(thing))
                bench.add(key, mount, _speed(found) if slow else found["s"])
                if line in ("at50", "at150"):
                    least_s = 1.3 * rows[f"at0-{size}"][name][bench.round] + 0.01
                    trips = (found["s"] - least_s) / (int(line[2:]) / 1000)
                    bench.figures.add(f"trips{line[2:]}-{size}", name, max(0.001, trips))
            if not slow and size < BIG:
                _client(bench, f"{line}-{size}", site, [thing])


def _warm(bench: Bench, mount: Mount) -> None:
    """Read one small file, so that the way to the service is known."""
    read("known", mount.file(bench.one("door")))


def _parallel(bench: Bench, mount: Mount, row: str, key: str, things: Sequence[Thing]) -> None:
    bench.far()  # counters at zero
    paths = [mount.file(thing) for thing in things]
    found = read("parallel", *paths)
    bench.add(row, mount, _speed(found))
    bench.figures.add(f"share{key}", mount.peer.name, found["least_share"])
    sent = sum(bench.origin.stats()["sent"].values())
    bench.figures.add(f"sent{key}", mount.peer.name, sent / sum(t.size for t in set(things)))


TASKS: dict[str, Callable[[Bench], None]] = {
    "sequential": sequential,
    "limited": limited,
    "seeks": seeks,
    "small": small,
    "listing": listing,
    "parallel": parallel,
    "latency": latency,
}
