"""``phonofs demo``: mounts a made-up account, which a stand-in for the service serves on loopback.

The stand-in and the mount are child processes; this process waits and stops both in order.
"""

import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import click
import trio

from phonofs.cli.children import Child, ChildFailed, Say, running
from phonofs.cli.mount import serve_logged
from phonofs.cli.settings import split_options, surroundings
from phonofs.config import Layer, Settings, Source, merge
from phonofs.demo.dataset import demo_account
from phonofs.errors import MountFailed, UsageError
from phonofs.fakeservice.faults import Faults, Plan, described_failures, load
from phonofs.fakeservice.options import Options, described_options, options_from
from phonofs.fakeservice.server import serve
from phonofs.fakeservice.service import Service
from phonofs.fuse.mountinfo import SOURCE, absolute, mounted_at, mounted_type
from phonofs.fuse.unmount import abandon

PROFILE = "demo"
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoCommand(click.Command):
    """A command whose help ends with tables of the values of its options."""

    tables: Sequence[tuple[str, Sequence[tuple[str, str]]]] = (
        ("What --set takes", tuple(described_options())),
        ("What a rule of a fault plan can say after fail", tuple(described_failures())),
    )
    """The title and the rows of each table; the manual contains them too."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the tables."""
        for title, rows in self.tables:
            with formatter.section(title):
                formatter.write_dl(rows)


@click.command("demo", cls=DemoCommand)
@click.argument("mountpoint", required=False)
@click.option("-o", "options", metavar="OPT,…", multiple=True, help="As with mount.")
@click.option("--fault", metavar="PLAN", help="A fault plan: which requests fail, and how.")
@click.option("--set", "choices", metavar="NAME=VALUE", multiple=True, help="How it answers.")
@click.option("--serve-only", is_flag=True, help="Only the stand-in, for other clients.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Its port.")
def command(
    mountpoint: str | None,
    options: Sequence[str],
    fault: str | None,
    choices: Sequence[str],
    serve_only: bool,
    port: int,
) -> int:
    """Mount a made-up account: no key, no network.

    Stays in the foreground; Ctrl-C unmounts and leaves nothing.

    A fault plan is a file, or TOML or JSON itself: a list 'rule' and, if chance plays a part, a
    'seed'. A rule says what shall 'fail', and for which requests: by 'kind' (token, regions,
    search, record, content, presign, store, restore), 'path', 'id', 'region', 'nth', 'every',
    'skip', 'from_s', 'until_s', 'probability', 'count'. The first rule that holds decides.

    While it runs, the service takes JSON: POST /-/add and /-/change an object by the words of its
    record, /-/faults another plan, /-/options other values of --set. GET /-/counters tells what
    was asked of it.
    """
    stand_in = StandIn(options_from(choices), load(fault) if fault else Plan(), port)
    if serve_only:
        return _serve_only(stand_in)
    if mountpoint is None:
        raise UsageError("name an empty or new folder to mount on: `phonofs demo calls`")
    try:
        return _demo(mountpoint, options, stand_in, hints=not fault)
    except ChildFailed as error:  # the child has already reported why
        return error.exit_status


class StandIn:
    """The stand-in for the service, which runs in its own process."""

    def __init__(self, options: Options, plan: Plan, port: int) -> None:
        self.options = options
        self.plan = plan
        self.port = port

    def run(self, say: Say) -> None:
        """Serve until stopped; call ``say`` with the URL when it can be reached."""

        async def main() -> None:
            now = datetime.now(UTC)
            account = demo_account(
                now.date(),
                until_ms=int(now.timestamp() * 1000),
                customer_id=self.options.customer_id,
            )
            service = Service(account, self.options, Faults(self.plan))
            async with serve(service, port=self.port):
                say(service.url)
                await trio.sleep_forever()

        trio.run(main)


def _serve_only(stand_in: StandIn) -> int:
    def say(url: str) -> None:
        click.echo(
            f"api_url {url}\nkey     {stand_in.options.key}\nsecret  {stand_in.options.secret}"
        )

    try:
        stand_in.run(say)
    except* KeyboardInterrupt:
        pass  # trio raises it in an exception group
    return 0


def _demo(mountpoint: str, options: Sequence[str], stand_in: StandIn, *, hints: bool) -> int:
    with ExitStack() as stack:
        stack.enter_context(_stopping_on_signals())
        service = stack.enter_context(running(stand_in.run))
        stack.enter_context(_folder(mountpoint))
        private = stack.enter_context(tempfile.TemporaryDirectory(prefix="phonofs-demo-"))
        settings = demo_settings(service.said, Path(private), options, stand_in.options)
        if mounted_type(absolute(mountpoint)) is None:  # else it is not ours: mounting will fail
            stack.callback(_clear, mountpoint)
        mount = stack.enter_context(running(lambda say: serve_logged(settings, mountpoint, say)))
        found = example(Path(mountpoint)) if hints else None
        click.echo(what_to_try(mountpoint, found, settings.views))
        return _until_stopped(mount, mountpoint)


def demo_settings(url: str, folder: Path, options: Sequence[str], stand_in: Options) -> Settings:
    """Return the settings of a demo mount: of the user's settings, only ``-o`` is used."""
    layers = [
        Layer(
            Source.FILE,
            {
                "api_url": url,
                "key": stand_in.key,
                "secret": stand_in.secret,
                "cache_dir": str(folder / "cache"),
                "cache_size": "1G",
                "log_level": "warning",
            },
            "the demo",
        ),
        *(Layer(Source.ARGUMENT, split_options(text)) for text in options),
    ]
    return merge(layers, PROFILE, surroundings(os.environ))


def _until_stopped(mount: Child, mountpoint: str) -> int:
    """Wait for Ctrl-C or for the mount to end by itself; return the exit status."""
    try:
        status = mount.wait()
    except KeyboardInterrupt:
        click.echo(f"\nunmounting {mountpoint}", err=True)
        return 0
    return MountFailed.exit_status if status else 0


@contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """Make SIGTERM and SIGHUP (the terminal was closed) end the demo as Ctrl-C does.

    Also handles SIGINT, because a shell makes its background processes ignore it.
    """

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _folder(mountpoint: str) -> Iterator[None]:
    """Make the mount point if it is missing, and then remove it after the block."""
    try:
        os.mkdir(mountpoint)
    except FileExistsError:
        yield
        return
    except OSError as error:
        raise MountFailed(f"{mountpoint} cannot be made: {error.strerror}") from None
    try:
        yield
    finally:
        with suppress(OSError):
            os.rmdir(mountpoint)


def _clear(mountpoint: str) -> None:
    """Unmount what a killed mount left behind; do not touch other mounts."""
    mounted = mounted_at(mountpoint)
    if mounted is not None and mounted.source == f"{SOURCE}{PROFILE}":
        abandon(mountpoint)


def example(root: Path) -> tuple[Path, str] | None:
    """Return the newest day directory with a recording, and the recording's name."""
    with suppress(OSError):
        for day in sorted(root.glob("*/*/*"), reverse=True)[:3]:
            sounds = sorted(name for name in os.listdir(day) if name.endswith(".mp3"))
            if sounds:
                return day, sounds[0]
    return None


def what_to_try(mountpoint: str, found: tuple[Path, str] | None, views: str) -> str:
    """Return a text with the mount point and three commands to try.

    ``views`` is the name of the folder of the views; empty if there is none.
    """
    day, sound = found or (Path(mountpoint) / "YYYY" / "YYYY-MM" / "YYYY-MM-DD", "….mp3")
    shown, texts = day, Path(mountpoint)
    if views:
        shown = Path(mountpoint) / views / "by-day" / day.name
        texts = Path(mountpoint) / views / "text"
    return (
        f"A made-up account is mounted on {mountpoint}; Ctrl-C unmounts it. In another terminal:\n"
        f"  ls -l {shown}\n"
        f"  grep -rs invoice {texts}\n"
        f"  ffprobe -hide_banner {day / sound}"
    )
