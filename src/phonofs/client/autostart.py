"""Starts the daemon of a profile, if none is running.

That is ``phonofs serve PROFILE --idle 10m``. It goes into the background once it can be connected
to, and ends when nobody has asked for anything for that long. Of several that start at once, one
gets the cache folder, and the others end when that one can be connected to.
"""

import subprocess
import sys
import tempfile

IDLE = "10m"
"""After how long without a request the daemon ends."""

START_S = 10.0
"""How long a daemon may take until it can be connected to."""


def start_daemon(profile: str) -> None:
    """Start a daemon, or see that another one was faster; it can be connected to then.

    Raises ConnectionError with what it said if it could not start.
    """
    command = [sys.executable, "-m", "phonofs", "serve", profile, "--idle", IDLE]
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter; the profile was checked
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
                cwd="/",
                timeout=START_S,
                check=False,
            )
        except OSError as error:
            raise ConnectionError(f"{sys.executable} could not be started: {error}") from None
        except subprocess.TimeoutExpired:
            raise ConnectionError(
                f"the daemon of profile {profile} was not ready after {START_S:g} s; start it with "
                f"`phonofs serve {profile}` to see why"
            ) from None
        if done.returncode:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            why = lines[-1].removeprefix("phonofs: ") if lines else f"exit {done.returncode}"
            raise ConnectionError(f"the daemon of profile {profile} did not start: {why}")
