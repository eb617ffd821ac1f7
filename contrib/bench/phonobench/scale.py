"""``contrib/bench/scale``: a million objects.

Four parts, each alone with ``--only``:

    mount    a catalogue of a million objects over three years, made through the catalogue's own
             interface: mount to first ``ls``, a day of 10,000 warm, memory, what following costs
    lookup   what a lookup costs at 10,000, 100,000 and a million, as a small plot
    find     ``find`` over 100,000 files, beside rclone over the same number (WebDAV)
    listing  opening a day of 10,000 at 50 ms, beside asking page by page
"""

import argparse
import http.client
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import quote

from phonobench.account import REGION, record
from phonobench.peers import OURS, PEERS, Mount, Site, mounted
from phonobench.processes import Failed, cpu_s, run
from phonobench.ratios import Spread, ratios
from phonobench.servers import Origin, many
from phonobench.things import DAY_MS, FIRST_DAY_MS, Days, day_folder
from phonofs.catalogue.catalogue import Catalogue, Entry
from phonofs.config.options import DEFAULT_TEMPLATE
from phonofs.service.records import parse_record

YEARS_DAYS = 1096
BUSY = 10_000
BATCH = 1000
LATENCY_S = 0.05
WATCHED_S = 10.0


@dataclass(frozen=True, slots=True)
class Shown:
    """The settings that a catalogue is opened with; those of the mounts here."""

    timezone: str = "UTC"
    name_template: str = DEFAULT_TEMPLATE
    types: tuple[str, ...] = ()
    since: date | None = None
    archived: bool = True


def counts_of(total: int, busy: int = BUSY) -> list[int]:
    """``total`` objects over three years, ``busy`` of them on the first day."""
    rest, days = max(0, total - busy), YEARS_DAYS - 1
    return [min(busy, total), *(rest // days + (day < rest % days) for day in range(days))]


def fill(cache: Path, counts: Sequence[int], look: Callable[[Catalogue, int], None]) -> float:
    """A catalogue that knows it all, in ``cache``; ``look`` at it after each tenth power. Seconds.

    Looking is not in the figure.
    """
    cache.mkdir(mode=0o700, parents=True)
    things, began, looked_s = Days(counts), time.perf_counter(), 0.0
    catalogue = Catalogue.open(cache / "catalogue.sqlite", Shown())
    try:
        catalogue.set_regions([REGION])
        for start in range(0, len(things), BATCH):
            part = things[start : start + BATCH]
            catalogue.apply([parse_record(record(thing), REGION) for thing in part])
            done = start + len(part)
            if done in (10_000, 100_000) or done == len(things):
                paused = time.perf_counter()
                look(catalogue, done)
                looked_s += time.perf_counter() - paused
        newest_ms = things[len(things) - 1].created_ms
        catalogue.progress.set_watermark(REGION, newest_ms)
        catalogue.progress.mark_listed(REGION, 0, newest_ms)
    finally:
        catalogue.close()
    return time.perf_counter() - began - looked_s


def lookup_us(catalogue: Catalogue, counts: Sequence[int]) -> float:
    """The median of 2,000 lookups of names here and there, in µs."""
    inodes = [each.ino for each in _days_known(catalogue, 30)]
    names = [(ino, entry.name) for ino in inodes for entry in catalogue.children(ino)]
    chosen = random.Random(len(counts)).choices(names, k=2000)
    took = []
    for parent, name in chosen:
        began = time.perf_counter()
        catalogue.lookup(parent, name)
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1e6


def _days_known(catalogue: Catalogue, most: int) -> list[Entry]:
    """Some of the days, spread over all."""
    entries = catalogue.children(1)
    for _ in range(2):  # years to months to days
        entries = [below for above in entries for below in catalogue.children(above.ino)]
    return entries[:: max(1, len(entries) // most)]


def plot(points: Sequence[tuple[int, float]]) -> str:
    """Bars for the terminal."""
    most = max(value for _, value in points)
    return "\n".join(
        f"  {number:>9,}  {value:6.1f} µs  {'#' * round(40 * value / most)}"
        for number, value in points
    )


class Scale:
    """One run: its folder, and how it was asked for."""

    def __init__(self, work: Path, total: int, rounds: int) -> None:
        self._work = work
        self._total = total
        self._rounds = rounds
        self._made: Path | None = None

    def lookup(self) -> None:
        """The catalogue's own cost, with no mount in between."""
        points: list[tuple[int, float]] = []
        counts = counts_of(self._total)

        def look(catalogue: Catalogue, done: int) -> None:
            points.append((done, lookup_us(catalogue, counts)))
            print(f"  {done:,} objects: {points[-1][1]:.1f} µs", file=sys.stderr, flush=True)

        self._made = self._work / "million"
        took_s = fill(self._made, counts, look)
        print(f"taken in: {self._total:,} objects in {took_s:.0f} s, "
              f"{took_s / self._total * 1e6:.0f} µs each")  # fmt: skip
        print(f"a lookup in the catalogue, the median of 2,000:\n{plot(points)}")

    def mount(self) -> None:
        """A mount over the full catalogue."""
        if self._made is None:
            self.lookup()
        assert self._made is not None
        counts = counts_of(self._total)
        with many(counts, self._work) as origin:
            first_s = [self._first_ls(origin, self._made) for _ in range(self._rounds)]
            print(f"mount to first ls of the root: {_shown(first_s)} (target 1 s)")
            with self._mount(OURS, Site.webdav(origin.url), self._made) as (mount, _):
                self._busy_day(mount)
                self._following(mount)
            origin.set(0)

    def _first_ls(self, origin: Origin, cache: Path) -> float:
        with self._mount(OURS, Site.webdav(origin.url), cache) as (mount, began):
            run(["ls", str(mount.point)])
            return time.perf_counter() - began

    def _busy_day(self, mount: Mount) -> None:
        folder = mount.folder(day_folder(FIRST_DAY_MS))
        run(["ls", folder])
        took = [run(["ls", "-l", folder]) for _ in range(5)]
        print(f"ls -l of a day of {BUSY:,}, warm: {_shown(took)} (target 0.3 s)")
        print(f"find over all of it: {run(['find', str(mount.point), '-name', 'x']):.1f} s")
        memory = mount.memory()
        print(f"memory after that: {memory['rss'] / 2**20:.0f} MiB, at most "
              f"{memory['peak'] / 2**20:.0f} MiB (target 200 MiB)")  # fmt: skip

    def _following(self, mount: Mount) -> None:
        """What it costs to be there while nothing happens, asked once a second."""
        before_s = cpu_s(mount.process.pid)
        time.sleep(WATCHED_S)
        used_s = cpu_s(mount.process.pid) - before_s
        print(f"following, nothing changes: {used_s / WATCHED_S * 1000:.1f} ms of CPU a poll")

    def find(self) -> None:
        """``find`` over 100,000 files in 100 days."""
        figures: dict[str, dict[str, list[float]]] = {}
        with many([1000] * 100, self._work) as origin:
            site = Site.webdav(origin.url)
            for number in range(self._rounds):
                for name in (OURS, "rclone off"):
                    cache = self._work / f"find-{name}-{number}".replace(" ", "-")
                    kinds = figures.setdefault(name, {})
                    self._find(name, site, cache, kinds, ("first", "again"))
                    self._find(name, site, cache, kinds, ("remounted",))
        for kind in ("first", "again", "remounted"):
            ours, theirs = figures[OURS][kind], figures["rclone off"][kind]
            times = Spread.of(ratios(ours, theirs, faster_is_more=False))
            print(
                f"find over 100,000 files, {kind}: {_shown(ours)}, rclone {_shown(theirs)}: "
                f"{times.median:.2f} × ({times.least:.2f}–{times.most:.2f}) (target 1 ×)"
            )

    def _find(self, name: str, site: Site, cache: Path, figures: dict[str, list[float]],
              kinds: Sequence[str]) -> None:  # fmt: skip
        with self._mount(name, site, cache) as (mount, _):
            for kind in kinds:
                took_s = run(["find", str(mount.point), "-name", "x"])
                figures.setdefault(kind, []).append(took_s)
                print(f"  find {name} {kind}: {took_s:.2f} s", file=sys.stderr, flush=True)

    def listing(self) -> None:
        """Opening a day of 10,000 for the first time, far away."""
        folder = day_folder(FIRST_DAY_MS)
        pages, opened, used = [], [], []
        with many([BUSY, 10], self._work) as origin:
            for number in range(self._rounds):
                origin.set(LATENCY_S)
                pages.append(page_by_page(origin.port))
                cache = self._work / f"listing-{number}"
                with self._mount(OURS, Site.webdav(origin.url), cache) as (mount, _):
                    run(["ls", str(Path(mount.folder(folder)).parent)])
                    before_s = cpu_s(mount.process.pid)
                    opened.append(run(["ls", mount.folder(folder)]))
                    used.append(cpu_s(mount.process.pid) - before_s)
        times = Spread.of(ratios(opened, pages, faster_is_more=False))
        print(f"ls of a day of {BUSY:,}, cold, 50 ms: {_shown(opened)} ({_shown(used)} of CPU), "
              f"page by page {_shown(pages)}: {times.median:.1f} × ({times.least:.1f}–"
              f"{times.most:.1f}) (target 6 ×)")  # fmt: skip

    @contextmanager
    def _mount(self, name: str, site: Site, cache: Path) -> Iterator[tuple[Mount, float]]:
        began = time.perf_counter()
        with mounted(
            PEERS[name], site, cache, self._work, {"PHONOFS_POLL_INTERVAL": "1s"}
        ) as mount:
            yield mount, began


def page_by_page(port: int) -> float:
    """All pages of the busy day, one after the other over one connection; the answers dropped."""
    stop_ms = FIRST_DAY_MS + DAY_MS
    query = quote(f"createdTime=ge={FIRST_DAY_MS};createdTime=lt={stop_ms}")
    began, key, last = time.perf_counter(), 0, False
    connection = http.client.HTTPConnection("127.0.0.1", port)
    while not last:
        path = f"/storage/{REGION}/v3/objects?filter={query}&pageKey={key}&limit=100"
        connection.request("GET", path)
        page = json.loads(connection.getresponse().read())
        key, last = page["pageKey"], page["lastPage"]
    connection.close()
    return time.perf_counter() - began


def _shown(seconds: Sequence[float]) -> str:
    spread = Spread.of(seconds)
    return f"{spread.median:.2f} s ({spread.least:.2f}–{spread.most:.2f})"


PARTS = ("lookup", "mount", "find", "listing")


def main() -> int:
    """0 done; 1 a measure failed; 130 stopped."""
    parser = argparse.ArgumentParser(
        prog="contrib/bench/scale", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phonobench-")))
            scale = Scale(work, given.objects, given.rounds)
            for part in (part for part in PARTS if part in given.only):
                getattr(scale, part)()
    except Failed as error:
        print(f"scale: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
