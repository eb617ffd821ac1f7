"""``contrib/bench/client``: programs that read by ``phonofs://``, beside the mount of that daemon.

    warm    512 MiB that are in the cache, by ``open().read()`` and ``cat``; beside the mount, and
            beside a copy of as many bytes from one Python process to another by a bare unix socket:
            ``bare`` into one buffer of 1 MiB, ``kept`` into memory that holds all of it; and beside
            s3fs, which reads them from a local S3 server (moto) that has them in memory
    small   300 files of 50 KB, cold, 50 ms away: ``ls`` and one ``fs.cat``, beside ``cat *``
    find    ``fs.find`` over 100,000 known objects, beside ``find`` on the mount

Each is alone with ``--only``. Ratios are of one round; the reader is a process of its own, whose
start is not in the figures.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from phonobench.bench import LATENCY_S, Figures
from phonobench.peers import OURS, PEERS, Mount, Site, mounted
from phonobench.processes import Failed, read, run
from phonobench.ratios import Spread, ratios
from phonobench.servers import Origin, many, nginx, origin, s3_server
from phonobench.things import Thing, folder_of, make, write

MIB = 1 << 20
BIG = make(1, 0, 0, 1, 512 * MIB)
SMALL = [make(n + 2, 2, n, 300, 50_000) for n in range(300)]


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
            read("sequential", mount.file(BIG))  # now it is in the cache
            bucket = stack.enter_context(s3_server(self._work))
            _client_process({}, "stored", f"{bucket} {mount.file(BIG)}")
            for number in range(self._rounds):
                # The first one finds less memory.
                for kind in ("cat", "open") if number % 2 else ("open", "cat"):
                    self._speed(kind, self._client(mount, kind, mount.file(BIG)))
                self._speed("mount", read("sequential", mount.file(BIG)))
                for kind in ("bare", "kept"):
                    self._speed(kind, _client_process({}, kind, str(BIG.size)))
                self._speed("s3fs", _client_process({}, "s3", bucket))
        for other in ("kept", "bare", "mount"):
            self._compare("512 MiB warm, open().read()", "open", other, more=True, target=0.7)
        self._compare("512 MiB warm, open().read()", "open", "s3fs", more=True, target=3.0)
        self._compare("512 MiB warm, cat", "cat", "kept", more=True, target=0.7)

    def small(self) -> None:
        """Many small files, far away, with an empty cache."""
        with ExitStack() as stack:
            _, far = self._servers(stack, SMALL)
            far.set(LATENCY_S)
            site, folder = Site.webdav(far.url), folder_of("small")
            for number in range(self._rounds):
                with self._mounted(site, f"small-fs-{number}") as mount:
                    found = self._client(mount, "day", mount.folder(folder))
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
                found = self._client(mount, "find", str(mount.point))
                if found["count"] != 100_000:
                    raise Failed(f"fs.find found {found['count']} of 100,000 files")
                self.figures.add("fs.find", OURS, found["s"])
                self.figures.add("find", OURS, run(["find", str(mount.point), "-name", "x"]))
        self._compare("find over 100,000 known", "fs.find", "find", more=False, target=1.0)

    def _servers(self, stack: ExitStack, things: list[Thing]) -> tuple[str, Origin]:
        root = self._work / f"origin-{len(things)}"
        plan = write(root, things)
        server = stack.enter_context(origin(root, plan, self._work))
        return stack.enter_context(nginx(root, server, self._work)), server

    def _mounted(self, site: Site, name: str) -> Any:
        return mounted(PEERS[OURS], site, self._work / "cache" / name, self._work)

    def _client(self, mount: Mount, kind: str, path: str) -> dict[str, Any]:
        """Have a process read what a path of the mount stands for; its figures."""
        cache = next(
            word.removeprefix("cache_dir=")
            for word in ",".join(mount.process.args).split(",")  # type: ignore[arg-type]
            if word.startswith("cache_dir=")
        )
        below = path.removeprefix(str(mount.point)).strip("/")
        environment = {
            "PHONOFS_CACHE_DIR": cache,
            "PHONOFS_TIMEZONE": "UTC",
            "XDG_CONFIG_HOME": str(self._work / "config"),
        }
        return _client_process(environment, kind, f"default/{below}".rstrip("/"))

    def _speed(self, row: str, found: dict[str, Any]) -> None:
        if found["bytes"] != BIG.size:
            raise Failed(f"{row} read {found['bytes']} bytes")
        self.figures.add(row, OURS, found["bytes"] / found["s"] / 1e6)

    def _compare(self, title: str, row: str, other: str, *, more: bool, target: float) -> None:
        ours, theirs = (self.figures.rows[key][OURS] for key in (row, other))
        times = Spread.of(ratios(ours, theirs, faster_is_more=more))
        unit = "MB/s" if more else "s"
        print(
            f"{title}: {_shown(ours)} {unit}, {other} {_shown(theirs)}: "
            f"{times.median:.2f} × ({times.least:.2f}–{times.most:.2f}) (target {target:g} ×)"
        )


def _shown(figures: Sequence[float]) -> str:
    spread = Spread.of(figures)
    digits = 0 if spread.median >= 100 else 2
    return f"{spread.median:,.{digits}f} ({spread.least:,.{digits}f}–{spread.most:,.{digits}f})"


def _client_process(environment: dict[str, str], kind: str, what: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "phonobench.client_reader", kind, what]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise Failed(f"the client failed: {done.stderr.strip().splitlines()[-1:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


TASKS = ("warm", "small", "find")


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
