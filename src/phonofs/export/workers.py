"""Runs the copies of an export side by side, and gives their results to one thread.

Used by ``run``.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Generic, TypeVar

from phonofs.export.contents import NotCopied, Reason

AHEAD = 4
"""Copies queued for each thread, so that none is idle while a batch is synced."""

IN_VAIN = 4
"""So many copies for each thread that fail in a row since the service is away end the tries."""

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class Workers:
    """Threads that copy. ``stop`` is set once the copies should end."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.stop = threading.Event()
        self._pool = ThreadPoolExecutor(count, "export")

    def run(
        self, tasks: Iterable[_Task], work: Callable[[_Task], _Result]
    ) -> "Iterator[Done[_Task, _Result]]":
        """Yield the results of ``work`` for all tasks, as they come.

        Once the service seems to be away, the tasks that are left fail without a try.
        """
        queue = iter(tasks)
        running: dict[Future[_Result], _Task] = {}
        vain = 0
        while True:
            while vain < IN_VAIN * self.count and len(running) < AHEAD * self.count:
                task = next(queue, None)
                if task is None:
                    break
                running[self._pool.submit(work, task)] = task
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                done = Done(running.pop(future), future)
                vain = vain + 1 if done.is_vain else 0
                yield done
        for task in queue:
            away: Future[_Result] = Future()
            away.set_exception(NotCopied(Reason.UNAVAILABLE, "the service cannot be reached"))
            yield Done(task, away)

    def end(self) -> None:
        """End the copies that run, soon, and do not wait for them."""
        self.stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)


class Done(Generic[_Task, _Result]):
    """A task that is done, with its result or error."""

    def __init__(self, task: _Task, future: Future[_Result]) -> None:
        self.task = task
        self._future = future

    @property
    def is_vain(self) -> bool:
        """Whether it failed since the service is away."""
        error = self._future.exception()
        return isinstance(error, NotCopied) and error.reason is Reason.UNAVAILABLE

    def result(self) -> _Result:
        """Return the result. Raises what the work raised."""
        return self._future.result()


@contextmanager
def workers(count: int) -> Iterator[Workers]:
    """Open threads; end them without waiting."""
    opened = Workers(count)
    try:
        yield opened
    finally:
        opened.end()
