"""``contrib/bench/run``: phonofs and rclone, or two checkouts of phonofs, in turns."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from phonobench import before, report
from phonobench.bench import Bench
from phonobench.peers import PEERS
from phonobench.processes import Failed
from phonobench.servers import nginx, origin
from phonobench.table import ROWS
from phonobench.tasks import TASKS
from phonobench.things import LONG, SHORT, Sizes, things, write


def main() -> int:
    """0 done; 1 a measure failed, or a row is slower than before; 2 wrong usage; 130 stopped."""
    given = _arguments()
    signal.signal(signal.SIGTERM, _stop)
    try:
        with _bench(given) as bench:
            for bench.round in range(_rounds(given)):
                _round(bench, given.only or list(TASKS))
            worse = _show(bench, LONG if given.long else SHORT, given.json)
    except Failed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if worse:
        print(f"bench: worse than before: {worse}", file=sys.stderr)
    return 1 if worse else 0


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="contrib/bench/run",
        description="Measures phonofs and rclone over the same bytes, in turns, as ratios; with "
        "--before, this checkout of phonofs and another one.",
    )
    parser.add_argument("--long", action="store_true", help="more rounds, more files, all tools")
    parser.add_argument("--only", nargs="+", choices=list(TASKS), metavar="NAME",
                        help=f"of {', '.join(TASKS)}")  # fmt: skip
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), metavar="PEER",
                        help=f"of {', '.join(map(repr, PEERS))}: all by default, only phonofs "
                             "with --before")  # fmt: skip
    rounds = f"instead of 3, 5 with --long, {before.ROUNDS} with --before"
    parser.add_argument("--rounds", type=int, default=0, help=rounds)
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures")
    parser.add_argument("--keep-logs", type=Path, metavar="FOLDER", help="copy the logs there")
    return before.parse(parser)


def _rounds(given: argparse.Namespace) -> int:
    usual = 5 if given.long else 3
    return given.rounds or (before.ROUNDS if given.before else usual)


@contextmanager
def _bench(given: argparse.Namespace) -> Iterator[Bench]:
    """The servers and folders; all is gone at the end, also after Ctrl-C."""
    names = given.peers or ([] if given.before else list(PEERS))
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phonobench-")))
        stack.callback(_keep_logs, work, given.keep_logs)
        work.chmod(0o700)
        peers = [PEERS[name] for name in PEERS if name in names]
        if given.before:
            others = [peer for peer in peers if not peer.is_phonofs]
            peers = [*before.pair(given.before, work), *others]
        root = work / "origin"
        plan = write(root, things(LONG if given.long else SHORT))
        server = stack.enter_context(origin(root, plan, work))
        fast = stack.enter_context(nginx(root, server, work))
        yield Bench(peers, plan, root, work, server, fast, given.long)


def _keep_logs(work: Path, folder: Path | None) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for log in work.glob("*.log"):
            shutil.copy(log, folder)


def _round(bench: Bench, names: Sequence[str]) -> None:
    for name in names:
        print(f"round {bench.round + 1}, {name}", file=sys.stderr, flush=True)
        began = time.monotonic()
        TASKS[name](bench)
        print(f"  took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def _show(bench: Bench, sizes: Sizes, file: Path | None) -> str:
    """Print and save the figures; the rows that are worse than before, in one line."""
    words = {
        "limited": f"{sizes.limited // 2**20} MiB",
        "small": f"{sizes.small_files} files of {sizes.small // 1000} KB",
    }
    rows = bench.figures.rows
    with_rclone = any(not peer.is_phonofs for peer in bench.peers)
    about = report.machine(bench.round + 1, with_rclone=with_rclone)
    about += [before.versions(peer) for peer in bench.peers if peer.program]
    compared = report.compare(ROWS, rows, words)
    if with_rclone or not compared:
        cells = report.lines(rows, words)
        print(report.text(cells), end="\n\n")
        print(report.markdown(cells, about), end="\n\n" if compared else "\n")
    if compared:
        print(report.text(compared, report.BEFORE_HEAD), end="\n\n")
        print(report.markdown(compared, about, report.BEFORE_HEAD))
    if file is not None:
        file.write_text(json.dumps({"about": about, "rows": rows}, indent=1))
    return report.worse(compared)


if __name__ == "__main__":
    sys.exit(main())
