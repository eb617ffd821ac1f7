"""``contrib/bench/journal``: ``grep -r`` over 300 cached files with and without the journal.

Three mounts of the same account: neither journal nor crawlers, crawlers only (the default), and the
journal too. They are measured in turns, in an order that changes, and a ratio is of one turn. The
files are in phonofs' cache; in half of the rows the kernel has their pages as well, so that an open
is nearly all that is left of reading a file. On a busy machine the ratios of CPU time (phonofs'
own) say more than those of the clock.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from phonobench.peers import OURS, PEERS, Mount, Site, mounted
from phonobench.processes import Failed, cpu_s, run
from phonobench.ratios import Spread
from phonobench.servers import origin
from phonobench.things import DAYS, MARK, Thing, folder_of, make, write

FILES = 300
SIZE = 50_000
PAIRS = 20
TARGET = 1.15
AFTER_S = 0.05
"""The kernel tells of closes a little later; they belong to the figure."""

Figure = tuple[float, float]
"""Seconds of the clock, and of phonofs' CPU time."""

NEITHER, CRAWLERS, JOURNAL = "neither", "crawlers", "journal"
DISK, PAGES = "from the cache on disk", "with the kernel's pages"


def main() -> int:
    """Measure and print; 0 if the target is reached, 1 if it is not, or if a measure failed."""
    parser = argparse.ArgumentParser(prog="contrib/bench/journal", description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"turns; {PAIRS} by default")
    parser.add_argument("--sync", default="1s", help="journal_sync; 1s by default")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="phonobench-") as work:
            took = measure(Path(work), given.pairs, given.sync)
    except Failed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return show(took, given.pairs, given.sync)


def measure(work: Path, pairs: int, sync: str) -> dict[tuple[str, str], list[Figure]]:
    """Return the seconds of each turn, by row and mount."""
    root, things = work / "origin", [make(n, DAYS["small"], n, FILES, SIZE) for n in range(FILES)]
    plan = write(root, things)
    took: dict[tuple[str, str], list[Figure]] = defaultdict(list)
    with ExitStack() as stack:
        server = stack.enter_context(origin(root, plan, work))
        site = Site.webdav(server.url)
        mounts = {
            name: _mount(stack, site, work / name, sync) for name in (NEITHER, CRAWLERS, JOURNAL)
        }
        for mount in mounts.values():
            _grep(mount)
        for turn in range(pairs):
            names = list(mounts) if turn % 2 else list(mounts)[::-1]
            for row in (DISK, PAGES):
                for name in names:
                    if row == DISK:
                        _drop_pages(mounts[name], plan)
                    took[row, name].append(_grep(mounts[name]))
    return took


def _mount(stack: ExitStack, site: Site, work: Path, sync: str) -> Mount:
    work.mkdir(mode=0o700)
    env = {"PHONOFS_CRAWLERS": ""} if work.name == NEITHER else {}
    if work.name == JOURNAL:
        env |= {"PHONOFS_JOURNAL": str(work / "journal"), "PHONOFS_JOURNAL_SYNC": sync}
    return stack.enter_context(mounted(PEERS[OURS], site, work / "cache", work, env))


def _grep(mount: Mount) -> Figure:
    folder = mount.folder(folder_of("small"))
    before = cpu_s(mount.process.pid)
    clock_s = run(["grep", "-rc", MARK.decode(), folder])
    time.sleep(AFTER_S)
    return clock_s, cpu_s(mount.process.pid) - before


def _drop_pages(mount: Mount, things: Sequence[Thing]) -> None:
    folder = mount.folder(folder_of("small"))
    for name in os.listdir(folder):
        descriptor = os.open(f"{folder}/{name}", os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def show(took: dict[tuple[str, str], list[Figure]], pairs: int, sync: str) -> int:
    """Print a table; return 0 if the journal costs no more than the target, by the clock."""
    print(
        f"grep -r over {FILES} cached files of {SIZE // 1000} KB, {pairs} turns, "
        f"journal_sync={sync}; ratios of the clock: least, median, most; and of CPU time"
    )
    missed = 0
    for row in (DISK, PAGES):
        for name, base in ((CRAWLERS, NEITHER), (JOURNAL, CRAWLERS), (JOURNAL, NEITHER)):
            ours, theirs = took[row, name], took[row, base]
            spread = Spread.of([us[0] / them[0] for us, them in zip(ours, theirs, strict=True)])
            cpu = sum(each[1] for each in ours) / max(0.01, sum(each[1] for each in theirs))
            clock_ms = Spread.of([each[0] for each in ours]).median * 1e3
            missed += name == JOURNAL and base == CRAWLERS and spread.median > TARGET
            print(
                f"{row:24} {name:>8} / {base:8} {spread.least:5.2f} {spread.median:5.2f} "
                f"{spread.most:5.2f}   {cpu:5.2f}   {clock_ms:5.0f} ms"
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
