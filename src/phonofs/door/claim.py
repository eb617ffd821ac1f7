"""Claims a cache directory, from an idle daemon that was started on demand if need be."""

import time
from contextlib import suppress
from pathlib import Path

from phonofs.cache.accounts import Accounts
from phonofs.door import protocol
from phonofs.door.call import call, who_is_there
from phonofs.errors import CacheInUse, Unavailable

HAND_OVER_S = 10.0
"""How long a daemon that agreed to end may take for that; a clean stop takes 5 s at most."""

LOOK_S = 0.05


def claimed(cache_dir: Path, polite: bool) -> Accounts:
    """Lock a cache directory, in a thread. Raises CacheInUse if another process goes on using it.

    A ``polite`` caller asks no daemon to hand it over.
    """
    try:
        return Accounts.open(cache_dir)
    except CacheInUse:
        if polite or not _handed_over(cache_dir):
            raise
    deadline_s = time.monotonic() + HAND_OVER_S
    while time.monotonic() < deadline_s:
        with suppress(CacheInUse):
            return Accounts.open(cache_dir)
        time.sleep(LOOK_S)
    return Accounts.open(cache_dir)


def _handed_over(cache_dir: Path) -> bool:
    """Ask the daemon that uses the directory to end; return whether it will."""
    there = who_is_there(cache_dir)
    if there is None or not there.on_demand:
        return False
    try:
        answered = call(cache_dir, protocol.Leave())
    except Unavailable:
        return False
    return answered is not None and isinstance(answered[0], protocol.End)
