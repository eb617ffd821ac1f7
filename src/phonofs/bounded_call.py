"""Bounds the time of a call into a mount, which never returns while the mount's process is stopped.

Used by the commands and the checks before a mount; the event loop has threads of its own.
"""

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def call_within(timeout_s: float, call: Callable[[], T]) -> T:
    """Return what ``call`` returns, or raise its OSError. Raises TimeoutError if it takes longer.

    A thread makes the call, since a system call into such a mount cannot be interrupted. The thread
    is a daemon, so that a call that never returns does not keep the process from ending.
    """
    answers: queue.SimpleQueue[T | OSError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(call())
        except OSError as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True, name="phonofs call").start()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, OSError):
        raise answer
    return answer
