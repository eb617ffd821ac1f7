"""The account that ``phonofs export`` copies from: what runs, or a session of its own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from phonofs.cli.mount_contents import MountContents
from phonofs.cli.search_source import MountSource, RunningSource
from phonofs.config import DEFAULT_PROFILE
from phonofs.config.load import load
from phonofs.control.client import status_of
from phonofs.errors import PhonofsError, UsageError
from phonofs.export.contents import Contents
from phonofs.export.lists import Choice, Description
from phonofs.fuse.mountinfo import mount_of, own_mount

if TYPE_CHECKING:
    from phonofs.cli.daemon import Daemon


@dataclass(frozen=True, slots=True)
class Account:
    """Whose objects are exported.

    source    makes what finds them
    contents  opens them
    lenient   whether a length is enough if a checksum differs
    stale     why what is found may not be all, in sentences
    """

    profile: str
    source: Callable[[], RunningSource]
    contents: Contents
    lenient: bool
    stale: Sequence[str]


@contextmanager
def opened(
    mount: str | None, profile: str | None, options: Sequence[str], before: Description | None
) -> Iterator[Account]:
    """Open the mount, else the daemon, else a session; by default of an earlier run's profile."""
    if mount is not None and profile is not None:
        raise UsageError("--mount and --profile are two ways to say the same; give one of them")
    if mount is None and profile is None and before is not None:
        profile = before.profile
    point = mount_of(mount).point if mount is not None else own_mount(profile)
    if point is not None:
        yield _of_mount(point)
        return
    # What follows is not needed over a mount, and takes 200 ms to import.
    from phonofs.cli.daemon import daemon_of

    settings = load(profile or DEFAULT_PROFILE, options)
    daemon = daemon_of(settings.profile, options)
    if daemon is not None:
        with _of_daemon(daemon, settings.read_deadline) as account:
            yield account
        return
    from phonofs.cli import session
    from phonofs.cli.session_contents import SessionContents

    with session.opened(settings) as running:
        yield Account(
            settings.profile,
            lambda: session.SessionSource(running),
            SessionContents(running),
            settings.verify == "length",
            running.stale,
        )


def _of_mount(point: str) -> Account:
    status: dict[str, Any] = status_of(point)
    contents = MountContents(point, _views(status))
    return _running(status, lambda: MountSource(point), contents)


@contextmanager
def _of_daemon(daemon: "Daemon", read_deadline_s: float) -> Iterator[Account]:
    from phonofs.cli.door_contents import DoorContents
    from phonofs.client.client import MARGIN_S, Client
    from phonofs.door.address import read_address

    status: dict[str, Any] = daemon.status()
    address, timeout_s = read_address(daemon.cache_dir), read_deadline_s + MARGIN_S
    client = Client(daemon.profile, address=address, timeout_s=timeout_s, autostart=False)
    try:
        yield _running(
            status,
            lambda: RunningSource(daemon.name, "", daemon.connect),
            DoorContents(client, _views(status)),
        )
    finally:
        client.drop_idle()


def _views(status: Mapping[str, Any]) -> str:
    return str(status.get("views", {}).get("name", ""))


def _running(
    status: Mapping[str, Any], source: Callable[[], RunningSource], contents: Contents
) -> Account:
    """Return the account of what runs, by its status."""
    followed = status.get("catalogue", {}).get("followed", {})
    stale = [
        f"changes in {region} cannot be followed now, so what is known may be old"
        for region, seen in followed.items()
        if seen.get("failures")
    ]
    return Account(
        str(status.get("profile", DEFAULT_PROFILE)),
        source,
        contents,
        status.get("reader", {}).get("verify") == "length",
        stale,
    )


@contextmanager
def recorded(source: RunningSource, chosen: Choice) -> Iterator[dict[str, int]]:
    """Have the journal tell that an export begins, and that it has ended with the counts yielded.

    Raises PhonofsError if that cannot be recorded: then nothing could be opened either.
    """
    asked = msgspec.to_builtins(chosen.condition)
    line = source.tell({"command": "export", "condition": asked, "paths": len(chosen.paths)})[
        "line"
    ]
    counts: dict[str, int] = {}
    result = "stopped"
    try:
        yield counts
        result = "ended"
    finally:
        if line:
            # If what runs has ended meanwhile, its journal says so itself.
            with suppress(OSError, PhonofsError):
                source.tell({"command": "export", "of": line, "result": result, **counts})
