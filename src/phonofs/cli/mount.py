"""``phonofs mount``: reads the settings and mounts, in the background by default."""

import os
from collections.abc import Callable, Sequence
from functools import partial

import click

from phonofs.cli.report import report
from phonofs.config import BY_NAME, DEFAULT_PROFILE, OPTIONS, Settings
from phonofs.config.load import load
from phonofs.errors import UsageError
from phonofs.fuse.mountinfo import absolute, device_fd
from phonofs.mount import MountPlan, serve
from phonofs.process import logging_setup as logs
from phonofs.process.daemonize import Ready, above_streams, detach
from phonofs.process.hardening import keep_secrets_in_memory


def _option_list() -> str:
    """Return the list of options for ``--help``, made from the table of options."""
    lines = [
        f"  {option.name:<17} {option.help}"
        + (f" [{option.shown_default}]" if option.shown_default else "")
        for option in OPTIONS
        if not option.secret
    ]
    return "\b\nOptions for -o, also in phonofs.toml and the environment:\n" + "\n".join(lines)


@click.command("mount", epilog=_option_list())
@click.argument("words", metavar="[PROFILE] MOUNTPOINT", nargs=-1, required=True)
@click.option(
    "-o", "options", metavar="OPT,…", multiple=True, help="Options, as in phonofs.toml(5)."
)
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground.")
def command(words: Sequence[str], options: Sequence[str], foreground: bool) -> int:
    """Mount an account as a read-only folder.

    Returns once the folder can be read; a background process then serves it.
    """
    profile, mountpoint = profile_and_path(words)
    again = partial(load, profile, options)
    return start(again(), mountpoint, again=again, foreground=foreground)


def profile_and_path(words: Sequence[str]) -> tuple[str, str]:
    """Return profile and mount point from the arguments ``[PROFILE] MOUNTPOINT``."""
    if len(words) > 2:
        raise UsageError(f"{words[2]!r} is one argument too many; see `phonofs mount --help`")
    profile = words[0] if len(words) == 2 else DEFAULT_PROFILE
    return profile, words[-1]


def start(
    settings: Settings, mountpoint: str, *, again: Callable[[], Settings], foreground: bool
) -> int:
    """Mount; return the exit status. In the background, the parent process returns it.

    ``again`` reads the settings again, for SIGHUP.
    """
    keep: list[int] = []
    descriptor = device_fd(mountpoint)
    if descriptor is not None:
        keep = [above_streams(descriptor)]
        mountpoint = f"/dev/fd/{keep[0]}"

    def work(ready: Ready) -> None:
        serve_logged(settings, mountpoint, ready, again, background=not foreground)

    if not foreground:
        return detach(work, report=report, keep=keep)
    work(_say)
    return 0


def serve_logged(
    settings: Settings,
    mountpoint: str,
    ready: Ready,
    again: Callable[[], Settings],
    *,
    background: bool = False,
) -> None:
    """Set up the log, then mount and serve until unmounted; see ``mount.serve``."""
    keep_secrets_in_memory()
    os.environ.pop(BY_NAME["secret"].variable, None)  # fusermount3 would inherit it
    release = logs.set_up(settings.log_level, settings.log_file, background=background)

    def say_ready(note: str) -> None:
        release()
        ready(note)

    # A background process changes its directory, so the path must be absolute; links are resolved
    # once, here.
    serve(MountPlan(settings, absolute(mountpoint), say_ready, again))


def _say(note: str) -> None:
    if note:
        click.echo(f"phonofs: {note}", err=True)
