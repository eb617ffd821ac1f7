"""``phonofs status``: shows the status of a running mount, for people and for programs."""

import sys
import time
from collections.abc import Iterable, Mapping

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from phonofs.cli.status_page import BAR_ASCII, BAR_BLOCKS, Row, all_rows, overview
from phonofs.config import LOG_LEVELS
from phonofs.control.client import command as send_command
from phonofs.control.client import status_of, status_text
from phonofs.fuse.mountinfo import mount_of, the_only_mount
from phonofs.units import printable

REFRESH_S = 1.0


@click.command("status")
@click.argument("mountpoint", required=False)
@click.option("--all", "everything", is_flag=True, help="Show every gauge.")
@click.option("--json", "as_json", is_flag=True, help="Print every gauge as one line of JSON.")
@click.option("--watch", is_flag=True, help="Refresh every second, until Ctrl-C.")
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    help="Change the log level of the running mount.",
)
def command(
    mountpoint: str | None, everything: bool, as_json: bool, watch: bool, log_level: str | None
) -> int:
    """Show the state of a running mount.

    Without MOUNTPOINT, shows your only mount, or the only mount of all users.
    """
    point = (mount_of(mountpoint) if mountpoint else the_only_mount()).point
    if log_level:
        send_command(point, {"command": "log_level", "level": log_level})
        click.echo(f"{point} logs at {log_level} from now on")
    elif as_json:
        click.echo(status_text(point))
    elif watch:
        _watch(point, everything)
    else:
        console = Console()
        console.print(_page(console, point, status_of(point), everything=everything))
    return 0


def _watch(point: str, everything: bool) -> None:
    console = Console()
    before = status_of(point)
    page = _page(console, point, before, everything=everything)
    with Live(page, console=console, screen=sys.stdout.isatty()) as live:
        while True:
            time.sleep(REFRESH_S)
            now = status_of(point)
            live.update(_page(console, point, now, before, everything=everything))
            before = now


def _page(
    console: Console,
    point: str,
    status: Mapping[str, object],
    before: Mapping[str, object] | None = None,
    *,
    everything: bool,
) -> RenderableType:
    if everything:
        return table(point, all_rows(status))
    bar = BAR_BLOCKS if console.encoding.startswith("utf") else BAR_ASCII
    return table(point, overview(status, time.time(), before, bar))


def table(point: str, rows: Iterable[Row]) -> RenderableType:
    """Lay out labels and values in two columns below the mount point."""
    grid = Table.grid(padding=(0, 2))
    for label, value in rows:
        grid.add_row(Text(label, style="bold" if not value else ""), Text(value))
    return Group(Text(printable(point), style="bold"), grid)
