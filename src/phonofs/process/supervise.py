"""Restarts background tasks that fail, so that they do not take the mount down.

Used by ``app.py`` and ``mount.py``. Knows nothing of a task but its name and its coroutine.
"""

import logging
from collections.abc import Awaitable
from typing import Protocol

import trio

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
CALM_S = 300.0
"""After a task has run this long, its next failure is followed by the first pause again."""


class Task(Protocol):
    """A background task; it calls ``task_status.started()`` when it is ready."""

    def __call__(self, *, task_status: trio.TaskStatus[None]) -> Awaitable[None]:
        """Run until cancelled."""


async def keep_running(
    name: str, task: Task, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run ``task``; if it fails, log the error and restart it after a pause, longer each time.

    Returns when the task returns. Raises the error of a task that fails before it first started.
    """
    pause_s = FIRST_PAUSE_S
    status = _Once(task_status)
    while True:
        begun = trio.current_time()
        try:
            await task(task_status=status)
        except Exception:
            if not status.said:
                raise
            if trio.current_time() - begun > CALM_S:
                pause_s = FIRST_PAUSE_S
            log.exception("%s failed and is started again in %g s", name, pause_s)
        else:
            return
        await trio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


class _Once:
    """Passes on only the first ``started`` call; trio rejects a second one."""

    def __init__(self, inner: trio.TaskStatus[None]) -> None:
        self._inner = inner
        self.said = False

    def started(self, value: None = None) -> None:
        """Report that the task is ready."""
        if not self.said:
            self.said = True
            self._inner.started(value)
