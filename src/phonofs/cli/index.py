"""``phonofs index``: makes the whole account known, through a mount or by itself."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import date
from functools import partial
from typing import BinaryIO

import click
import msgspec
import trio

from phonofs.app import COMMAND_TASKS, open_app
from phonofs.cli.daemon import daemon_of
from phonofs.cli.report import EXIT_IN_PART, EXIT_INTERRUPTED
from phonofs.config import DEFAULT_PROFILE, Settings
from phonofs.config.load import load
from phonofs.control.client import connect, refusal
from phonofs.discovery.indexer import TRIES, Indexer, Progress
from phonofs.errors import Unavailable, UsageError, unwrap
from phonofs.fuse.mountinfo import mount_of, own_mount
from phonofs.process.hardening import keep_secrets_in_memory
from phonofs.search.options import first_day
from phonofs.units import format_count, printable
from phonofs.view_tree.text_indexer import TextIndexer


@click.command("index")
@click.argument("mountpoint", required=False)
@click.option("--since", metavar="D", help="Back to this day: 2026-11-17, 2026-11 or 2026.")
@click.option("--texts", is_flag=True, help="Bring transcripts, summaries and notes too.")
@click.option("--mount", metavar="PATH", help="Index the account of this mount.")
@click.option("--profile", metavar="NAME", help="Index the account of this profile.")
@click.option("-o", "options", metavar="OPT,…", multiple=True, help="As with mount.")
def command(
    mountpoint: str | None,
    since: str | None,
    texts: bool,
    mount: str | None,
    profile: str | None,
    options: Sequence[str],
) -> int:
    """Make the whole account known, so that searches need no request.

    Lists every day that was never listed, newest first, and downloads no content; with --texts,
    then the transcripts, summaries and notes. A running mount does it, after all other requests;
    without one, the command does it with the profile's key. After Ctrl-C the next run goes on.
    """
    named = [each for each in (mountpoint, mount, profile) if each is not None]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)}: name one mount or one profile")
    day = first_day(since, "--since") if since is not None else None
    path = mountpoint or mount
    point = mount_of(path).point if path else own_mount(profile)
    try:
        if point is not None:
            return _show(_by_process(point, partial(connect, point), day, texts=texts))
        daemon = daemon_of(profile or DEFAULT_PROFILE, options)
        if daemon is not None:
            return _show(_by_process(daemon.name, daemon.connect, day, texts=texts))
        return _by_key(load(profile or DEFAULT_PROFILE, options), day, texts=texts)
    except KeyboardInterrupt:
        click.echo("\nstopped; the next run goes on from here", err=True)
        return EXIT_INTERRUPTED


class _Display:
    """Shows the progress on a terminal, in one line on standard error."""

    def __init__(self) -> None:
        self._shown = False

    def show(self, progress: Progress) -> None:
        """Show how far it is; why it waits is said without a terminal too."""
        count = _counted(progress)
        if progress.state == "waiting":
            self._say(f"{count} known; waiting, since {printable(progress.error)}", lasting=True)
        elif progress.day:
            self._say(f"{count} known, at {progress.day}", lasting=False)

    def _say(self, text: str, *, lasting: bool) -> None:
        if sys.stderr.isatty():
            self._shown = True
            click.echo(f"\r\x1b[K{text}", nl=lasting, err=True)
        elif lasting:
            click.echo(text, err=True)

    def end(self, progress: Progress) -> int:
        """Say what is known now, and what is not; return the exit status."""
        if self._shown and sys.stderr.isatty():
            click.echo("\r\x1b[K", nl=False, err=True)
        click.echo(f"{_counted(progress)} known")
        for days in progress.missing:
            click.echo(f"phonofs: not known: {days}: {printable(progress.error)}", err=True)
        return EXIT_IN_PART if progress.missing else 0


def _counted(progress: Progress) -> str:
    objects = format_count(progress.objects, "object")
    return (
        objects if progress.texts is None else f"{objects}, {format_count(progress.texts, 'text')}"
    )


class _Line(msgspec.Struct):
    """A line of the mount's answer (``control/search_commands.py``)."""

    progress: Progress | None = None
    error: str = ""
    exit_status: int = 1


def _show(steps: Iterable[Progress]) -> int:
    display = _Display()
    for progress in steps:
        if progress.state == "done":
            return display.end(progress)
        display.show(progress)
    raise Unavailable("the mount ended before everything was known")


def _by_process(
    name: str,
    send: Callable[[Mapping[str, object]], BinaryIO],
    since: date | None,
    *,
    texts: bool,
) -> Iterator[Progress]:
    """Have a mount or a daemon index; ``send`` sends it a command."""
    request = {"command": "index", "since": str(since) if since else None, "texts": texts}
    decoder = msgspec.json.Decoder(_Line)
    with send(request) as lines:
        for text in lines:
            line = decoder.decode(text)
            if line.progress is None:
                raise refusal(name, line.error, line.exit_status)
            yield line.progress


def _by_key(settings: Settings, since: date | None, *, texts: bool) -> int:
    """Index with a session of its own; the profile must not be mounted."""
    keep_secrets_in_memory()
    try:
        return trio.run(_index, settings, since, texts)
    except BaseExceptionGroup as group:
        raise unwrap(group) from None


async def _index(settings: Settings, since: date | None, texts: bool) -> int:
    async with open_app(settings, "") as app, trio.open_nursery() as nursery:
        await app.start_tasks(nursery, COMMAND_TASKS | {"the change follower"})
        if offline := await app.connect():
            click.echo(f"phonofs: {printable(offline)}", err=True)
        status = await _run(app.text_indexer if texts else app.indexer, since)
        nursery.cancel_scope.cancel()
    return status


async def _run(indexer: Indexer | TextIndexer, since: date | None) -> int:
    display = _Display()
    async with aclosing(indexer.steps(since, tries=TRIES)) as steps:
        async for progress in steps:
            if progress.state == "done":
                return display.end(progress)
            display.show(progress)
    raise AssertionError("the last step is the end")
