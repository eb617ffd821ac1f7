"""A daemon that serves a profile without a mount, as the commands see it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from phonofs.config.load import load
from phonofs.control.client import command, connect
from phonofs.door import protocol
from phonofs.door.call import call, who_is_there
from phonofs.errors import Unavailable, UsageError


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running daemon, which was found by its door."""

    profile: str
    cache_dir: Path

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"profile {self.profile}"

    def status_text(self) -> bytes:
        """Return the status JSON, unparsed. Raises Unavailable."""
        answered = call(self.cache_dir, protocol.Status())
        if answered is None or not isinstance(answered[0], protocol.Data):
            raise Unavailable(f"no daemon serves {self.name} any more")
        return answered[1]

    def status(self) -> dict[str, object]:
        """Return the parsed status. Raises Unavailable."""
        status = json.loads(self.status_text())
        return status if isinstance(status, dict) else {}

    def connect(self, request: Mapping[str, object]) -> BinaryIO:
        """Send it a command; return its answers. Raises as ``control.client.connect`` does."""
        return connect(self.name, request, self.status())

    def command(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """Send it a command; return its answer. Raises as ``control.client.command`` does."""
        return command(self.name, request, self.status())


def daemon_of(profile: str, options: Sequence[str] = ()) -> Daemon | None:
    """Return the daemon that serves a profile; None if none does.

    Raises UsageError, also if the one that uses its cache folder serves another profile.
    """
    cache_dir = load(profile, options).cache_dir
    there = who_is_there(cache_dir)
    if there is None:
        return None
    if refusal := there.refusal(profile):
        raise UsageError(refusal)
    return Daemon(profile, cache_dir)


def the_daemon_of(profile: str) -> Daemon:
    """Return the daemon that serves a profile. Raises UsageError if none does."""
    daemon = daemon_of(profile)
    if daemon is None:
        raise UsageError(f"the profile {profile} is neither mounted nor served")
    return daemon
