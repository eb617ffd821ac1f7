"""What a service manager wants to know of a running mount: that it answers, and how it is.

The watchdog is fed only after the tree has answered through the kernel, so that a mount which
is stuck anywhere on that way is restarted. Used by the composition root; protocols of
sd_notify(3) and sd_watchdog_enabled(3).
"""

import errno
import logging
import os
import socket
from collections.abc import Callable

import trio

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""How often the condition is looked at: from memory, and told only when it changed."""

Tell = Callable[[str], object]


def notify(state: str) -> bool:
    """Tell systemd, e.g. ``READY=1`` (sd_notify(3)); return whether it was sent."""
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
    """Return whether somebody takes notifications."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def watchdog_interval_s() -> float | None:
    """How often this process must report, in seconds; None where nobody waits for it.

    The process that systemd knows is this one, or the shell that mount.fuse3(8) starts it with.
    """
    wanted = os.environ.get("WATCHDOG_USEC", "")
    waited_for = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if waited_for not in (str(os.getpid()), str(os.getppid())):
        return None
    return int(wanted) / 1e6 if wanted.isdecimal() and int(wanted) > 0 else None


def ask_tree(mountpoint: str) -> bool:
    """Ask the mount for its root, in a thread; whether it answered.

    An error is an answer too (the service may be away), unless it says that nobody serves it.
    """
    try:
        os.statvfs(mountpoint)
        os.listdir(mountpoint)
    except OSError as error:
        return error.errno not in (errno.ENOTCONN, errno.ECONNABORTED)
    return True


class Watchdog:
    """Asks the tree at half the interval and reports when it answered.

    Owns the one thread that asks: while that is stuck no other is started, nothing is reported,
    and systemd ends the mount.
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
        """Report until cancelled; the first time at once."""
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
        log.error("%s does not answer; the watchdog is not fed", self._mountpoint)
        return False


class StatusLine:
    """Tells the condition of the mount as ``STATUS=`` whenever it changes. Owns the last one."""

    def __init__(self, condition: Callable[[], str], *, tell: Tell = notify) -> None:
        self._condition = condition
        self._tell = tell
        self._told = ""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell until cancelled."""
        task_status.started()
        while True:
            now = " ".join(self._condition().split())  # a line break would end the field
            if now != self._told:
                self._tell(f"STATUS={now}")
                self._told = now
            await trio.sleep(LOOK_S)
