"""``phonofs serve``: serves an account to programs, in the background by default."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from phonofs.cli.report import report
from phonofs.config import DEFAULT_PROFILE
from phonofs.config.load import load
from phonofs.errors import UsageError
from phonofs.process import logging_setup as logs
from phonofs.process.daemonize import Ready, detach
from phonofs.process.hardening import keep_secrets_in_memory
from phonofs.s3door.listener import Listener
from phonofs.serve import ServePlan, serve
from phonofs.units import parse_duration


@click.command("serve")
@click.argument("profile", default=DEFAULT_PROFILE)
@click.option(
    "--idle",
    metavar="T",
    help="End after this long without a request, as 10m; use a daemon that serves already.",
)
@click.option("--listen", metavar="A:P", help="Serve S3 clients, too, at this address and port.")
@click.option("--keys", metavar="FILE", help="The keys of S3 clients; see phonofs(1).")
@click.option("--tls-cert", metavar="FILE", help="The certificate, in PEM, for --listen.")
@click.option("--tls-key", metavar="FILE", help="Its private key, if that is in a file of its own.")
@click.option(
    "-o", "options", metavar="OPT,…", multiple=True, help="Options, as in phonofs.toml(5)."
)
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground.")
def command(
    profile: str,
    idle: str | None,
    listen: str | None,
    keys: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    options: Sequence[str],
    foreground: bool,
) -> int:
    """Serve an account to your own programs, without a mount.

    They read it through a socket that is for your user alone; a mount has one, too. Returns once
    they can connect; a background process then goes on. With --listen, S3 clients on this machine
    or others read it with keys that you give them.
    """
    again = partial(load, profile, options)
    settings = again()
    idle_s = _seconds(idle) if idle is not None else None
    listener = _listener(listen, keys, tls_cert, tls_key)
    if listener is not None and idle_s is not None:
        raise UsageError("--idle is for daemons on demand, and does not go with --listen")

    def work(ready: Ready) -> None:
        keep_secrets_in_memory()
        release = logs.set_up(settings.log_level, settings.log_file, background=not foreground)

        def say_ready(note: str) -> None:
            release()
            ready(note)

        serve(ServePlan(settings, again, say_ready, idle_s, listener))

    if not foreground:
        return detach(work, report=report)
    work(_say)
    return 0


def _listener(
    listen: str | None, keys: str | None, certificate: str | None, private_key: str | None
) -> Listener | None:
    if listen is None:
        if keys or certificate or private_key:
            raise UsageError("--keys, --tls-cert and --tls-key are for --listen")
        return None
    if keys is None:
        raise UsageError("--listen needs --keys, the file of the keys that clients sign with")
    files = [None if each is None else Path(each).absolute() for each in (certificate, private_key)]
    return Listener.of(listen, Path(keys).absolute(), *files)


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--idle {text!r}: {error}") from None


def _say(note: str) -> None:
    if note:
        click.echo(f"phonofs: {note}", err=True)
