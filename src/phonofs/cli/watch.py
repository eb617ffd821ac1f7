"""``phonofs watch``: prints a JSON line for each object when it appears, changes or disappears."""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from typing import BinaryIO

import click

from phonofs.cli.daemon import the_daemon_of
from phonofs.config import BY_NAME
from phonofs.control.client import connect
from phonofs.errors import MountFailed, PhonofsError, Unavailable, UsageError
from phonofs.fuse.mountinfo import mount_of, own_mount
from phonofs.units import printable

SECRET = BY_NAME["secret"].variable


@click.command("watch")
@click.argument("mountpoint", required=False)
@click.option("--profile", metavar="NAME", help="Watch the mount or the daemon of this profile.")
@click.option("--exec", "program", metavar="CMD", help="Run this command for each.")
def command(mountpoint: str | None, profile: str | None, program: str | None) -> int:
    """Print a line of JSON for each object that appears, changes or disappears.

    With --exec, CMD is run for each change, one at a time: with the path as its last argument, the
    line on its standard input, and the kind of change in PHONOFS_CHANGE. The path of a daemon's
    file is phonofs://PROFILE/PATH.
    """
    top, answers, over = _watched(mountpoint, profile)
    words = shlex.split(program) if program else []
    with answers:
        for line in _lines(answers):
            if words:
                _run(words, line, top)
            else:
                click.echo(line)
    raise over


def _watched(mountpoint: str | None, profile: str | None) -> tuple[str, BinaryIO, PhonofsError]:
    """Return what stands before paths, the answers, and the error for their end."""
    if (mountpoint is None) == (profile is None):
        raise UsageError("name one mount, or with --profile one profile, to watch")
    point = mount_of(mountpoint).point if mountpoint is not None else own_mount(profile)
    if point is not None:
        over = MountFailed(f"{point} is no longer mounted")
        return point, connect(point, {"command": "watch"}), over
    daemon = the_daemon_of(profile or "")
    ended = Unavailable(f"{daemon.name} is no longer served")
    return f"phonofs://{daemon.profile}", daemon.connect({"command": "watch"}), ended


def _lines(answers: BinaryIO) -> Iterator[str]:
    for line in answers:
        yield line.decode(errors="replace").rstrip("\n")


def _run(words: list[str], line: str, point: str) -> None:
    """Run the command once; report if it fails, and go on.

    Skips an event without a path: joined to the mount point, it would name the whole mount.
    """
    event = json.loads(line)
    below = str(event.get("path") or "").lstrip("/")
    if not below:
        click.echo(f"phonofs: {_of_no_file(event)}", err=True)
        return
    path = os.path.join(point, below)
    try:
        outcome = subprocess.run(  # noqa: S603 - the user's own command; the path is one argument
            [*words, path],
            input=line.encode() + b"\n",
            env=_environment(str(event.get("kind", ""))),
            check=False,
        )
    except OSError as error:
        raise UsageError(f"{words[0]} cannot be run: {error.strerror}") from None
    if outcome.returncode:
        click.echo(
            f"phonofs: {words[0]} ended with {outcome.returncode} for {printable(path)}", err=True
        )


def _of_no_file(event: dict[str, object]) -> str:
    if event.get("kind") == "overflow":
        return (
            f"{event.get('dropped')} changes were missed, because the command takes longer than "
            "they come; it is not run for those"
        )
    return f"an event of kind {printable(str(event.get('kind')))} names no file"


def _environment(change: str) -> dict[str, str]:
    """Return the command's environment: ours without the secret, plus the kind of change."""
    kept = {name: text for name, text in os.environ.items() if name != SECRET}
    return {**kept, "PHONOFS_CHANGE": change}
