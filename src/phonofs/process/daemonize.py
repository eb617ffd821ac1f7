"""Goes to the background, before there is an event loop or a thread.

The parent waits on a pipe until the child says that the mount answers, so that ``mount``
returns 0 only then, and with the child's one sentence and status otherwise.
"""

import fcntl
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress

from phonofs.errors import PhonofsError

Ready = Callable[[str], None]
"""Called once with a note for the person who waits (may be empty): the mount answers."""


STREAMS = (0, 1, 2)
"""The descriptors of standard input, output and error."""


def open_standard_streams() -> None:
    """Open /dev/null for each standard stream that is closed, as daemons start their children.

    Otherwise the next file that is opened takes its number: a socket, or the catalogue, which
    then gets what a library or a child process writes to its standard error.
    """
    for stream in STREAMS:
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(stream, True)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def reset_signals() -> None:
    """Undo what a caller may have left behind: blocked signals, and SIGCHLD ignored.

    A mount would never hear of SIGTERM. While SIGCHLD is ignored the kernel keeps no exit status
    (wait(2)), which :mod:`subprocess` takes for success.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def above_streams(descriptor: int) -> int:
    """Move a descriptor that has the number of a standard stream; the number it has then."""
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
    """Run ``work`` in a child of its own session; return the exit status for the parent.

    ``report`` prints the error that ended the work and returns its exit status.

    The child has none of the descriptors that the caller left open but the standard streams and
    those in ``keep``: a lock or a pipe ends with the command, not with the mount. In the child
    this never returns. Call it before any thread or event loop exists.
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
            with suppress(OSError):  # the one that the list was read from
                os.close(descriptor)


def _be_child(
    work: Callable[[Ready], None], write_end: int, report: Callable[[BaseException], int]
) -> None:
    """The child's life; ends the process.

    It leaves the caller's process group only once it is mounted: autofs lets none but the group
    of systemd, which mount(8) and its helpers are in, through to a mount point that is being
    automounted; any other would wait there for itself.
    """

    def ready(note: str) -> None:
        os.setsid()
        _let_go_of_terminal()
        os.write(write_end, f"ready\n{note}".encode())
        os.close(write_end)

    status = 0
    try:
        work(ready)
    except BaseException as error:  # noqa: BLE001 - the last stop before the process ends
        if not isinstance(error, PhonofsError | KeyboardInterrupt):
            traceback.print_exception(error)
        status = report(error)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _let_go_of_terminal() -> None:
    """Standard streams to /dev/null: a closed terminal must not end a later log line."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in STREAMS:
        os.dup2(null, stream)
    os.close(null)
