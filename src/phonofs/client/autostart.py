"""Starts the daemon of a profile, if none is running.

The daemon is ``phonofs serve PROFILE --idle 10m``, in a session of its own: it outlives the program
that started it, and ends when nobody has asked for anything for that long. Of several that start at
once, one gets the cache folder and the others end; their clients find that one.
"""

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO

from phonofs.client.connection import Connection

IDLE = "10m"
"""After how long without a request the daemon ends."""

START_S = 10.0
"""How long a daemon may take until it can be connected to."""

CHECK_S = 0.02
"""How often to try. Nothing tells us that a socket has appeared."""

_DETACHED = 'exec "$@" &'
"""For sh: the daemon becomes a child of init, which reaps it; we might not."""


def start_daemon(profile: str, connect: Callable[[], Connection | None]) -> Connection:
    """Start a daemon and return a connection to it, or to another one that came first.

    ``connect`` returns None while nobody is there. Raises ConnectionError with what the daemon
    said, if it could not start.
    """
    command = [sys.executable, "-m", "phonofs", "serve", profile, "--idle", IDLE]
    with tempfile.TemporaryFile() as said:
        alive = _start(command, said)
        try:
            return _wait(profile, connect, alive, said)
        finally:
            os.close(alive)


def _start(command: list[str], said: IO[bytes]) -> int:
    """Start a process; return the end of a pipe that is at its end once the process is."""
    alive, held = os.pipe()
    try:
        subprocess.run(  # noqa: S603 - our own interpreter, as arguments of sh
            ["/bin/sh", "-c", _DETACHED, "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            pass_fds=(held,),
            start_new_session=True,
            cwd="/",
            check=True,
        )
    except BaseException as error:
        os.close(alive)
        if isinstance(error, OSError | subprocess.SubprocessError):
            raise ConnectionError(f"{command[0]} could not be started: {error}") from None
        raise
    finally:
        os.close(held)
    return alive


def _wait(
    profile: str, connect: Callable[[], Connection | None], alive: int, said: IO[bytes]
) -> Connection:
    until = time.monotonic() + START_S
    ended = False
    while True:
        connection = connect()
        if connection is not None:
            return connection
        why = _last_line(said)
        if ended and why:
            raise ConnectionError(f"the daemon of profile {profile} did not start: {why}")
        if time.monotonic() > until:
            raise ConnectionError(
                f"the daemon of profile {profile} was not ready after {START_S:g} s; start it with "
                f"`phonofs serve {profile}` to see why: {why or 'it said nothing'}"
            )
        if ended:  # without a word: another daemon came first, and will be ready soon
            time.sleep(CHECK_S)
        else:
            ended = bool(select.select([alive], [], [], CHECK_S)[0])


def _last_line(said: IO[bytes]) -> str:
    text = os.pread(said.fileno(), 1 << 16, 0).decode(errors="replace")
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("phonofs: ") if lines else ""
