"""The account that ``phonofs export`` copies from: a running mount, or a session of its own."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

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
    """Open the mount, or else a session, by default of the profile of an earlier run."""
    if mount is not None and profile is not None:
        raise UsageError("--mount and --profile are two ways to say the same; give one of them")
    if mount is None and profile is None and before is not None:
        profile = before.profile
    point = mount_of(mount).point if mount is not None else own_mount(profile)
    if point is not None:
        yield _of_mount(point)
        return
    # Not needed over a mount, and 200 ms to import.
    from phonofs.cli import session
    from phonofs.cli.session_contents import SessionContents

    settings = load(profile or DEFAULT_PROFILE, options)
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
    views = status.get("views", {}).get("name", "")
    followed = status.get("catalogue", {}).get("followed", {})
    stale = [
        f"changes in {region} cannot be followed now, so what is known may be old"
        for region, seen in followed.items()
        if seen.get("failures")
    ]
    return Account(
        str(status.get("profile", DEFAULT_PROFILE)),
        lambda: MountSource(point),
        MountContents(point, views),
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
