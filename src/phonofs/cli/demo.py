"""``phonofs demo``: mounts a made-up account, which a fake of the service serves on loopback.

The mount is a child process. This process has the fake service in a thread, which ends with the
process; the main thread waits for a signal and then stops the mount.
"""

import os
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import click
import trio

from phonofs.cli.children import Child, ChildFailed, running
from phonofs.cli.mount import serve_logged
from phonofs.config import Layer, Settings, Source, merge
from phonofs.config.load import split_options, surroundings
from phonofs.demo.dataset import demo_account
from phonofs.errors import MountFailed, UsageError
from phonofs.fakeservice.faults import Faults, Plan, described_failures, load
from phonofs.fakeservice.options import Options, described_options, options_from
from phonofs.fakeservice.server import listen, serve
from phonofs.fakeservice.service import Service
from phonofs.fuse.mountinfo import SOURCE, absolute, mounted_at, mounted_type
from phonofs.fuse.unmount import abandon
from phonofs.process.daemonize import Ready

PROFILE = "demo"
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoCommand(click.Command):
    """A command whose help ends with tables of the values of its options."""

    tables: Sequence[tuple[str, Sequence[tuple[str, str]]]] = (
        ("Names and values for --set", tuple(described_options())),
        ("Values of fail in a rule of a fault plan", tuple(described_failures())),
    )
    """The title and the rows of each table; the manual contains them too."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the tables."""
        for title, rows in self.tables:
            with formatter.section(title):
                formatter.write_dl(rows)


@click.command("demo", cls=DemoCommand)
@click.argument("mountpoint", required=False)
@click.option("-o", "options", metavar="OPT,…", multiple=True, help="Options, as with mount.")
@click.option("--fault", metavar="PLAN", help="A fault plan: which requests fail, and how.")
@click.option(
    "--set", "choices", metavar="NAME=VALUE", multiple=True, help="How the fake service answers."
)
@click.option("--serve-only", is_flag=True, help="Only serve, for other clients.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Port of the API."
)
def command(
    mountpoint: str | None,
    options: Sequence[str],
    fault: str | None,
    choices: Sequence[str],
    serve_only: bool,
    port: int,
) -> int:
    """Mount a made-up account: no key, no network.

    Stays in the foreground; Ctrl-C unmounts the account and cleans up.

    A fault plan is a file, or TOML or JSON itself: a list 'rule' and, for random faults, a 'seed'.
    Each rule says what fails ('fail'), and for which requests: by 'kind' (token, regions, search,
    record, content, presign, store, restore, other), 'path', 'id', 'nth', 'every', 'skip',
    'probability', 'count'. The first rule that fires decides.

    While it runs, the fake service accepts JSON: POST an object with the fields of a record to
    /-/add or /-/change, another plan to /-/faults, other values of --set to /-/options.
    """
    service = _service(options_from(choices), load(fault) if fault else Plan())
    if mountpoint is None and not serve_only:
        raise UsageError("name an empty or new folder to mount on: `phonofs demo calls`")
    sockets = listen(service, port)
    if mountpoint is None or serve_only:
        return _serve_only(service, sockets)
    try:
        return _demo(mountpoint, options, service, sockets, hints=not fault)
    except ChildFailed as error:  # the child has already reported why
        return error.exit_status


def _service(options: Options, plan: Plan) -> Service:
    now = datetime.now(UTC)
    account = demo_account(
        now.date(), until_ms=int(now.timestamp() * 1000), customer_id=options.customer_id
    )
    return Service(account, options, Faults(plan))


async def _serve(service: Service, sockets: Sequence[socket.socket]) -> None:
    async with serve(service, sockets):
        await trio.sleep_forever()


def _serve_only(service: Service, sockets: Sequence[socket.socket]) -> int:
    options = service.options
    try:
        click.echo(f"api_url {service.url}\nkey     {options.key}\nsecret  {options.secret}")
        trio.run(_serve, service, sockets)
    except* KeyboardInterrupt:
        pass  # trio raises it in an exception group
    return 0


def _demo(
    mountpoint: str,
    options: Sequence[str],
    service: Service,
    sockets: Sequence[socket.socket],
    *,
    hints: bool,
) -> int:
    serving = Thread(target=trio.run, args=(_serve, service, sockets), daemon=True)
    with ExitStack() as stack:
        stack.enter_context(_stopping_on_signals())
        stack.enter_context(_folder(mountpoint))
        private = stack.enter_context(tempfile.TemporaryDirectory(prefix="phonofs-demo-"))
        settings = demo_settings(service.url, Path(private), options, service.options)
        if mounted_type(absolute(mountpoint)) is None:  # else it is not ours: mounting will fail
            stack.callback(_clear, mountpoint)

        def mount(ready: Ready) -> None:
            for each in sockets:
                each.close()  # or the ports would stay open if the parent is killed
            serve_logged(settings, mountpoint, ready, lambda: settings)

        child = stack.enter_context(running(mount, meanwhile=serving.start))
        found = example(Path(mountpoint)) if hints else None
        click.echo(what_to_try(mountpoint, found, settings.views, texts=settings.texts))
        return _until_stopped(child, mountpoint)


def demo_settings(url: str, folder: Path, options: Sequence[str], service: Options) -> Settings:
    """Return the settings of a demo mount: of the user's settings, only ``-o`` is used."""
    layers = [
        Layer(
            Source.FILE,
            {
                "api_url": url,
                "key": service.key,
                "secret": service.secret,
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
        for day in sorted(root.glob(f"{'[0-9]' * 4}/*/*"), reverse=True)[:3]:
            sounds = sorted(name for name in os.listdir(day) if name.endswith(".mp3"))
            if sounds:
                return day, sounds[0]
    return None


def what_to_try(mountpoint: str, found: tuple[Path, str] | None, views: str, *, texts: bool) -> str:
    """Return a text with the mount point and three commands to try.

    ``views`` is the name of the folder of the views, empty if there is none; ``texts`` says
    whether they have texts.
    """
    day, sound = found or (Path(mountpoint) / "YYYY" / "YYYY-MM" / "YYYY-MM-DD", "….mp3")
    shown, searched = day, Path(mountpoint)
    if views:
        shown = Path(mountpoint) / views / "by-day" / day.name
    if views and texts:
        searched = Path(mountpoint) / views / "text"
    return (
        f"A made-up account is mounted on {mountpoint}; Ctrl-C unmounts it. In another terminal:\n"
        f"  ls -l {shown}\n"
        f"  grep -rs invoice {searched}\n"
        f"  ffprobe -hide_banner {day / sound}"
    )
