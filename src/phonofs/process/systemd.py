"""Tells systemd that a running mount answers, and its condition.

The watchdog is notified only after the tree has answered through the kernel, so that a mount
that is stuck anywhere on that path is restarted. Used by ``mount.py``; the protocols are those
of sd_notify(3) and sd_watchdog_enabled(3).
"""

import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import trio

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""How often the condition is checked. It comes from memory and is sent only if it changed."""

_READ = """
import os, sys
try:
    os.statvfs(sys.argv[1])
    os.listdir(sys.argv[1])
except OSError as error:
    sys.exit(error.errno)
"""
"""Ends with the errno of what failed."""

Tell = Callable[[str], object]


def notify(state: str) -> bool:
    """Send a state such as ``READY=1`` to systemd (sd_notify(3)); return whether it was sent."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto(state.encode(), address)
        except OSError:
            return False
    return True


def listening() -> bool:
    """Return whether a service manager receives notifications."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def watchdog_interval_s() -> float | None:
    """Return how often this process must notify the watchdog, in seconds; None if there is none.

    systemd watches this process, or its parent: the shell through which mount.fuse3(8) starts it.
    """
    wanted = os.environ.get("WATCHDOG_USEC", "")
    waited_for = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if waited_for not in (str(os.getpid()), str(os.getppid())):
        return None
    return int(wanted) / 1e6 if wanted.isdecimal() and int(wanted) > 0 else None


def ask_tree(mountpoint: str) -> bool:
    """Have the root of the mount read; return whether it answered. Call it in a thread.

    An error is an answer too (the service may be unreachable), unless it says that no process
    serves the mount.

    Another process reads it. If this one were killed while a thread of it waits for its own answer,
    that thread would never end, and the kernel would keep the mount waiting for it.
    """
    command = [sys.executable, "-P", "-S", "-c", _READ, mountpoint]
    try:
        status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode  # noqa: S603
    except OSError as error:  # that says nothing of the mount
        log.warning("the tree cannot be asked: %s", error)
        return True
    return status not in (errno.ENOTCONN, errno.ECONNABORTED)


class Watchdog:
    """Asks the tree twice per interval and notifies systemd each time it has answered.

    Owns the only thread that asks. While that thread is stuck, no other is started, systemd is
    not notified, and so it ends the mount.
    """

    def __init__(
        self,
        mountpoint: str,
        interval_s: float,
        *,
        ask: Callable[[str], bool] = ask_tree,
        tell: Tell = notify,
    ) -> None:
        self._mountpoint = mountpoint
        self._pause_s = interval_s / 2
        self._ask = ask
        self._tell = tell
        self._one = trio.CapacityLimiter(1)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Notify the watchdog until cancelled, the first time at once."""
        task_status.started()
        while True:
            due = trio.current_time() + self._pause_s
            if await self._answers(due):
                self._tell("WATCHDOG=1")
            await trio.sleep_until(due)

    async def _answers(self, due: float) -> bool:
        with trio.move_on_at(due):
            return await trio.to_thread.run_sync(
                self._ask, self._mountpoint, abandon_on_cancel=True, limiter=self._one
            )
        log.error("%s does not answer; the watchdog is not notified", self._mountpoint)
        return False


class StatusLine:
    """Sends the condition of the mount as ``STATUS=`` when it changes. Owns the last one sent."""

    def __init__(self, condition: Callable[[], str], *, tell: Tell = notify) -> None:
        self._condition = condition
        self._tell = tell
        self._told = ""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send changes until cancelled."""
        task_status.started()
        while True:
            now = " ".join(self._condition().split())  # a line break would end the field
            if now != self._told:
                self._tell(f"STATUS={now}")
                self._told = now
            await trio.sleep(LOOK_S)
