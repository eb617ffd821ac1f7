"""Reads the status of a running mount and sends it commands.

The status is an extended attribute of the root; commands go through the control socket.
"""

import errno
import json
import os
import socket
from collections.abc import Mapping
from typing import BinaryIO

from phonofs.attributes import STATUS_ATTRIBUTE
from phonofs.bounded_call import call_within
from phonofs.errors import MountFailed, PhonofsError, Refused, Unavailable, UsageError

PATIENCE_S = 2.0
"""How long to wait for the status. The root answers from memory; a slower mount is stuck."""


class NoCommands(UsageError):
    """The mount has no control socket, at least at the moment."""


def status_text(mountpoint: str, patience_s: float = PATIENCE_S) -> bytes:
    """Return the status JSON of a mount, unparsed.

    Raises MountFailed for a dead mount, Unavailable if it does not answer.
    """
    try:
        return call_within(patience_s, lambda: os.getxattr(mountpoint, STATUS_ATTRIBUTE))
    except TimeoutError:
        raise Unavailable(f"{mountpoint} does not answer; its process may be stopped") from None
    except OSError as error:
        raise _explained(mountpoint, error) from None


def status_of(mountpoint: str, patience_s: float = PATIENCE_S) -> dict[str, object]:
    """Return the parsed status of a mount. Raises the same errors as ``status_text``."""
    status = json.loads(status_text(mountpoint, patience_s))
    return status if isinstance(status, dict) else {}


def server_pid(mountpoint: str) -> int | None:
    """Return the pid of the process that serves a mount; None if it is dead or does not say."""
    try:
        pid = status_of(mountpoint, patience_s=1.0).get("pid")
    except PhonofsError:
        return None
    return pid if isinstance(pid, int) and pid > 0 else None


def connect(
    mountpoint: str, request: Mapping[str, object], status: Mapping[str, object] | None = None
) -> BinaryIO:
    """Send a command to a mount; return its answers, one JSON line each (``control/server.py``).

    ``status`` is its status, if that is known already: that of a daemon without a mount.

    Raises UsageError if the mount accepts no commands from this user, NoCommands if it accepts none
    from anybody, and the errors of ``status_of``.
    """
    status = status_of(mountpoint) if status is None else status
    path, shared = status.get("control"), status.get("control_shared")
    if not isinstance(path, str):
        why = status.get("control_error") or "its status does not name a socket"
        raise NoCommands(f"{mountpoint} accepts no commands: {why}")
    try:
        return _sent(path, request)
    except PermissionError:
        if not isinstance(shared, str):
            raise UsageError(
                f"{mountpoint} accepts no commands from you, only from its owner"
            ) from None
    except (FileNotFoundError, ConnectionRefusedError):
        if not isinstance(shared, str):
            raise NoCommands(
                f"the control socket {path} of {mountpoint} does not exist; the mount creates it "
                "again within seconds"
            ) from None
    except OSError as error:
        raise NoCommands(f"{mountpoint} cannot be sent commands: {error.strerror}") from None
    try:
        return _sent("\0" + shared.removeprefix("@"), request)
    except OSError as error:
        raise NoCommands(f"{mountpoint} cannot be sent commands: {error.strerror}") from None


def _sent(path: str, request: Mapping[str, object]) -> BinaryIO:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        connection.sendall(json.dumps(request).encode() + b"\n")
        return connection.makefile("rb")  # the file keeps the connection open


def command(
    mountpoint: str, request: Mapping[str, object], status: Mapping[str, object] | None = None
) -> Mapping[str, object]:
    """Send a command to a mount; return its answer. ``status`` is as in :func:`connect`.

    If the answer is an error, raises UsageError, or Refused or Unavailable if the service failed.
    """
    with connect(mountpoint, request, status) as answers:
        answer = json.loads(answers.readline() or b"{}")
    if "error" in answer or not answer:
        raise refusal(mountpoint, answer.get("error"), answer.get("exit_status"))
    return answer if isinstance(answer, dict) else {}


def refusal(mountpoint: str, error: object, exit_status: object) -> PhonofsError:
    """Return the error that an answer of a mount stands for."""
    kinds = {kind.exit_status: kind for kind in (UsageError, Refused, Unavailable)}
    kind = kinds.get(exit_status, UsageError) if isinstance(exit_status, int) else UsageError
    return kind(f"{mountpoint}: {error or 'the mount gave no answer'}")


def _explained(mountpoint: str, error: OSError) -> PhonofsError:
    if error.errno == errno.ENOTCONN:
        return MountFailed(
            f"{mountpoint} is a mount whose process has died; "
            f"take it down with `phonofs umount {mountpoint}`"
        )
    return MountFailed(f"{mountpoint} cannot be read: {error.strerror}")
