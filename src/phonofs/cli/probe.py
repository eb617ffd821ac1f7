"""Asking a running mount about itself, through its root's extended attribute."""

import errno
import json
import os
import queue
import socket
import threading
from collections.abc import Mapping
from typing import BinaryIO

from phonofs.errors import MountFailed, PhonofsError, Unavailable, UsageError

STATUS_ATTRIBUTE = "user.phonofs.status"  # of the root

PATIENCE_S = 2.0
"""The root answers from memory; a mount that takes longer is stuck."""


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
    """The answers, a JSON line each, of a mount to a command (``control.py``).

    Raises UsageError where it takes none from us, and as ``status_of`` does.
    """
    path = status_of(mountpoint).get("control")
    if not isinstance(path, str):
        raise UsageError(f"{mountpoint} does not say where it takes commands")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
        connection.sendall(json.dumps(request).encode() + b"\n")
        return connection.makefile("rb")
    except OSError as error:
        raise UsageError(
            f"{mountpoint} takes no commands from you ({error.strerror}): only its owner may "
            "give them"
        ) from None
    finally:
        connection.close()  # the file made of it keeps it open


def command(mountpoint: str, request: Mapping[str, object]) -> None:
    """Have a mount do something. Raises UsageError with its reason where it does not."""
    with connect(mountpoint, request) as answers:
        answer = json.loads(answers.readline() or b"{}")
    if "error" in answer or not answer:
        raise UsageError(f"{mountpoint}: {answer.get('error', 'no answer')}")


def _explained(mountpoint: str, error: OSError) -> PhonofsError:
    if error.errno == errno.ENOTCONN:
        return MountFailed(
            f"{mountpoint} is a mount whose process has died; "
            f"take it down with `phonofs umount {mountpoint}`"
        )
    return MountFailed(f"{mountpoint} cannot be asked: {error.strerror}")
