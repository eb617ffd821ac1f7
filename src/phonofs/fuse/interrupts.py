"""Gives each waiting handler a deadline, and cancels it if its caller has a signal pending.

pyfuse3 does not pass FUSE_INTERRUPT on. So a caller with a handled signal, or a caller in lookup,
open or readdir with any signal, would wait for our answer for ever. ``/proc/PID/status`` shows
which signals are pending for a process (proc(5)); a task scans the callers of all waiting
handlers.

Some callers cannot be examined: the thread that opened a file may have ended while others read
the file, and ``hidepid=2`` hides the processes of other users. Such a caller is *not known*. That
does not mean that it wants to stop waiting, so its handlers wait until their deadline.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from phonofs.errors import Interrupted, Unavailable
from phonofs.proc import group_of, status_of

SCAN_INTERVAL_S = 0.1
"""A delay of 0.1 s seems immediate to a person; 200 waiting readers cost 2,000 small reads of
``/proc`` a second."""

MARGIN_S = 0.5
"""To be added to a deadline that the layers below have too: their errors say what was late."""

AGAIN_S = 1.0
"""How long after EINTR a read counts as repeated: a program that repeats a call does so as soon as
its signal handler returns."""

ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
"""Signals that ask a program to end, even if the program handles them.

A timer's signal, SIGCHLD and SIGIO do not: programs do not expect EINTR from a file for those.
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
"""Signals whose default action does not end a program (signal(7))."""


def _mask(signals: frozenset[signal.Signals]) -> int:
    return sum(1 << (number - 1) for number in signals)


_ENDING_MASK, _NOT_FATAL_MASK = _mask(ENDING), _mask(NOT_FATAL)
_FIELDS = ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")


def wants_out(status: str) -> bool:
    """Return whether a ``/proc/PID/status`` text shows a pending signal that ends a wait.

    Fatal signals end a wait. A signal that the program handles ends it only if it is in
    ``ENDING``.
    """
    masks = dict.fromkeys(_FIELDS, 0)
    for line in status.split("\n"):  # not splitlines: a process name may hold other line ends
        field, _, value = line.partition(":")
        if field in masks:
            masks[field] = int(value, 16)
    pending = (masks["SigPnd"] | masks["ShdPnd"]) & ~masks["SigBlk"] & ~masks["SigIgn"]
    caught = masks["SigCgt"]
    return bool(pending & ((caught & _ENDING_MASK) | (~caught & ~_NOT_FATAL_MASK)))


class _Caller:
    """A process or thread on whose behalf handlers wait.

    pid    of the process or thread
    group  the process it belongs to; 0 until it is examined, and if it is not known
    known  whether its status could be read; None before the first attempt
    waits  the cancel scopes of its handlers, and whether the caller may end while they wait
    """

    __slots__ = ("group", "known", "pid", "waits")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.group = 0
        self.known: bool | None = None
        self.waits: dict[trio.CancelScope, bool] = {}

    def look(self) -> None:
        """Read the caller's status, and cancel its handlers if it no longer waits for them."""
        if self.known is False:
            return
        status = status_of(self.pid)
        if self.known is None:
            self.known = status is not None
            self.group = group_of(status) if status is not None else 0
        elif status is None or group_of(status) != self.group:
            status = status_of(self.group)  # perhaps only the thread has ended (thread pools)
            if status is None:
                self._gone()
        if status is not None and wants_out(status):
            for scope in self.waits:
                scope.cancel()

    def _gone(self) -> None:
        """Cancel the reads that may have outlived their reader, because the process has ended.

        If another process shares the file descriptor and waits for such a read, the kernel sends
        the read again (filemap_read in mm/filemap.c reads what its read-ahead did not bring). The
        caller of that second read is not known.
        """
        self.known = False
        for scope, may_be_gone in self.waits.items():
            if may_be_gone:
                scope.cancel()


@dataclass(frozen=True, slots=True)
class _Try:
    """A read of ``[start, stop)`` that ended with EINTR.

    since_s        when it was first tried (trio's clock)
    fresh_until_s  until when an overlapping read counts as its repetition (trio's clock)
    """

    start: int
    stop: int
    since_s: float
    fresh_until_s: float


class InterruptibleRequests:
    """The handlers that wait, each with its caller and its cancel scope.

    Invariant: a scope is among its caller's ``waits`` exactly while its ``waiting`` block runs,
    and a caller is in ``_by_pid`` exactly while it has waits. ``_tries`` holds the reads that
    ended with EINTR less than ``AGAIN_S`` ago, by the number of the open file; older ones are
    dropped when the next one is added.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._by_pid: dict[int, _Caller] = {}
        self._tries: dict[int, list[_Try]] = {}

    def __len__(self) -> int:
        return sum(len(caller.waits) for caller in self._by_pid.values())

    @contextmanager
    def waiting(self, pid: int) -> Iterator[None]:
        """Run a block that may wait on behalf of the process or thread ``pid`` (0: not known).

        Raises Interrupted if the caller has a signal pending, Unavailable at the deadline.
        """
        with self._waiting(pid, trio.current_time(), may_be_gone=False):
            yield

    @contextmanager
    def reading(
        self, pid: int, file: int, start: int, stop: int, *, direct: bool = False
    ) -> Iterator[None]:
        """Run a block that reads ``[start, stop)`` of open file number ``file``, opened by ``pid``.

        If the read is repeated after EINTR, as Python does (PEP 475), the deadline counts from
        the first try. A read of the kernel's read-ahead may outlive its reader; a read that
        bypasses the page cache (``direct``) does not. Raises Interrupted and Unavailable like
        :meth:`waiting`.
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
        """Return when a read was first tried: ``now``, unless it has just ended with EINTR."""
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
        elif may_be_gone and caller.known is None:  # from now on the caller may end at any time
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
        """Scan the callers until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(SCAN_INTERVAL_S)
            for caller in list(self._by_pid.values()):
                caller.look()
