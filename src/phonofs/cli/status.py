"""``phonofs status``: how a running mount is doing, for people and for programs."""

import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from phonofs.cli.mounts import mount_of, the_only_mount
from phonofs.control.client import command as tell
from phonofs.control.client import status_of, status_text
from phonofs.units import format_duration, format_size, printable

REFRESH_S = 1.0


@click.command("status")
@click.argument("mountpoint", required=False)
@click.option("--json", "as_json", is_flag=True, help="One line of JSON, for programs.")
@click.option("--watch", is_flag=True, help="Keep showing it, until Ctrl-C.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Change how much the mount logs, from now on.",
)
def command(mountpoint: str | None, as_json: bool, watch: bool, log_level: str | None) -> int:
    """Show how a running mount is doing.

    Token, catalogue, cache, transfers and errors of MOUNTPOINT, which need not be named where
    there is only one.
    """
    point = (mount_of(mountpoint) if mountpoint else the_only_mount()).point
    if log_level:
        tell(point, {"command": "log_level", "level": log_level})
        click.echo(f"{point} logs at {log_level} from now on")
    elif as_json:
        click.echo(status_text(point))
    elif watch:
        _watch(point)
    else:
        Console().print(page(point, status_of(point)))
    return 0


def _watch(point: str) -> None:
    before = status_of(point)
    with Live(page(point, before), screen=sys.stdout.isatty()) as live:
        while True:
            time.sleep(REFRESH_S)
            now = status_of(point)
            live.update(page(point, {"now": summary(before, now, time.time()), **now}))
            before = now


def summary(
    before: Mapping[str, object], now: Mapping[str, object], now_s: float
) -> dict[str, object]:
    """What a person watches, from two looks at a mount; rates are those between them.

    ``hit_rate`` is that of the reads between, or of all where there were none.
    """
    took_s = max(_at(now, "uptime_s") - _at(before, "uptime_s"), 0.001)

    def gained(*path: str) -> float:
        return _at(now, *path) - _at(before, *path)

    hits, misses = gained("reader", "hits"), gained("reader", "misses")
    if not hits + misses:
        hits, misses = _at(now, "reader", "hits"), _at(now, "reader", "misses")
    return {
        "from_service_bytes_per_s": gained("service", "received_bytes") / took_s,
        "to_readers_bytes_per_s": gained("reader", "served_bytes") / took_s,
        "hit_rate": f"{hits / (hits + misses):.0%}" if hits + misses else "",
        "token_life_s": _at(now, "service", "token", "life_s"),
        "catalogue_age_s": _age_s(now, now_s),
        "open_files": int(_at(now, "fuse", "open_files")),
        "transfers": int(_at(now, "service", "slots", "in_use")),
        "last_error": _found(now, "fuse", "last_error"),
    }


def _age_s(status: Mapping[str, object], now_s: float) -> float | None:
    """How long ago the region that was asked for changes longest ago was."""
    followed = _found(status, "catalogue", "followed")
    polls = [_at(each, "polled_at") for each in followed.values()] if followed else []
    return max(now_s - min(polls), 0.0) if polls and min(polls) > 0 else None


def _found(status: Any, *path: str) -> Any:
    for name in path:
        status = status.get(name) if isinstance(status, Mapping) else None
    return status


def _at(status: Any, *path: str) -> float:
    found = _found(status, *path)
    return float(found) if isinstance(found, int | float) else 0.0


def page(point: str, status: Mapping[str, object]) -> RenderableType:
    """The whole status as one table: a line a fact, grouped as the status itself is."""
    table = Table.grid(padding=(0, 2))
    for name, value in rows(status):
        table.add_row(Text(name, style="bold" if not value else ""), Text(value))
    return Group(Text(point, style="bold"), table)


def rows(status: Mapping[str, object], indent: int = 0) -> Iterator[tuple[str, str]]:
    """Name and value of each fact; what is nested follows its name, indented."""
    for name, value in status.items():
        label = "  " * indent + _label(name)
        if isinstance(value, Mapping):
            if value:
                yield label, ""
                yield from rows(value, indent + 1)
        elif value is not None and value != [] and value != "":
            yield label, shown(name, value)


def _label(name: str) -> str:
    for unit in ("_bytes_per_s", "_bytes", "_s", "_ms"):
        name = name.removesuffix(unit)
    return name.replace("_", " ")


def shown(name: str, value: object) -> str:
    """A value as people read it; the ending of its name says its unit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(shown("", item) for item in value)
    if isinstance(value, Mapping):
        return " ".join(f"{key}={shown(key, item)}" for key, item in value.items())
    if isinstance(value, int | float):
        return _number(name, value)
    return printable(str(value))


def _number(name: str, value: float) -> str:
    if name.endswith("_bytes_per_s"):
        return f"{format_size(value)}/s"
    if name == "bytes" or name.endswith("_bytes"):
        return format_size(value)
    if name.endswith("_s"):
        return format_duration(value)
    if name.endswith("_ms"):
        return _date(value / 1000)
    if name.endswith("_at"):
        return _date(value) if value > 0 else "never"
    if name == "pid":
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _date(epoch_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch_s))
