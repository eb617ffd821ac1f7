"""Who waits in a handler: gives each a deadline, and lets go of those that got a signal.

pyfuse3 never hears of FUSE_INTERRUPT, so a caller with a handled signal, or one in lookup,
open or readdir with any signal, would wait for our answer for ever. The kernel says in
``/proc/PID/status`` which signals are pending for it (proc(5)); a scan looks at all that wait.

Not every caller can be looked at: a file is read by others than the thread that opened it, which
may have ended, and ``hidepid=2`` hides the processes of other users. Such a caller is *not known*,
which is no sign that it wants out: it is left to its deadline.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from phonofs.errors import Interrupted, Unavailable

SCAN_INTERVAL_S = 0.1
"""A person takes up to 0.1 s for at once; 200 waiting readers cost 2,000 small reads a second."""

MARGIN_S = 0.5
"""To be added to a deadline that the rooms below have too: they say better what was late."""

AGAIN_S = 1.0
"""A program that repeats a call after EINTR does so as soon as its signal handler returns."""

ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
"""Signals that ask a program to end also where it handles them.

A timer, SIGCHLD or SIGIO does not: programs do not expect EINTR of a file for those.
"""

NOT_FATAL = frozenset(
    {
        signal.SIGSTOP,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGCONT,
        signal.SIGCHLD,
        signal.SIGWINCH,
        signal.SIGURG,
    }
)
"""Signals that do not end a program that leaves them to their default action, signal(7)."""


def _mask(signals: frozenset[signal.Signals]) -> int:
    return sum(1 << (number - 1) for number in signals)


_ENDING_MASK, _NOT_FATAL_MASK = _mask(ENDING), _mask(NOT_FATAL)
_FIELDS = ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")


def wants_out(status: str) -> bool:
    """Whether a ``/proc/PID/status`` text shows a pending signal that ends a wait.

    Fatal signals do, and of those that the program handles the ones that ask it to end.
    """
    masks = dict.fromkeys(_FIELDS, 0)
    for line in status.split("\n"):  # a name may hold all else that ends a line
        field, _, value = line.partition(":")
        if field in masks:
            masks[field] = int(value, 16)
    pending = (masks["SigPnd"] | masks["ShdPnd"]) & ~masks["SigBlk"] & ~masks["SigIgn"]
    caught = masks["SigCgt"]
    return bool(pending & ((caught & _ENDING_MASK) | (~caught & ~_NOT_FATAL_MASK)))


def _status_of(pid: int) -> str | None:
    """The ``/proc/PID/status`` text of a process or thread; None where it cannot be looked at."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return file.read().decode("ascii", "replace")
    except OSError:
        return None


def _group_of(status: str) -> int:
    """The thread group, which is the process, that a ``/proc/PID/status`` text is of."""
    for line in status.split("\n"):
        field, _, value = line.partition(":")
        if field == "Tgid":
            return int(value)
    return 0


class _Caller:
    """A process or thread on whose behalf handlers wait.

    pid    of the process or thread
    group  the process it belongs to; None until it is looked at, and where it is not known
    known  whether it could be looked at, None before the first time
    waits  the cancel scopes of its handlers, and whether it may be gone while they wait
    """

    __slots__ = ("group", "known", "pid", "waits")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.group = 0
        self.known: bool | None = None
        self.waits: dict[trio.CancelScope, bool] = {}

    def look(self) -> None:
        """Look at it, and cancel what it does not wait for any more."""
        if self.known is False:
            return
        status = _status_of(self.pid)
        if self.known is None:
            self.known = status is not None
            self.group = _group_of(status) if status is not None else 0
        elif status is None or _group_of(status) != self.group:
            status = _status_of(self.group)  # only the thread has ended, as those of pools do
            if status is None:
                self._gone()
        if status is not None and wants_out(status):
            for scope in self.waits:
                scope.cancel()

    def _gone(self) -> None:
        """The process has ended: cancel the reads that may have outlived their reader.

        If another process has its descriptor and waits for such a read, the kernel asks once more
        (filemap_read in mm/filemap.c reads what its read-ahead did not bring). The caller of that
        read is not known.
        """
        self.known = False
        for scope, may_be_gone in self.waits.items():
            if may_be_gone:
                scope.cancel()


@dataclass(frozen=True, slots=True)
class _Try:
    """A read that ended with EINTR: ``[start, stop)``, first tried at ``since_s``."""

    start: int
    stop: int
    since_s: float
    fresh_until_s: float


class InterruptibleRequests:
    """The handlers that wait, each with its caller and its cancel scope.

    Invariant: a scope is among its caller's ``waits`` exactly while its ``waiting`` block runs,
    and a caller is in ``_callers`` exactly while it has waits. ``_tries`` are the reads that ended
    with EINTR a moment ago, by the number of the open file; those that are older go with the next.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._by_pid: dict[int, _Caller] = {}
        self._tries: dict[int, list[_Try]] = {}

    def __len__(self) -> int:
        return sum(len(caller.waits) for caller in self._by_pid.values())

    @contextmanager
    def waiting(self, pid: int) -> Iterator[None]:
        """Around what may wait while the calling process or thread ``pid`` (0: not known) does.

        Raises Interrupted when the caller got a signal, Unavailable at the deadline.
        """
        with self._waiting(pid, trio.current_time(), may_be_gone=False):
            yield

    @contextmanager
    def reading(
        self, pid: int, file: int, start: int, stop: int, *, direct: bool = False
    ) -> Iterator[None]:
        """Around a read of ``[start, stop)`` of the open file number ``file``, opened by ``pid``.

        The deadline counts from the first try if the read is repeated after EINTR, as Python does
        (PEP 475). A read of the kernel's read-ahead may outlive its reader; one that passes the
        page cache by (``direct``) does not. Raises as ``waiting`` does.
        """
        since_s = self._first_try(file, start, stop, trio.current_time())
        try:
            with self._waiting(pid, since_s, may_be_gone=not direct):
                yield
        except Interrupted:
            now = trio.current_time()
            self._forget_tries(now)
            self._tries.setdefault(file, []).append(_Try(start, stop, since_s, now + AGAIN_S))
            raise

    def _first_try(self, file: int, start: int, stop: int, now: float) -> float:
        """When a read was tried first: now, unless it ended with EINTR a moment ago."""
        return min(
            (
                one.since_s
                for one in self._tries.get(file, ())
                if now < one.fresh_until_s and one.start < stop and start < one.stop
            ),
            default=now,
        )

    def _forget_tries(self, now: float) -> None:
        for file, tries in list(self._tries.items()):
            self._tries[file] = [one for one in tries if now < one.fresh_until_s]
            if not self._tries[file]:
                del self._tries[file]

    @contextmanager
    def _waiting(self, pid: int, since_s: float, *, may_be_gone: bool) -> Iterator[None]:
        caller = self._by_pid.get(pid)
        if caller is None:
            caller = self._by_pid[pid] = _Caller(pid)
        if pid in (0, os.getpid()):
            caller.known = False
        elif may_be_gone and caller.known is None:  # after this it may be gone at any time
            caller.look()
        with trio.CancelScope() as scope:
            scope.deadline = since_s + self._deadline_s
            caller.waits[scope] = may_be_gone
            try:
                yield
            finally:
                del caller.waits[scope]
                if not caller.waits:
                    del self._by_pid[pid]
        if scope.cancelled_caught:
            if trio.current_time() >= scope.deadline:
                raise Unavailable(f"no answer within {self._deadline_s:g} s")
            raise Interrupted("the caller has a signal pending")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The task that scans; never ends."""
        task_status.started()
        while True:
            await trio.sleep(SCAN_INTERVAL_S)
            for caller in list(self._by_pid.values()):
                caller.look()
