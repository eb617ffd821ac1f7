"""Moves a process to the background, before it has an event loop or a thread.

The parent waits on a pipe until the child says that the mount answers. Only then does ``mount``
return 0; otherwise the child prints its error, and the parent returns the child's exit status.
"""

import fcntl
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import NoReturn

from phonofs.errors import PhonofsError

Ready = Callable[[str], None]
"""Called once when the mount answers, with a message for the user or ''."""


STREAMS = (0, 1, 2)
"""The descriptors of standard input, output and error."""


def open_standard_streams() -> None:
    """Open /dev/null for each standard stream that is closed, as it is if a daemon starts us.

    Otherwise the next open file, such as a socket or the catalogue, gets the number of the stream,
    and a library or a child process that writes to its standard error writes into that file.
    """
    for stream in STREAMS:
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this stream's
            os.set_inheritable(stream, True)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def reset_signals() -> None:
    """Unblock signals that the caller may have blocked, and stop ignoring SIGCHLD.

    A mount with SIGTERM blocked could not be stopped. While SIGCHLD is ignored, the kernel keeps
    no exit status (wait(2)), and :mod:`subprocess` reports success.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def above_streams(descriptor: int) -> int:
    """Move a descriptor away from the numbers of the standard streams; return its new number."""
    if descriptor not in STREAMS:
        return descriptor
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, max(STREAMS) + 1)
    os.close(descriptor)
    open_standard_streams()
    return moved


def detach(
    work: Callable[[Ready], None],
    *,
    report: Callable[[BaseException], int],
    keep: Collection[int] = (),
) -> int:
    """Run ``work`` in a child with its own session; return the exit status for the parent.

    ``report`` prints the error that ended the work and returns its exit status.

    Of the caller's open descriptors, the child keeps only the standard streams and those in
    ``keep``, so that a lock or a pipe ends with the command, not with the mount. Never returns
    in the child. Call it before any thread or event loop exists.
    """
    open_standard_streams()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _close_all_but({*STREAMS, write_end, *keep})
        _be_child(work, write_end, report)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    if said.startswith("ready\n"):
        note = said.removeprefix("ready\n").strip()
        if note:
            print(f"phonofs: {note}", file=sys.stderr)
        return 0
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or 1


def _close_all_but(kept: Collection[int]) -> None:
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in kept:
            with suppress(OSError):  # the descriptor that listdir used is already closed
                os.close(descriptor)


def _be_child(
    work: Callable[[Ready], None], write_end: int, report: Callable[[BaseException], int]
) -> NoReturn:
    """Run ``work`` in the child, then end the process.

    The child leaves the caller's process group only after mounting. While autofs mounts a mount
    point, it lets only the process group of systemd access it, to which mount(8) and its helpers
    belong; a process of another group would wait for its own mount.
    """

    def ready(note: str) -> None:
        os.setsid()
        _let_go_of_terminal()
        os.write(write_end, f"ready\n{note}".encode())
        os.close(write_end)

    end_after(lambda: work(ready), report)


def end_after(work: Callable[[], None], report: Callable[[BaseException], int]) -> NoReturn:
    """Run ``work`` in a forked child, then end the process, with the status 0 or that of the error.

    ``report`` prints the error and returns its exit status. Nothing returns into the code of the
    parent, and no handler of its exit runs.
    """
    status = 0
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - the last stop before the process ends
        if not isinstance(error, PhonofsError | KeyboardInterrupt):
            traceback.print_exception(error)
        status = report(error)
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:  # even if nobody reads the streams any more
            os._exit(status)


def _let_go_of_terminal() -> None:
    """Redirect the standard streams to /dev/null: a terminal may close before a later log line."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in STREAMS:
        os.dup2(null, stream)
    os.close(null)
