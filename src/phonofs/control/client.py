"""Asking a running mount about itself, through its root's extended attribute."""

import errno
import json
import os
import queue
import socket
import threading
from collections.abc import Mapping
from typing import BinaryIO

from phonofs.errors import MountFailed, PhonofsError, Refused, Unavailable, UsageError

STATUS_ATTRIBUTE = "user.phonofs.status"  # of the root

PATIENCE_S = 2.0
"""The root answers from memory; a mount that takes longer is stuck."""


class NoCommands(UsageError):
    """The mount has no control socket, at least now."""


def status_text(mountpoint: str, patience_s: float = PATIENCE_S) -> bytes:
    """The status JSON of a mount, as it gives it.

    Asked in a thread, because a call into a mount whose process is stopped cannot be broken off.
    Raises MountFailed for a dead mount, Unavailable for one that does not answer.
    """
    answers: queue.SimpleQueue[bytes | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(os.getxattr(mountpoint, STATUS_ATTRIBUTE))
        except OSError as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True, name="phonofs status").start()
    try:
        answer = answers.get(timeout=patience_s)
    except queue.Empty:
        raise Unavailable(f"{mountpoint} does not answer; its process may be stopped") from None
    if isinstance(answer, OSError):
        raise _explained(mountpoint, answer) from None
    return answer


def status_of(mountpoint: str, patience_s: float = PATIENCE_S) -> dict[str, object]:
    """The status of a mount, read. Raises as ``status_text`` does."""
    status = json.loads(status_text(mountpoint, patience_s))
    return status if isinstance(status, dict) else {}


def server_pid(mountpoint: str) -> int | None:
    """The process that serves a mount; None where it is dead or does not say."""
    try:
        pid = status_of(mountpoint, patience_s=1.0).get("pid")
    except PhonofsError:
        return None
    return pid if isinstance(pid, int) and pid > 0 else None


def connect(mountpoint: str, request: Mapping[str, object]) -> BinaryIO:
    """The answers, a JSON line each, of a mount to a command (``control/server.py``).

    Raises UsageError where it takes none from us (NoCommands where it takes none at all), and as
    ``status_of`` does.
    """
    status = status_of(mountpoint)
    path, shared = status.get("control"), status.get("control_shared")
    if not isinstance(path, str):
        why = status.get("control_error") or "it does not say where"
        raise NoCommands(f"{mountpoint} takes no commands: {why}")
    try:
        return _sent(path, request)
    except PermissionError:
        if not isinstance(shared, str):
            raise UsageError(
                f"{mountpoint} takes no commands from you: only its owner may give them"
            ) from None
    except (FileNotFoundError, ConnectionRefusedError):
        if not isinstance(shared, str):
            raise NoCommands(
                f"the control socket {path} of {mountpoint} is gone; the mount makes it again "
                "within some seconds"
            ) from None
    except OSError as error:
        raise NoCommands(f"{mountpoint} cannot be given commands: {error.strerror}") from None
    try:
        return _sent("\0" + shared.removeprefix("@"), request)
    except OSError as error:
        raise NoCommands(f"{mountpoint} cannot be given commands: {error.strerror}") from None


def _sent(path: str, request: Mapping[str, object]) -> BinaryIO:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        connection.sendall(json.dumps(request).encode() + b"\n")
        return connection.makefile("rb")  # which keeps it open


def command(mountpoint: str, request: Mapping[str, object]) -> Mapping[str, object]:
    """Have a mount do something; its answer.

    Raises what it answered where it does not: UsageError, or what the service made of it.
    """
    with connect(mountpoint, request) as answers:
        answer = json.loads(answers.readline() or b"{}")
    if "error" in answer or not answer:
        error = str(answer.get("error", "the mount gave no answer"))
        kinds = {kind.exit_status: kind for kind in (UsageError, Refused, Unavailable)}
        raise kinds.get(answer.get("exit_status"), UsageError)(f"{mountpoint}: {error}")
    return answer if isinstance(answer, dict) else {}


def _explained(mountpoint: str, error: OSError) -> PhonofsError:
    if error.errno == errno.ENOTCONN:
        return MountFailed(
            f"{mountpoint} is a mount whose process has died; "
            f"take it down with `phonofs umount {mountpoint}`"
        )
    return MountFailed(f"{mountpoint} cannot be asked: {error.strerror}")
