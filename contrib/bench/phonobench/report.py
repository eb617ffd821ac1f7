"""The table, for the terminal, for the README, and as JSON. Pure but for ``machine``."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from statistics import median

from phonobench.peers import BEFORE, OURS, PEERS, rclone
from phonobench.ratios import Spread, all_below, better, ratios, reached
from phonobench.servers import version
from phonobench.table import ROWS, Row

Rows = Mapping[str, Mapping[str, Sequence[float]]]
RCLONES = tuple(name for name, peer in PEERS.items() if not peer.is_phonofs)
MODES = ("rclone off", "rclone full")
CLIENT = "bare client"
OTHERS = ("raw socket", "plain file", CLIENT)
HEAD = ("work", *(name for name in (*RCLONES, OURS)), "times rclone (min–max)", "target", "")
BEFORE_HEAD = ("row", "work", "now", BEFORE, "times before (min–max)", "")


def lines(rows: Rows, words: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The cells of each row that was measured."""
    return [_cells(row, _counted(row, rows[row.key]), words) for row in ROWS if rows.get(row.key)]


def _counted(row: Row, figures: Mapping[str, Sequence[float]]) -> Mapping[str, Sequence[float]]:
    return {who: [max(each)] for who, each in figures.items() if each} if row.peak else figures


def compare(table: Sequence[Row], rows: Rows, words: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The cells of each row measured here and in the checkout before; the last says what is worse.

    A row is worse if the ratios of all rounds lie below its floor.
    """
    cells: list[tuple[str, ...]] = []
    for row in table:
        figures = rows.get(row.key, {})
        if figures.get(OURS) and figures.get(BEFORE):
            spread = _spread(row, figures, BEFORE)
            word = "above" if row.unit == "MiB" else "slower"
            cells.append((
                row.key, _title(row, words), _number(median(figures[OURS])),
                _number(median(figures[BEFORE])), _shown(spread),
                word if all_below(spread, row.floor) else "",
            ))  # fmt: skip
    return cells


def worse(cells: Sequence[Sequence[str]]) -> str:
    """The rows of ``compare`` that are worse, in one line; '' if there are none."""
    return ", ".join(f"{row[0]} ({row[-1]})" for row in cells if row[-1])


def _cells(row: Row, figures: Mapping[str, Sequence[float]], words: Mapping[str, str],
           ) -> tuple[str, ...]:  # fmt: skip
    notes = [f"{name}: {_number(median(figures[name]))}" for name in OTHERS if figures.get(name)]
    title = _title(row, words) + (f"; {', '.join(notes)}" if notes else "")
    values = [_number(median(figures[name])) if figures.get(name) else "" for name in RCLONES]
    values.append(_number(median(figures[OURS])) if figures.get(OURS) else "")
    times, target, verdict = _verdict(row, figures)
    if beside := _spread(row, figures, CLIENT):
        times += f"; client {_shown(beside)}"
    return (title, *values, times, target, verdict)


def _title(row: Row, words: Mapping[str, str]) -> str:
    return row.title.format(**words) + (f" ({row.unit})" if row.unit else "")


def _verdict(row: Row, figures: Mapping[str, Sequence[float]]) -> tuple[str, str, str]:
    """Ratios with their spread, the target, and whether it is reached."""
    if row.against:
        found = [(name, _spread(row, figures, name), row.against[name]) for name in row.against]
        times = "; ".join(f"{name.split()[1]} {_shown(spread)}" for name, spread, _ in found)
        target = "; ".join(f"{name.split()[1]} {goal:g}" for name, _, goal in found)
        said = [reached(spread, goal) for _, spread, goal in found]
        return times, target, "/".join(said) if any(said) else ""
    best = better({name: figures.get(name, ()) for name in MODES}, faster_is_more=row.more)
    spread = _spread(row, figures, best) if best else None
    times = f"{_shown(spread)} ({best.split()[1]})" if spread and best else ""
    goals = [(row.target, spread, False), (row.most, _own(figures), True),
             (row.least, _own(figures), False)]  # fmt: skip
    said = [reached(got, goal, at_most=most) for goal, got, most in goals if goal is not None]
    return times, _target(row), "no" if "no" in said else "yes" if "yes" in said else ""


def _spread(row: Row, figures: Mapping[str, Sequence[float]], name: str) -> Spread | None:
    found = ratios(figures.get(OURS, ()), figures.get(name, ()), faster_is_more=row.more)
    return Spread.of(found) if found else None


def _own(figures: Mapping[str, Sequence[float]]) -> Spread | None:
    return Spread.of(figures[OURS]) if figures.get(OURS) else None


def _target(row: Row) -> str:
    parts = [f"{row.target:g} ×"] if row.target is not None else []
    parts += [f"at most {row.most:g}"] if row.most is not None else []
    parts += [f"at least {row.least:g}"] if row.least is not None else []
    return ", ".join(parts)


def _shown(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    return f"{spread.median:.2f} ({spread.least:.2f}–{spread.most:.2f})"


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def text(cells: Sequence[Sequence[str]], head: Sequence[str] = HEAD) -> str:
    """Columns for the terminal."""
    table = [head, *cells]
    kept = [k for k in range(len(head)) if k == len(head) - 1 or any(row[k] for row in table[1:])]
    widths = {k: max(len(row[k]) for row in table) for k in kept}
    return "\n".join("  ".join(row[k].ljust(widths[k]) for k in kept).rstrip() for row in table)


def markdown(
    cells: Sequence[Sequence[str]], about: Iterable[str], head: Sequence[str] = HEAD
) -> str:
    """The table for the README, with what it was measured on."""
    table = [head, ("---",) * len(head), *cells]
    body = "\n".join("| " + " | ".join(row) + " |" for row in table)
    return f"{body}\n\n{'; '.join(about)}."


def machine(rounds: int, *, with_rclone: bool = True) -> list[str]:
    """Date, machine and versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        f"Measured {date.today().isoformat()}",
        f"{os.cpu_count()} CPUs, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}",
        f"phonofs {_version('phonofs')} on Python {platform.python_version()}, "
        f"pyfuse3 {_version('pyfuse3')}, trio {_version('trio')}",
        *([_rclone_version()] if with_rclone else []),
        version(),
        f"medians of {rounds} rounds, ratios within a round",
    ]


def _rclone_version() -> str:
    done = subprocess.run([rclone(), "version"], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0] if done.stdout else "rclone"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "from this tree"
