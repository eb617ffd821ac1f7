"""``contrib/bench/client``: programs that read by ``phonofs://``, beside the mount of that daemon.

    warm    512 MiB that are in the cache, by ``open().read()`` and ``cat``; beside the mount, read
            into memory as well; beside a copy of as many bytes from one Python process to another
            by a bare unix socket: ``bare`` into one buffer of 1 MiB, ``kept`` into memory that
            holds all of it; and beside s3fs, which reads them from a local S3 server (moto) that
            has them in memory
    small   300 files of 50 KB, cold, 50 ms away: ``ls`` and one ``fs.cat``, beside ``cat *``
    find    ``fs.find`` over 100,000 known objects, beside ``find`` on the mount
    busy    the most memory of a daemon whose 8 clients at once read 64 MiB each, cold and again,
            300 small files, and list 10,000

Each is alone with ``--only``. Ratios are of one round. What reads is a process of its own for each
row, whose start is not in the figures. In ``warm`` it reads TIMES times in its turn, and the median
counts: the first one may get memory that a virtual machine has not used before, which its host
gives slowly, whoever asks for it. The turns of a round are in another order each time.
"""

import argparse
import json
import random
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean, median
from typing import Any

from phonobench.bench import LATENCY_S, Figures
from phonobench.peers import OURS, PEERS, Mount, Site, mounted
from phonobench.processes import Failed, cpu_s, end, memory, run, start, tail, until
from phonobench.ratios import Spread, ratios
from phonobench.servers import Origin, many, nginx, origin, s3_server
from phonobench.things import Thing, folder_of, make, write

MIB = 1 << 20
BIG = make(1, 0, 0, 1, 512 * MIB)
SMALL = [make(n + 2, 2, n, 300, 50_000) for n in range(300)]
LARGE = [make(n + 1000, 4, n, 8, 64 * MIB) for n in range(8)]
MANY = [make(n + 2000, 3, n, 10_000, 4321, virtual=True) for n in range(10_000)]
TIMES = 5
READ_S = 600


class ClientBench:
    """One run: its folder, its servers, its figures."""

    def __init__(self, work: Path, rounds: int) -> None:
        self.figures = Figures()
        self._work = work
        self._rounds = rounds

    def warm(self) -> None:
        """512 MiB from the disk cache."""
        with ExitStack() as stack:
            fast, _ = self._servers(stack, [BIG])
            mount = stack.enter_context(self._mounted(Site.index(fast), "warm"))
            ours, path = self._ours(mount), mount.file(BIG)
            reader = stack.enter_context(self._reader())
            reader.figures("file", path)  # now it is in the cache
            bucket = stack.enter_context(s3_server(self._work))
            reader.figures("stored", f"{bucket} {path}")
            url = _path_of(mount, path)
            asked = {
                "open": url, "cat": url, "file": path, "bare": str(BIG.size), "kept": str(BIG.size),
                "s3": bucket,
            }  # fmt: skip
            readers = {kind: stack.enter_context(self._reader(ours)) for kind in asked}
            for number in range(self._rounds):
                for kind in random.Random(number).sample([*asked], len(asked)):
                    before_s = cpu_s(mount.process.pid)
                    turn = [readers[kind].figures(kind, asked[kind]) for _ in range(TIMES)]
                    self._speed(kind, turn, cpu_s(mount.process.pid) - before_s)
        for other, target in (("bare", 0.7), ("kept", 0.7), ("s3", 3.0), ("file", None)):
            self._compare("512 MiB warm, open().read()", "open", other, more=True, target=target)
        self._compare("512 MiB warm, cat", "cat", "bare", more=True, target=0.7)

    def small(self) -> None:
        """Many small files, far away, with an empty cache."""
        with ExitStack() as stack:
            _, far = self._servers(stack, SMALL)
            far.set(LATENCY_S)
            site, folder = Site.webdav(far.url), folder_of("small")
            for number in range(self._rounds):
                with self._mounted(site, f"small-fs-{number}") as mount:
                    found = self._once(mount, "day", mount.folder(folder))
                    self.figures.add("fs.cat", OURS, found["s"])
                with self._mounted(site, f"small-{number}") as mount:
                    command = ["sh", "-c", 'exec cat "$0"/* >/dev/null', mount.folder(folder)]
                    self.figures.add("cat *", OURS, run(command))
        self._compare("300 files of 50 KB, cold, 50 ms", "fs.cat", "cat *", more=False, target=1.0)

    def find(self) -> None:
        """All of an account that is known."""
        with (
            many([1000] * 100, self._work) as server,
            self._mounted(Site.webdav(server.url), "find") as mount,
        ):
            run(["find", str(mount.point), "-name", "x"])  # now it is known
            for _ in range(self._rounds):
                found = self._once(mount, "find", str(mount.point))
                if found["count"] != 100_000:
                    raise Failed(f"fs.find found {found['count']} of 100,000 files")
                self.figures.add("fs.find", OURS, found["s"])
                self.figures.add("find", OURS, run(["find", str(mount.point), "-name", "x"]))
        self._compare("find over 100,000 known", "fs.find", "find", more=False, target=1.0)

    def busy(self) -> None:
        """Eight clients of a daemon at once."""
        with ExitStack() as stack:
            fast, _ = self._servers(stack, [*LARGE, *SMALL, *MANY])
            for number in range(self._rounds):
                with self._served(fast, f"busy-{number}") as (pid, ours), ExitStack() as clients:
                    readers = [clients.enter_context(self._reader(ours)) for _ in LARGE]
                    day = readers[0].figures("names", f"default/{folder_of('eight')}")["names"]
                    self.figures.add("before", OURS, memory(pid)["rss"] / MIB)
                    for kind, what in (
                        ("open", day), ("open", day), ("cat", day[1:] + day[:1]),
                        ("day", [f"default/{folder_of('small')}"] * 8),
                        ("find", ["default"] * 8),
                    ):  # fmt: skip
                        for reader, path in zip(readers, what, strict=True):
                            reader.ask(kind, path)
                        for reader in readers:
                            reader.answer()
                        self.figures.add(kind, "peak", memory(pid)["peak"] / MIB)
                    self.figures.add("busy", OURS, memory(pid)["peak"] / MIB)
        print(f"a daemon with 8 busy clients: {_shown(self.figures.rows['busy'][OURS])} MiB")

    def _servers(self, stack: ExitStack, things: list[Thing]) -> tuple[str, Origin]:
        root = self._work / f"origin-{len(things)}"
        plan = write(root, things)
        server = stack.enter_context(origin(root, plan, self._work))
        return stack.enter_context(nginx(root, server, self._work)), server

    def _mounted(self, site: Site, name: str) -> Any:
        return mounted(PEERS[OURS], site, self._work / "cache" / name, self._work)

    def _ours(self, mount: Mount) -> dict[str, str]:
        """What a process needs in its environment to find the daemon of a mount."""
        words = ",".join(map(str, mount.process.args)).split(",")  # type: ignore[arg-type]
        [cache] = [word.removeprefix("cache_dir=") for word in words if "cache_dir=" in word]
        return self._environment(Path(cache))

    def _environment(self, cache: Path) -> dict[str, str]:
        return {
            "PHONOFS_CACHE_DIR": str(cache),
            "PHONOFS_TIMEZONE": "UTC",
            "XDG_CONFIG_HOME": str(self._work / "config"),
        }

    @contextmanager
    def _served(self, url: str, name: str) -> Iterator[tuple[int, dict[str, str]]]:
        """A daemon without a mount: its pid, and what a process needs to find it."""
        cache, log = self._work / "cache" / name, self._work / "serve.log"
        ours = self._environment(cache)
        key = {"PHONOFS_KEY": "bench", "PHONOFS_SECRET": "bench", "NO_PROXY": "*"}
        command = [
            sys.executable, "-m", "phonofs.cli", "serve", "-f",
            "-o", f"api_url={url},cache_dir={cache},timezone=UTC,log_level=warning",
        ]  # fmt: skip
        cache.mkdir(parents=True)
        process = start(command, log, {**ours, **key, "XDG_RUNTIME_DIR": str(self._work)})
        try:
            until((cache / "door").exists, process, "phonofs serve did not start", log)
            yield process.pid, ours
        finally:
            end(process)

    @contextmanager
    def _reader(self, environment: Mapping[str, str] | None = None) -> Iterator["Reader"]:
        reader = Reader(environment or {}, self._work / "reader.log")
        try:
            yield reader
        finally:
            reader.end()

    def _once(self, mount: Mount, kind: str, path: str) -> dict[str, Any]:
        """Have a process read what a path of the mount stands for; its figures."""
        with self._reader(self._ours(mount)) as reader:
            return reader.figures(kind, _path_of(mount, path))

    def _speed(self, row: str, turn: Sequence[dict[str, Any]], daemon_s: float) -> None:
        if {found["bytes"] for found in turn} != {BIG.size}:
            raise Failed(f"{row} read something else")
        self.figures.add(row, OURS, BIG.size / median(found["s"] for found in turn) / 1e6)
        self.figures.add(row, "first", BIG.size / turn[0]["s"] / 1e6)
        of_row = self.figures.rows[row]
        of_row["cpu_s"].append(median(found["cpu_s"] for found in turn))
        of_row["daemon_s"].append(daemon_s / len(turn))

    def _compare(
        self, title: str, row: str, other: str, *, more: bool, target: float | None
    ) -> None:
        ours, theirs = (self.figures.rows[key][OURS] for key in (row, other))
        times = Spread.of(ratios(ours, theirs, faster_is_more=more))
        unit = "MB/s" if more else "s"
        aim = "" if target is None else f" (target {target:g} ×)"
        print(
            f"{title}: {_shown(ours)} {unit}{self._cpu(row)}, {other} {_shown(theirs)}"
            f"{self._cpu(other)}: {times.median:.2f} × ({times.least:.2f}–{times.most:.2f}){aim}"
        )

    def _cpu(self, row: str) -> str:
        """The mean CPU seconds of the program and the daemon, where they were measured."""
        used = self.figures.rows[row]
        if not used["cpu_s"]:
            return ""
        return f" [CPU {mean(used['cpu_s']):.2f} + {mean(used['daemon_s']):.2f} s]"


class Reader:
    """A process that reads when it is told to. Owns the process."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._process = start(
            [sys.executable, "-m", "phonobench.client_reader"], log, environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, kind: str, what: str) -> None:
        """Have it begin to read."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind} {what}\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait until it has read; its figures."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], READ_S)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise Failed(f"the client failed: {tail(self._log, 1)}")
        figures: dict[str, Any] = json.loads(line)
        return figures

    def figures(self, kind: str, what: str) -> dict[str, Any]:
        """Have it read, and wait for that."""
        self.ask(kind, what)
        return self.answer()

    def end(self) -> None:
        """End the process."""
        end(self._process)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _path_of(mount: Mount, path: str) -> str:
    """The path below ``phonofs://`` of one below the mount."""
    below = path.removeprefix(str(mount.point)).strip("/")
    return f"default/{below}".rstrip("/")


def _shown(figures: Sequence[float]) -> str:
    spread = Spread.of(figures)
    digits = 0 if spread.median >= 100 else 2
    return f"{spread.median:,.{digits}f} ({spread.least:,.{digits}f}–{spread.most:,.{digits}f})"


TASKS = ("warm", "small", "find", "busy")


def main() -> int:
    """0 done; 1 a measure failed; 130 stopped."""
    parser = argparse.ArgumentParser(
        prog="contrib/bench/client", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=TASKS, default=TASKS, metavar="TASK")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="phonobench-") as work:
            bench = ClientBench(Path(work), given.rounds)
            for name in given.only:
                getattr(bench, name)()
    except Failed as error:
        print(f"client: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
