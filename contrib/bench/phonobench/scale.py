"""``contrib/bench/scale``: a million objects.

Five parts, each alone with ``--only``:

    mount    a catalogue of a million objects over three years, made through the catalogue's own
             interface: mount to first ``ls``, a day of 10,000 warm, memory, what following costs
    lookup   what a lookup costs at 10,000, 100,000 and a million, as a small plot
    find     ``find`` over 100,000 files, beside rclone over the same number (WebDAV)
    listing  opening a day of 10,000 at 50 ms, beside asking page by page and beside a bare client
    search   ``phonofs find`` over an indexed year of 100,000 objects, beside ``phonofs --version``;
             ``phonofs index`` of it, beside ``find`` over the mount

With ``--before DIR`` all but ``lookup`` and ``search``, for this checkout and another one instead
of rclone.
"""

import argparse
import http.client
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

from phonobench import before, report
from phonobench.account import REGION, record
from phonobench.bare_listing import PAGE
from phonobench.bench import Figures
from phonobench.peers import OURS, PEERS, Mount, Peer, Site, mounted
from phonobench.processes import Failed, cpu_s, run
from phonobench.ratios import Spread, ratios
from phonobench.servers import Origin, many
from phonobench.table import SCALE
from phonobench.things import DAY_MS, FIRST_DAY_MS, Days, Thing, day_folder
from phonofs.catalogue.catalogue import Catalogue, Entry, TreeOptions
from phonofs.config.options import DEFAULT_TEMPLATE
from phonofs.service.records import parse_record

YEARS_DAYS = 1096
BUSY = 10_000
BATCH = 1000
LATENCY_S = 0.05
BARE = "bare client"
WATCHED_S = 10.0
YEAR_OBJECTS = 100_000
AGENTS = 100
NUMBERS = 50_000


def counts_of(total: int, busy: int = BUSY) -> list[int]:
    """``total`` objects over three years, ``busy`` of them on the first day."""
    rest, days = max(0, total - busy), YEARS_DAYS - 1
    return [min(busy, total), *(rest // days + (day < rest % days) for day in range(days))]


def fill(
    cache: Path, counts: Sequence[int], look: Callable[[Catalogue, int], None],
    make: Callable[[Thing], bytes] = record,
) -> float:  # fmt: skip
    """A catalogue that knows it all, in ``cache``; ``look`` at it after each tenth power. Seconds.

    Looking is not in the figure. ``make`` returns the record of an object.
    """
    cache.mkdir(mode=0o700, parents=True)
    things, began, looked_s = Days(counts), time.perf_counter(), 0.0
    catalogue = Catalogue.open(cache / "catalogue.sqlite", TreeOptions("UTC", DEFAULT_TEMPLATE))
    try:
        catalogue.set_regions([REGION])
        for start in range(0, len(things), BATCH):
            part = things[start : start + BATCH]
            catalogue.apply([parse_record(make(thing), REGION) for thing in part])
            done = start + len(part)
            if done in (10_000, 100_000) or done == len(things):
                paused = time.perf_counter()
                look(catalogue, done)
                looked_s += time.perf_counter() - paused
        newest_ms = things[len(things) - 1].created_ms
        catalogue.coverage.set_watermark(REGION, newest_ms)
        catalogue.coverage.mark_listed(REGION, 0, newest_ms)
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


def _days_known(catalogue: Catalogue, most: int) -> Sequence[Entry]:
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


def of_somebody(thing: Thing) -> bytes:
    """The record of a call of one of AGENTS agents, with one of NUMBERS numbers."""
    number = int(thing.id[:8], 16)
    agent, other = f"Agent Number{number % AGENTS}".encode(), f"{number % NUMBERS:05}".encode()
    return record(thing).replace(b"Alex Wilber", agent).replace(b"+16695555518", b"+166955" + other)


class Scale:
    """One run: its folder, and how it was asked for.

    ``pair`` are this checkout and another one: each round measures both, and they are compared at
    the end. Without them this one is measured, beside rclone in ``find``.
    """

    def __init__(self, work: Path, total: int, rounds: int, pair: Sequence[Peer]) -> None:
        self.figures = Figures()
        self._work = work
        self._total = total
        self._rounds = rounds
        self._pair = pair
        self._made: Path | None = None

    def _peers(self, number: int, *others: Peer) -> Sequence[Peer]:
        """Return what a round measures; of a pair, each is the first in every other round."""
        if self._pair:
            return self._pair[::-1] if number % 2 else self._pair
        return (PEERS[OURS], *others)

    def _say(self, text: str) -> None:
        """Print a result. Those of a pair are in the table at the end."""
        if not self._pair:
            print(text)

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
        with many(counts_of(self._total), self._work) as origin:
            site = Site.webdav(origin.url)
            caches = self._full_caches(site)
            for number in range(self._rounds):
                for peer in self._peers(number):
                    self._first_ls(peer, site, caches[peer.name])
            first_s = self.figures.rows["mount"][OURS]
            self._say(f"mount to first ls of the root: {_shown(first_s)} (target 1 s)")
            for number in range(self._rounds if self._pair else 1):
                for peer in self._peers(number):
                    with self._mount(peer, site, caches[peer.name]) as (mount, _):
                        self._busy_day(mount)
                        self._following(mount)
            origin.set(0)

    def _full_caches(self, site: Site) -> dict[str, Path]:
        """Caches that know all objects, by peer.

        The catalogue of another checkout can have another format, so those of a pair are filled
        by ``find`` through the mount.
        """
        if not self._pair:
            if self._made is None:
                self.lookup()
            assert self._made is not None
            return {OURS: self._made}
        caches = {peer.name: self._work / f"full-{peer.name}" for peer in self._pair}
        for peer in self._pair:
            with self._mount(peer, site, caches[peer.name]) as (mount, _):
                took_s = run(["find", str(mount.point), "-name", "x"])
                print(f"  {peer.name}: listed in {took_s:.0f} s", file=sys.stderr, flush=True)
        return caches

    def _first_ls(self, peer: Peer, site: Site, cache: Path) -> None:
        with self._mount(peer, site, cache) as (mount, began):
            run(["ls", str(mount.point)])
            self.figures.add("mount", peer.name, time.perf_counter() - began)

    def _busy_day(self, mount: Mount) -> None:
        folder, name = mount.folder(day_folder(FIRST_DAY_MS)), mount.peer.name
        run(["ls", folder])
        took = [run(["ls", "-l", folder]) for _ in range(5)]
        self.figures.add("ls-l", name, statistics.median(took))
        self._say(f"ls -l of a day of {BUSY:,}, warm: {_shown(took)} (target 0.3 s)")
        find_s = run(["find", str(mount.point), "-name", "x"])
        self.figures.add("find", name, find_s)
        self._say(f"find over all of it: {find_s:.1f} s")
        rss, peak = (mount.memory()[kind] / 2**20 for kind in ("rss", "peak"))
        self.figures.add("rss", name, rss)
        self.figures.add("peak", name, peak)
        self._say(f"memory after that: {rss:.0f} MiB, at most {peak:.0f} MiB (target 200 MiB)")

    def _following(self, mount: Mount) -> None:
        """What it costs to be there while nothing happens, asked once a second."""
        before_s = cpu_s(mount.process.pid)
        time.sleep(WATCHED_S)
        used_ms = (cpu_s(mount.process.pid) - before_s) / WATCHED_S * 1000
        self.figures.add("poll", mount.peer.name, used_ms)
        self._say(f"following, nothing changes: {used_ms:.1f} ms of CPU a poll")

    def find(self) -> None:
        """``find`` over 100,000 files in 100 days."""
        other = PEERS["rclone off"]
        with many([1000] * 100, self._work) as origin:
            site = Site.webdav(origin.url)
            for number in range(self._rounds):
                for peer in self._peers(number, other):
                    cache = self._work / f"find-{peer.name}-{number}".replace(" ", "-")
                    self._find(peer, site, cache, ("first", "again"))
                    self._find(peer, site, cache, ("remounted",))
        if self._pair:
            return
        for kind in ("first", "again", "remounted"):
            ours, theirs = (self.figures.rows[kind][name] for name in (OURS, other.name))
            times = Spread.of(ratios(ours, theirs, faster_is_more=False))
            print(
                f"find over 100,000 files, {kind}: {_shown(ours)}, rclone {_shown(theirs)}: "
                f"{times.median:.2f} × ({times.least:.2f}–{times.most:.2f}) (target 1 ×)"
            )

    def _find(self, peer: Peer, site: Site, cache: Path, kinds: Sequence[str]) -> None:
        with self._mount(peer, site, cache) as (mount, _):
            for kind in kinds:
                self.figures.add(kind, peer.name, run(["find", str(mount.point), "-name", "x"]))

    def listing(self) -> None:
        """Opening a day of 10,000 for the first time, far away."""
        pages = []
        with many([BUSY, 10], self._work) as origin:
            for number in range(self._rounds):
                origin.set(LATENCY_S)
                if not self._pair:
                    pages.append(page_by_page(origin.port))
                for row, told in (("listing", True), ("untold", False)):
                    origin.set(LATENCY_S, told=told)
                    self._list(row, number, origin)
        if self._pair:
            return
        opened, used = (self.figures.rows[row][OURS] for row in ("listing", "listing-cpu"))
        times = Spread.of(ratios(opened, pages, faster_is_more=False))
        print(f"ls of a day of {BUSY:,}, cold, 50 ms: {_shown(opened)} ({_shown(used)} of CPU), "
              f"page by page {_shown(pages)}: {times.median:.1f} × ({times.least:.1f}–"
              f"{times.most:.1f}) (target 6 ×)")  # fmt: skip
        for row, what in (("listing", "with"), ("untold", "without")):
            ours, bare = (self.figures.rows[row][name] for name in (OURS, BARE))
            longer = Spread.of([mine / least for mine, least in zip(ours, bare, strict=True)])
            print(f"{what} a total: {_shown(ours)}, a bare client {_shown(bare)}: "
                  f"{longer.median:.2f} × ({longer.least:.2f}–{longer.most:.2f}) "
                  "(target at most 1.2 ×)")  # fmt: skip

    def _list(self, row: str, number: int, origin: Origin) -> None:
        """The busy day, by each peer and, alone, by the bare client."""
        if not self._pair:
            self.figures.add(row, BARE, bare_client(origin.port))
        for peer in self._peers(number):
            cache = self._work / f"{row}-{peer.name}-{number}"
            with self._mount(peer, Site.webdav(origin.url), cache) as (mount, _):
                folder = mount.folder(day_folder(FIRST_DAY_MS))
                run(["ls", str(Path(folder).parent)])
                before_s = cpu_s(mount.process.pid)
                self.figures.add(row, mount.peer.name, run(["ls", folder]))
                used_s = cpu_s(mount.process.pid) - before_s
                self.figures.add(f"{row}-cpu", mount.peer.name, used_s)

    def search(self) -> None:
        """Searches by the command, and what it takes to make them possible."""
        counts = [YEAR_OBJECTS // 365] * 365
        counts[0] += YEAR_OBJECTS - sum(counts)
        self._searches(counts)
        with many(counts, self._work) as origin:
            site = Site.webdav(origin.url)
            for number in range(self._rounds):
                for kind in ("walk", "index") if number % 2 else ("index", "walk"):
                    cache = self._work / f"{kind}-{number}"
                    with self._mount(PEERS[OURS], site, cache) as (mount, _):
                        walk = ["find", str(mount.point), "-name", "x"]
                        command = walk if kind == "walk" else self._phonofs("index", mount.point)
                        self.figures.add(kind, OURS, run(command))
        walked, indexed = (self.figures.rows[kind][OURS] for kind in ("walk", "index"))
        times = Spread.of(ratios(walked, indexed, faster_is_more=True))
        print(f"index of {YEAR_OBJECTS:,} objects: {_shown(indexed)}, find over the mount "
              f"{_shown(walked)}: {1 / times.median:.2f} × ({1 / times.most:.2f}–"
              f"{1 / times.least:.2f}) (target 1.3 ×)")  # fmt: skip

    def _searches(self, counts: Sequence[int]) -> None:
        """``phonofs find`` over a mount that knows it all."""
        cache = self._work / "indexed"
        fill(cache, counts, lambda catalogue, done: None, of_somebody)
        day = day_folder(FIRST_DAY_MS + 100 * DAY_MS).rpartition("/")[2]
        asked = {
            "one call": ["--call", Days(counts)[YEAR_OBJECTS // 2].id],
            "a number": ["--number", "+16695500007"],
            "an agent": ["--agent", "Agent Number7"],
            "a day": ["--since", day, "--until", day],
        }
        with (
            many(counts, self._work) as origin,
            self._mount(PEERS[OURS], Site.webdav(origin.url), cache) as (mount, _),
        ):
            run(self._phonofs("index", mount.point))
            commands = {what: self._phonofs("find", "--offline", "--mount", mount.point, *words)
                        for what, words in asked.items()}  # fmt: skip
            commands["version"] = self._phonofs("--version")
            for number in range(self._rounds + 1):
                for what, command in commands.items():
                    took_s = run(command)
                    if number:  # the first time Python compiles the modules
                        self.figures.add(what, OURS, took_s)
        version = self.figures.rows["version"][OURS]
        for what in asked:
            took = self.figures.rows[what][OURS]
            more = Spread.of([each - base for each, base in zip(took, version, strict=True)])
            print(f"phonofs find of {what} among {YEAR_OBJECTS:,}: {_shown(took)}, more than "
                  f"--version by {more.median:.2f} s ({more.least:.2f}–{more.most:.2f}) "
                  "(target 0.3 s)")  # fmt: skip

    def _phonofs(self, *words: str | Path) -> list[str]:
        """A command of this checkout, with compiled modules, as pip leaves them."""
        compiled = f"PYTHONPYCACHEPREFIX={self._work / 'commands'}"
        return ["env", "PYTHONDONTWRITEBYTECODE=", compiled, f"XDG_RUNTIME_DIR={self._work}",
                sys.executable, "-m", "phonofs.cli", *map(str, words)]  # fmt: skip

    @contextmanager
    def _mount(self, peer: Peer, site: Site, cache: Path) -> Iterator[tuple[Mount, float]]:
        began = time.perf_counter()
        with mounted(peer, site, cache, self._work, {"PHONOFS_POLL_INTERVAL": "1s"}) as mount:
            yield mount, began


def bare_client(port: int) -> float:
    """All pages of the busy day by ``phonobench.bare_listing``, in a process of its own."""
    pages = -(-BUSY // PAGE)
    command = [sys.executable, "-m", "phonobench.bare_listing", str(port), str(pages)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


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


PARTS = ("lookup", "mount", "find", "listing", "search")
ALONE = ("lookup", "search")
"""The parts that are not compared with another checkout."""


def main() -> int:
    """0 done; 1 a measure failed, or a row is slower than before; 2 wrong usage; 130 stopped."""
    parser = argparse.ArgumentParser(
        prog="contrib/bench/scale", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=0,
                        help=f"instead of 3, or {before.ROUNDS} with --before")  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART",
                        help="the parts above: all by default")  # fmt: skip
    given = before.parse(parser)
    alone = [part for part in ALONE if part in (given.only or ())]
    if given.before and alone:
        parser.exit(2, f"{parser.prog}: {alone[0]} cannot be compared with another checkout.\n")
    only = given.only or [part for part in PARTS if part not in ALONE or not given.before]
    rounds = given.rounds or (before.ROUNDS if given.before else 3)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phonobench-")))
            pair = before.pair(given.before, work) if given.before else []
            scale = Scale(work, given.objects, rounds, pair)
            for part in (part for part in PARTS if part in only):
                getattr(scale, part)()
    except Failed as error:
        print(f"scale: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    compared = report.compare(SCALE, scale.figures.rows, {})
    if compared:
        print(report.text(compared, report.BEFORE_HEAD))
    worse = report.worse(compared)
    if worse:
        print(f"scale: worse than before: {worse}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
