"""Background tasks that may fail without taking the mount down.

Used by the composition root. Knows names and coroutines only.
"""

import logging
from collections.abc import Awaitable
from typing import Protocol

import trio

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
CALM_S = 300.0
"""A task that ran this long was well: its next failure starts with the first pause again."""


class Task(Protocol):
    """A background task; it says ``task_status.started()`` when it can be relied on."""

    def __call__(self, *, task_status: trio.TaskStatus[None]) -> Awaitable[None]:
        """Run until cancelled."""


async def keep_running(
    name: str, task: Task, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run ``task``; when it fails, log it and start it again after a growing pause.

    Returns when the task does. A failure before its first start is the caller's to see.
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
    """Passes ``started`` on the first time only; trio refuses a second one."""

    def __init__(self, inner: trio.TaskStatus[None]) -> None:
        self._inner = inner
        self.said = False

    def started(self, value: None = None) -> None:
        """The task can be relied on."""
        if not self.said:
            self.said = True
            self._inner.started(value)
