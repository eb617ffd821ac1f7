"""What all tasks share: the peers, the servers, the folders, and the figures of each round."""

import filecmp
import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from phonobench.peers import Mount, Peer, Site, mounted
from phonobench.processes import Failed, cpu_s, forget_pages, settled_cpu_s
from phonobench.servers import Origin
from phonobench.things import DAY_MS, DAYS, FIRST_DAY_MS, Thing

LATENCY_S = 0.05
LIMIT = 40_000_000
RAW = "raw socket"
PLAIN = "plain file"
CLIENT = "bare client"
"""See ``client.py``: what one process in Python can do."""


@dataclass(slots=True)
class Figures:
    """What was measured. Owns it: row, then who, then one number a round."""

    rows: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def add(self, row: str, who: str, number: float) -> None:
        """One figure of this round."""
        self.rows[row][who].append(number)
        print(f"  {row:8} {who:13} {number:10.3f}", file=sys.stderr, flush=True)

    def greatest(self, row: str, who: str, round: int, number: float) -> None:
        """Keep the greatest figure of each round."""
        kept = self.rows[row][who]
        kept[round:] = [max(number, *kept[round:], 0.0)]


@dataclass(slots=True)
class Bench:
    """One run. ``work`` is its folder, removed at the end; ``plan`` are the objects."""

    peers: Sequence[Peer]
    plan: Sequence[Thing]
    root: Path
    work: Path
    origin: Origin
    fast: str
    long: bool
    figures: Figures = field(default_factory=Figures)
    round: int = 0

    def group(self, name: str) -> list[Thing]:
        """The objects of one of ``DAYS``."""
        low = FIRST_DAY_MS + DAYS[name] * DAY_MS
        return [thing for thing in self.plan if low <= thing.created_ms < low + DAY_MS]

    def one(self, name: str) -> Thing:
        """The only object of a day."""
        (thing,) = self.group(name)
        return thing

    def source(self, thing: Thing) -> Path:
        """The bytes themselves."""
        return self.root / "tree" / thing.path

    def usual(self) -> list[str]:
        """The peers of most tasks: the tuned rclone takes part in all of them with ``--long``."""
        return [peer.name for peer in self.peers if self.long or not peer.tuned]

    def near(self) -> Site:
        """No latency: nginx for the bytes."""
        self.origin.set(0)
        return Site.index(self.fast)

    def local(self) -> Site:
        """No latency, listings through WebDAV."""
        self.origin.set(0)
        return Site.webdav(self.origin.url)

    def far(self, bytes_per_s: float = 0, *, latency_s: float = LATENCY_S, window: int = 0) -> Site:
        """50 ms away, unless said otherwise; connections that start slowly up to ``window``."""
        self.origin.set(latency_s, bytes_per_s, window)
        return Site.webdav(self.origin.url)

    @contextmanager
    def mounts(self, site: Site, *, names: Sequence[str] = (), keep: bool = False,
               keepers: bool = False, disk_cold: bool = False, remount: bool = False,
               ) -> Iterator[list[Mount]]:  # fmt: skip
        """All peers' mounts at once; only one of them works at a time. Every other round begins
        with the last peer: to be the first or the second is an advantage in some rows.

        ``names`` limits the peers; ``keepers`` to those with a disk cache. Caches are empty unless
        ``keep``; ``disk_cold`` has their pages dropped first. ``remount``: they will be used
        again, so those that need time to write down what they keep get it.
        """
        chosen = [peer for peer in self.peers if (not names or peer.name in names)
                  and (peer.keeps or not keepers)]  # fmt: skip
        if self.round % 2:
            chosen.reverse()
        with ExitStack() as stack:
            made = []
            for peer in chosen:
                cache = self.cache(peer)
                if not keep:
                    shutil.rmtree(cache, ignore_errors=True)
                elif disk_cold:
                    forget_pages(cache)
                made.append(stack.enter_context(mounted(peer, site, cache, self.work)))
            os.sync()  # what was removed and written before is no work of those that are measured
            yield made
            for mount in made:
                self._remember_memory(mount)
                if remount:
                    mount.settle()

    def cache(self, peer: Peer) -> Path:
        """The peer's cache folder."""
        return self.work / "cache" / peer.name.replace(" ", "-")

    def _remember_memory(self, mount: Mount) -> None:
        if mount.process.poll() is None:
            peak = mount.memory().get("peak", 0)
            self.figures.greatest("peak", mount.peer.name, self.round, peak / 2**20)

    def verify(self, mount: Mount, things: Sequence[Thing]) -> None:
        """Compare what the mount gives with the source, in the first round; or Failed."""
        if self.round:
            return
        for thing in things:
            if not filecmp.cmp(mount.file(thing), self.source(thing), shallow=False):
                raise Failed(f"{mount.peer.name} gave wrong bytes of {thing.name}")
        filecmp.clear_cache()

    @contextmanager
    def cpu(self, row: str, mount: Mount) -> Iterator[None]:
        """Count the CPU of the mount's process in the block: what a busy machine does not spoil.

        What the block left to be done belongs to it: checking and writing down what was read.
        """
        pid = mount.process.pid
        before_s = cpu_s(pid)
        yield
        self.figures.add(f"{row}-cpu", mount.peer.name, settled_cpu_s(pid) - before_s)

    def add(self, row: str, mount: Mount, number: float) -> None:
        """A figure of one mount, which has just given bytes."""
        mount.read_s = time.monotonic()
        self.figures.add(row, mount.peer.name, number)
