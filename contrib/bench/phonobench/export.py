"""``contrib/bench/export``: what an export costs, beside what people copy with today.

    cold    ``phonofs export`` and ``rsync -a`` of the same month at 50 ms, each through a new mount
    cached  ``phonofs export``, and ``cp -r``, ``sync`` and ``sha256sum`` of the copy, through one
            mount that has everything in its cache

In turns, and the one that is first changes with each round: a figure is divided by that of the same
round only. A ratio is how many times faster the export is.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from phonobench.peers import OURS, PEERS, Site, mounted
from phonobench.processes import Failed, run
from phonobench.ratios import Spread, ratios
from phonobench.servers import Origin, origin
from phonobench.things import Thing, make, write

DAYS = 20
LATENCY_S = 0.05
COPY = 'cp -r "$0" "$1" && sync && find "$1" -type f -print0 | xargs -0 sha256sum'


def month(files: int, size: int) -> list[Thing]:
    """So many files on the days of a month."""
    per_day = -(-files // DAYS)
    return [
        make(number + 1, number // per_day, number % per_day, per_day, size)
        for number in range(files)
    ]


def export(point: Path, work: Path, into: Path) -> float:
    """Export everything of a mount; the seconds it took."""
    command = [sys.executable, "-m", "phonofs.cli", "export", str(into), "--mount", str(point)]
    began = time.perf_counter()
    env = {**os.environ, "XDG_RUNTIME_DIR": str(work)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"phonofs export: {done.stderr.strip()}")
    return time.perf_counter() - began


def timed(
    tools: Mapping[str, Callable[[Path], float]], round_: int, into: Path
) -> dict[str, float]:
    """The seconds of each tool, each into a new folder; in turns.

    The copies stay until the end: ext4 takes up to a millisecond for a new file, three times as
    long as the copy itself, if a thousand others have just been removed.
    """
    figures = {}
    for name in sorted(tools, reverse=round_ % 2 == 1):
        figures[name] = tools[name](Path(f"{into}-{name}-{round_}"))
        os.sync()
    return figures


def cold(server: Origin, work: Path, round_: int) -> dict[str, float]:
    """A month of which nothing is known, each tool through a new mount."""
    server.set(LATENCY_S)

    def through_a_new_mount(copy: Callable[[Path, Path], float], into: Path) -> float:
        cache = work / "cold"
        try:
            with mounted(PEERS[OURS], Site.webdav(server.url), cache, work) as mount:
                return copy(mount.point, into)
        finally:
            shutil.rmtree(cache)

    tools = {
        "export": lambda point, into: export(point, work, into),
        "rsync": lambda point, into: run(["rsync", "-a", f"{point}/", str(into)]),
    }
    new = {name: partial(through_a_new_mount, copy) for name, copy in tools.items()}
    return timed(new, round_, work / "cold-copy")


def cached(point: Path, work: Path, round_: int) -> dict[str, float]:
    """The same month again and again, through a mount that has it all."""
    tools: dict[str, Callable[[Path], float]] = {
        "export": lambda into: export(point, work, into),
        "cp": lambda into: run(["sh", "-c", COPY, str(point), str(into)]),
    }
    return timed(tools, round_, work / "copy")


def show(title: str, rounds: Sequence[Mapping[str, float]], other: str) -> None:
    """Print the seconds of both, and the ratio within the rounds."""
    ours, theirs = ([each[name] for each in rounds] for name in ("export", other))
    of = Spread.of(ratios(ours, theirs, faster_is_more=False))
    times = f"export {Spread.of(ours).median:.2f} s, {other} {Spread.of(theirs).median:.2f} s"
    print(f"{title}: {times}; {of.median:.2f} ({of.least:.2f}–{of.most:.2f}) times as fast")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="contrib/bench/export", description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--size", type=int, default=200_000, help="bytes of each file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, help="a folder on the disk to measure on")
    asked = parser.parse_args()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=asked.work)))
        plan = write(work / "origin", month(asked.files, asked.size))
        server = stack.enter_context(origin(work / "origin", plan, work))
        rounds = [cold(server, work, number) for number in range(asked.rounds)]
        show(f"{asked.files} files of {asked.size:,} bytes, cold, 50 ms", rounds, "rsync")
        server.set(0)
        site = Site.webdav(server.url)
        mount = stack.enter_context(mounted(PEERS[OURS], site, work / "cache", work))
        cached(mount.point, work, -1)  # fills the cache
        rounds = [cached(mount.point, work, number) for number in range(asked.rounds)]
        show("the same, cached", rounds, "cp")


if __name__ == "__main__":
    main()
