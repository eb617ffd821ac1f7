"""Forks a child process of a command, stops it and waits for it.

The child has its own session, so that Ctrl-C reaches only the parent, which stops the child. The
child gets SIGTERM if the parent dies for any reason.
"""

import ctypes
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from phonofs.cli.report import report
from phonofs.errors import PhonofsError
from phonofs.process.daemonize import Ready, end_after

PR_SET_PDEATHSIG = 1  # linux/prctl.h
STOP_S = 6.0
"""A clean stop of a mount takes up to 5 s."""


class Child:
    """A running child. Owns its pid and pidfd; ``status`` is its exit status after it ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None
        self._process = os.pidfd_open(pid)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait until it ends; return its exit status, or None after ``timeout_s``."""
        if self.status is None and self._ends_within(timeout_s):
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def stop(self) -> None:
        """End it with SIGTERM, and with SIGKILL after ``STOP_S``."""
        if self.wait(0) is None:
            signal.pidfd_send_signal(self._process, signal.SIGTERM)
            if self.wait(STOP_S) is None:
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
                self.wait()
        os.close(self._process)

    def _ends_within(self, timeout_s: float | None) -> bool:
        poll = select.poll()
        poll.register(self._process, select.POLLIN)  # readable when it ends: pidfd_open(2)
        return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


class ChildFailed(PhonofsError):
    """A child ended before it was ready; it has already reported why."""

    def __init__(self, status: int) -> None:
        super().__init__("a child process ended early")
        self.exit_status = status


@contextmanager
def running(
    work: Callable[[Ready], None], meanwhile: Callable[[], None] = lambda: None
) -> Iterator[Child]:
    """Run ``work`` in a child during the block, which starts after ``work`` has called ``ready``.

    ``meanwhile`` is called in this process as soon as the child exists; it may start threads. None
    may exist before. Raises ChildFailed if the child ends before that.
    """
    child = _fork(work, meanwhile)
    try:
        yield child
    finally:
        child.stop()


def _fork(work: Callable[[Ready], None], meanwhile: Callable[[], None]) -> Child:
    read_end, write_end = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _be_child(work, write_end, parent)
    os.close(write_end)
    meanwhile()
    with os.fdopen(read_end, "rb") as pipe:
        is_ready = pipe.read(1)
    if not is_ready:
        raise ChildFailed(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) or 1)
    return Child(pid)


def _be_child(work: Callable[[Ready], None], write_end: int, parent: int) -> NoReturn:
    def ready(note: str) -> None:
        os.write(write_end, b".")
        os.close(write_end)

    def run() -> None:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent died before prctl was called
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        work(ready)

    end_after(run, report)
