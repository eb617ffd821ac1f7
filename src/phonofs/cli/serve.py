"""``phonofs serve``: serves an account to programs, in the background by default."""

from collections.abc import Sequence
from functools import partial

import click

from phonofs.cli.report import report
from phonofs.config import DEFAULT_PROFILE
from phonofs.config.load import load
from phonofs.errors import UsageError
from phonofs.process import logging_setup as logs
from phonofs.process.daemonize import Ready, detach
from phonofs.process.hardening import keep_secrets_in_memory
from phonofs.serve import ServePlan, serve
from phonofs.units import parse_duration


@click.command("serve")
@click.argument("profile", default=DEFAULT_PROFILE)
@click.option(
    "--idle",
    metavar="T",
    help="End after this long without a request, as 10m; use a daemon that serves already.",
)
@click.option(
    "-o", "options", metavar="OPT,…", multiple=True, help="Options, as in phonofs.toml(5)."
)
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground.")
def command(profile: str, idle: str | None, options: Sequence[str], foreground: bool) -> int:
    """Serve an account to your own programs, without a mount.

    They read it through a socket that is for your user alone; a mount has one, too. Returns once
    they can connect; a background process then goes on.
    """
    again = partial(load, profile, options)
    settings = again()
    idle_s = _seconds(idle) if idle is not None else None

    def work(ready: Ready) -> None:
        keep_secrets_in_memory()
        release = logs.set_up(settings.log_level, settings.log_file, background=not foreground)

        def say_ready(note: str) -> None:
            release()
            ready(note)

        serve(ServePlan(settings, again, say_ready, idle_s))

    if not foreground:
        return detach(work, report=report)
    work(_say)
    return 0


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--idle {text!r}: {error}") from None


def _say(note: str) -> None:
    if note:
        click.echo(f"phonofs: {note}", err=True)
