"""Who waits in a handler: gives each a deadline, and lets go of those that got a signal.

pyfuse3 never hears of FUSE_INTERRUPT, so a caller with a handled signal, or one in lookup,
open or readdir with any signal, would wait for our answer for ever. The kernel says in
``/proc/PID/status`` which signals are pending for it (proc(5)); a scan looks at all that wait.
"""

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from phonofs.errors import Interrupted, Unavailable

SCAN_INTERVAL_S = 0.1
"""A person takes up to 0.1 s for at once; 200 waiting readers cost 2,000 small reads a second."""

MARGIN_S = 0.5
"""To be added to a deadline that the rooms below have too: they say better what was late."""

HARMLESS = frozenset(
    {
        signal.SIGSTOP,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGCONT,
        signal.SIGCHLD,
        signal.SIGWINCH,
        signal.SIGURG,
        signal.SIGPROF,
        signal.SIGVTALRM,
    }
)
"""Signals that stop, resume, resize or profile a program: none of them asks it to give up."""

_HARMLESS_MASK = sum(1 << (number - 1) for number in HARMLESS)


def wants_out(status: str) -> bool:
    """Whether a ``/proc/PID/status`` text shows a pending signal that asks to give up."""
    masks = dict.fromkeys(("SigPnd", "ShdPnd", "SigBlk", "SigIgn"), 0)
    for line in status.splitlines():
        field, _, value = line.partition(":")
        if field in masks:
            masks[field] = int(value, 16)
    pending = (masks["SigPnd"] | masks["ShdPnd"]) & ~masks["SigBlk"] & ~masks["SigIgn"]
    return bool(pending & ~_HARMLESS_MASK)


def has_signal(pid: int) -> bool:
    """Whether process or thread ``pid`` has such a signal pending; also when it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            return wants_out(file.read())
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ESRCH)


class Callers:
    """The handlers that wait, each with its caller and its cancel scope.

    Invariant: a scope is in ``_waiting`` exactly while its ``waiting`` block runs.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._waiting: dict[trio.CancelScope, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @contextmanager
    def waiting(self, pid: int) -> Iterator[None]:
        """Around what may wait on behalf of ``pid`` (0: not known).

        Raises Interrupted when the caller got a signal, Unavailable at the deadline.
        """
        with trio.CancelScope() as scope:
            scope.deadline = trio.current_time() + self._deadline_s
            self._waiting[scope] = pid
            try:
                yield
            finally:
                del self._waiting[scope]
        if scope.cancelled_caught:
            if trio.current_time() >= scope.deadline:
                raise Unavailable(f"no answer within {self._deadline_s:g} s")
            raise Interrupted("the caller has a signal pending")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The task that scans; never ends."""
        own = os.getpid()
        task_status.started()
        while True:
            await trio.sleep(SCAN_INTERVAL_S)
            for scope, pid in list(self._waiting.items()):
                if pid not in (0, own) and has_signal(pid):
                    scope.cancel()
