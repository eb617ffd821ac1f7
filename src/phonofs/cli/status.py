"""``phonofs status``: shows the status of a running mount, for people and for programs."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from phonofs.cli.daemon import the_daemon_of
from phonofs.cli.status_page import BAR_ASCII, BAR_BLOCKS, Row, all_rows, overview
from phonofs.config import LOG_LEVELS
from phonofs.control.client import command as send_command
from phonofs.control.client import status_text
from phonofs.errors import UsageError
from phonofs.fuse.mountinfo import mount_of, own_mount, the_only_mount
from phonofs.units import printable

REFRESH_S = 1.0


@click.command("status")
@click.argument("mountpoint", required=False)
@click.option("--profile", metavar="NAME", help="Show the mount or the daemon of this profile.")
@click.option("--all", "everything", is_flag=True, help="Show every gauge.")
@click.option("--json", "as_json", is_flag=True, help="Print every gauge as one line of JSON.")
@click.option("--watch", is_flag=True, help="Refresh every second, until Ctrl-C.")
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    help="Change the log level of the running mount.",
)
def command(
    mountpoint: str | None,
    profile: str | None,
    everything: bool,
    as_json: bool,
    watch: bool,
    log_level: str | None,
) -> int:
    """Show the state of a running mount, or of a daemon without one.

    Without MOUNTPOINT and --profile, shows your only mount, or the only mount of all users.
    """
    name, text, send = _chosen(mountpoint, profile)
    if log_level:
        send({"command": "log_level", "level": log_level})
        click.echo(f"{name} logs at {log_level} from now on")
    elif as_json:
        click.echo(text())
    elif watch:
        _watch(name, text, everything)
    else:
        console = Console()
        console.print(_page(console, name, json.loads(text()), everything=everything))
    return 0


def _chosen(
    mountpoint: str | None, profile: str | None
) -> tuple[str, Callable[[], bytes], Callable[[Mapping[str, object]], object]]:
    """Return the name of what is meant, and what returns its status and sends it a command."""
    if mountpoint is not None and profile is not None:
        raise UsageError(f"{mountpoint} and {profile}: name one mount or one profile")
    point = own_mount(profile) if profile is not None else None
    if profile is not None and point is None:
        daemon = the_daemon_of(profile)
        return daemon.name, daemon.status_text, daemon.command
    if point is None:
        point = (mount_of(mountpoint) if mountpoint else the_only_mount()).point
    return point, partial(status_text, point), partial(send_command, point)


def _watch(name: str, text: Callable[[], bytes], everything: bool) -> None:
    console = Console()
    before = json.loads(text())
    page = _page(console, name, before, everything=everything)
    with Live(page, console=console, screen=sys.stdout.isatty()) as live:
        while True:
            time.sleep(REFRESH_S)
            now = json.loads(text())
            live.update(_page(console, name, now, before, everything=everything))
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
