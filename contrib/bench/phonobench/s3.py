"""``contrib/bench/s3``: clients of the S3 door, beside other S3 servers with the same objects.

    ranges   one object of 512 MiB in 16 ranges at once, warm
    small    1,000 objects of 50 KB, 8 at a time, warm
    listing  the keys of these, 20 times
    clients  our memory while 32 clients read, and that of the others

Beside SeaweedFS, which has the objects on its own disk, and beside ``rclone serve s3`` over a mount
of phonofs. The client is obstore in a process of its own; its start is not in the figures. Ours has
one CPU at most: CPU is that of the process beside the time of the work.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import obstore

from phonobench.bench import Figures
from phonobench.peers import OURS
from phonobench.processes import Failed, cpu_s, memory
from phonobench.ratios import Spread, ratios
from phonobench.s3_servers import RCLONE, SEAWEED, Server, ours, rclone_over_mount, seaweed
from phonobench.servers import nginx, origin
from phonobench.things import MIB, Thing, make, write

BIG = make(1, 0, 0, 1, 512 * MIB)
SMALL = [make(n + 2, 2, n, 1000, 50_000) for n in range(1000)]
AT_ONCE = 8
LISTINGS = 20
CLIENTS = 32
TARGETS = {SEAWEED: 0.7, RCLONE: 1.5}
MEMORY_MIB = 140


class S3Bench:
    """One run: its servers, its figures."""

    def __init__(self, servers: Sequence[Server], rounds: int) -> None:
        self.figures = Figures()
        self._servers = servers
        self._rounds = rounds

    def ranges(self) -> None:
        """512 MiB."""
        self._compare(
            "512 MiB in 16 ranges, warm", "MB/s", 1e6,
            lambda server: _client("ranges", server, 16, [server.key(BIG), BIG.size]), BIG.size,
        )  # fmt: skip

    def small(self) -> None:
        """1,000 files."""
        size = sum(thing.size for thing in SMALL)
        self._compare(
            "1,000 GETs of 50 KB, 8 at a time, warm", "GETs/s", size / len(SMALL),
            lambda server: _client("whole", server, AT_ONCE, [*map(server.key, SMALL)]), size,
        )  # fmt: skip

    def listing(self) -> None:
        """The keys of the 1,000 files, which are one page."""
        self._compare(
            "listing 1,000 keys, warm", "keys/s", 1,
            lambda server: _client("listed", server, 1, [_folder(server), LISTINGS]),
            LISTINGS * len(SMALL), {},
        )  # fmt: skip

    def clients(self) -> None:
        """Memory while 32 clients read the large one, each by itself."""
        for server in self._servers:
            clients = [_start("ranges", server, 2) for _ in range(CLIENTS)]
            words = [server.key(BIG), BIG.size]
            for client in clients:  # all of them at once
                assert client.stdin is not None
                client.stdin.write(json.dumps(words))
                client.stdin.close()
            peak = 0
            while any(client.poll() is None for client in clients):
                peak = max(peak, memory(server.pid)["rss"])
                clients[0].poll()
                _pause()
            if any(client.returncode for client in clients):
                raise Failed(f"a client of {server.name} failed")
            target = f" (target: at most {MEMORY_MIB})" if server.name == OURS else ""
            print(f"memory with {CLIENTS} clients, {server.name}: {peak / MIB:.0f} MiB{target}")

    def _compare(
        self, title: str, unit: str, per: float, measure: Any, size: int,
        targets: Mapping[str, float] = TARGETS,
    ) -> None:  # fmt: skip
        row, shares = title, f"{title}, CPU"
        for _ in range(self._rounds):
            for server in self._servers:
                before_s = cpu_s(server.pid)
                found = measure(server)
                if found["bytes"] != size:
                    raise Failed(f"{server.name} gave {found['bytes']} bytes")
                self.figures.add(row, server.name, found["bytes"] / found["s"] / per)
                used_s = cpu_s(server.pid) - before_s
                self.figures.add(shares, server.name, used_s / found["s"])
        for server in self._servers:
            speed, share = (Spread.of(self.figures.rows[key][server.name]) for key in (row, shares))
            line = f"{title}, {server.name}: {_shown(speed)} {unit}, {share.median:.2f} CPUs"
            if server.name != OURS and OURS in self.figures.rows[row]:
                mine = self.figures.rows[row][OURS]
                theirs = self.figures.rows[row][server.name]
                times = Spread.of(ratios(mine, theirs, faster_is_more=True))
                line += f"; phonofs {times.median:.2f} × ({times.least:.2f}–{times.most:.2f}"
                line += f", target {targets[server.name]:g} ×)" if server.name in targets else ")"
            print(line)


def _folder(server: Server) -> str:
    return server.key(SMALL[0]).rpartition("/")[0]


def _shown(spread: Spread) -> str:
    return f"{spread.median:,.0f} ({spread.least:,.0f}–{spread.most:,.0f})"


def _pause() -> None:
    signal.sigtimedwait([], 0.02)


def _start(kind: str, server: Server, threads: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "phonobench.s3_reader", kind, server.url, str(threads)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _client(kind: str, server: Server, threads: int, words: list[Any]) -> dict[str, Any]:
    client = _start(kind, server, threads)
    said, errors = client.communicate(json.dumps(words), timeout=600)
    if client.returncode:
        raise Failed(f"a client of {server.name} failed: {errors.strip()[-500:]}")
    figures: dict[str, Any] = json.loads(said)
    return figures


def _servers(stack: ExitStack, work: Path, names: Sequence[str]) -> list[Server]:
    """Start them, with the objects in each; what is warm in ours and in the mount was read once."""
    things: list[Thing] = [BIG, *SMALL]
    root = work / "origin"
    plan = write(root, things)
    api = stack.enter_context(nginx(root, stack.enter_context(origin(root, plan, work)), work))
    made = []
    if OURS in names:
        made.append(stack.enter_context(ours(api, work)))
    if SEAWEED in names:
        server = stack.enter_context(seaweed(work))
        store = server.store()
        for thing in things:
            obstore.put(store, server.key(thing), root / "tree" / thing.path)
        made.append(server)
    if RCLONE in names:
        made.append(stack.enter_context(rclone_over_mount(api, work)))
    for server in made:
        for thing in (BIG, SMALL[0]):
            _client("whole", server, 1, [server.key(thing)])
        _client("whole", server, AT_ONCE, [*map(server.key, SMALL)])
    return made


TASKS = ("ranges", "small", "listing", "clients")
SERVERS = (OURS, SEAWEED, RCLONE)


def main() -> int:
    """0 done; 1 a measure failed; 130 stopped."""
    parser = argparse.ArgumentParser(
        prog="contrib/bench/s3", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=TASKS, default=TASKS, metavar="TASK")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=SERVERS)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="phonobench-") as work, ExitStack() as stack:
            bench = S3Bench(_servers(stack, Path(work), given.servers), given.rounds)
            for name in given.only:
                getattr(bench, name)()
    except Failed as error:
        print(f"s3: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
