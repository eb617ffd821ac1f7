"""What ``/proc`` tells of a process (proc(5)). Used by ``access.py`` and ``fuse/interrupts.py``.

A process may be hidden (``hidepid``), may have ended, or may live outside of our process name
space. Then it is not known, which is never an error.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace

COMM_MAX = 15
"""Characters of a program's name that the kernel keeps (TASK_COMM_LEN in linux/sched.h)."""

MOST_BYTES = 65536  # of a file in /proc; these have a few hundred
NO_LOGIN = 0xFFFFFFFF  # what /proc/PID/loginuid shows of a process that nobody logged in for


@dataclass(frozen=True, slots=True)
class Process:
    """A process; None for what is not known.

    pid      its number, that of its main thread
    program  its name, at most ``COMM_MAX`` characters
    login    the user who logged in, also behind ``sudo`` and ``su``
    unit     the unit of systemd that it belongs to, or another control group
    """

    pid: int | None = None
    program: str | None = None
    login: int | None = None
    unit: str | None = None


UNKNOWN = Process()

SESSION_KEPT_S = 1.0
"""How long the session of a process is remembered, unless its program changes: a process seldom
moves to another one, and ``grep -r`` opens thousands of files a second."""


class Programs:
    """Tells which program a process is. Keeps a file of the process seen last open.

    That file is of this process only: reading it fails with ESRCH once the process has ended,
    whoever has its number then. Reading an open file costs a tenth of finding out anew.
    """

    def __init__(self) -> None:
        self._pid = 0
        self._comm = -1

    def look(self, pid: int) -> Process:
        """Return number and program of the process of a process or thread; nothing if pid is 0."""
        if pid <= 0:
            return UNKNOWN
        program = self._program() if pid == self._pid else ""
        if not program:
            self._keep(_process_of(pid))
            program = self._program()
        return Process(self._pid, program) if program else UNKNOWN

    def _keep(self, pid: int) -> None:
        """Open the file of a process, or none if it is 0 or cannot be seen."""
        self._close()
        if pid:
            with suppress(OSError):
                self._comm = os.open(f"/proc/{pid}/comm", os.O_RDONLY | os.O_CLOEXEC)
                self._pid = pid

    def _program(self) -> str:
        """Return what the open file says; nothing if there is none, or its process has ended."""
        try:
            return os.pread(self._comm, MOST_BYTES, 0).decode("utf-8", "replace").rstrip("\n")
        except OSError:
            return ""

    def _close(self) -> None:
        comm, self._comm, self._pid = self._comm, -1, 0
        if comm >= 0:
            os.close(comm)

    __del__ = _close


class Sessions:
    """Remembers all that is known of the process seen last."""

    def __init__(self) -> None:
        self._programs = Programs()
        self._last = UNKNOWN
        self._until_s = 0.0

    def look(self, pid: int) -> Process:
        """Return all that is known of the process of a process or thread."""
        process = self._programs.look(pid)
        if process.pid is None:
            return process
        last, now = self._last, time.monotonic()
        if last.pid != process.pid or last.program != process.program or now > self._until_s:
            login, unit = _login(process.pid), _unit(process.pid)
            self._last = replace(process, login=login, unit=unit)
            self._until_s = now + SESSION_KEPT_S
        return self._last


def _process_of(pid: int) -> int:
    """Return the process of a process or thread, 0 if it is not known.

    ``pidfd_open`` takes processes only, and costs a quarter of reading the status.
    """
    try:
        os.close(os.pidfd_open(pid))
    except OSError:
        status = status_of(pid)
        return group_of(status) if status is not None else 0
    return pid


def status_of(pid: int) -> str | None:
    """Return ``/proc/PID/status`` of a process or thread, or None if it cannot be read."""
    return _read(pid, "status")


def group_of(status: str) -> int:
    """Return the thread group, which is the process id, from a ``/proc/PID/status`` text."""
    for line in status.split("\n"):
        field, _, value = line.partition(":")
        if field == "Tgid":
            return int(value)
    return 0


def _login(pid: int) -> int | None:
    text = _read(pid, "loginuid") or ""
    number = int(text) if text.strip().isdecimal() else NO_LOGIN
    return None if number == NO_LOGIN else number


def _unit(pid: int) -> str | None:
    """Return the last name of the control group: of version 2, or else of systemd's own."""
    for line in (_read(pid, "cgroup") or "").split("\n"):
        if line.startswith("0::") or ":name=systemd:" in line:
            name = line.rpartition("/")[2]
            if name:
                return name
    return None


def _read(pid: int, name: str) -> str | None:
    try:
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, MOST_BYTES).decode("utf-8", "replace")
        finally:
            os.close(descriptor)
    except OSError:
        return None
