"""Runs the copies of an export side by side, and gives their results to one thread.

Used by ``run``.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from threading import Event
from typing import Generic, TypeVar

from phonofs.export.contents import NotCopied, Reason

AHEAD = 4
"""Copies queued for each thread, so that none is idle while a batch is synced."""

FEW = 4
"""Threads for copies that wait for nothing. More of them copied 1,000 small cached files in 0.43 s
instead of 0.27 s: they spend their time on handing Python's lock to each other."""

QUICK_S = 0.01
"""A copy that takes less was not downloaded."""

RECENT = 32
"""How many copies tell whether they are quick."""

IN_VAIN = 4
"""So many copies for each thread that fail in a row since the service is away end the tries."""

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class _Pool:
    """Threads, and how many copies are queued for each of them or run; at most AHEAD."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._executor = ThreadPoolExecutor(max(1, threads), "export")
        self._count = 0

    @property
    def load(self) -> float:
        """How many copies there are for each thread."""
        return self._count / self._threads if self._threads else AHEAD

    def submit(self, work: Callable[[], _Result]) -> "Future[_Result]":
        """Run work in a thread, later."""
        self._count += 1
        return self._executor.submit(work)

    def ended(self) -> None:
        """Note that a copy has ended."""
        self._count -= 1

    def end(self) -> None:
        """Begin no copy any more."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class Workers:
    """Threads that copy. ``stop`` is set once the copies should end.

    ``_took_s`` are the seconds that the last copies took.
    """

    def __init__(self, count: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.count = count
        self.stop = Event()
        self._few, self._more = _Pool(min(count, FEW)), _Pool(max(0, count - FEW))
        self._clock_s = clock_s
        self._took_s = deque[float](maxlen=RECENT)

    def run(
        self, tasks: Iterable[_Task], work: Callable[[_Task], _Result]
    ) -> "Iterator[Done[_Task, _Result]]":
        """Yield the results of ``work`` for all tasks, as they come.

        Once the service seems to be away, the tasks that are left fail without a try.
        """
        queue = iter(tasks)
        ended: SimpleQueue[Future[_Result]] = SimpleQueue()
        running: dict[Future[_Result], tuple[_Task, _Pool]] = {}
        vain = 0
        while True:
            while vain < IN_VAIN * self.count and (pool := self._with_room()) is not None:
                task = next(queue, None)
                if task is None:
                    break
                future = pool.submit(partial(self._timed, work, task))
                running[future] = task, pool
                future.add_done_callback(ended.put)
            if not running:
                break
            future = ended.get()
            task, pool = running.pop(future)
            pool.ended()
            done = Done(task, future)
            vain = vain + 1 if done.is_vain else 0
            yield done
        for task in queue:
            away: Future[_Result] = Future()
            away.set_exception(NotCopied(Reason.UNAVAILABLE, "the service cannot be reached"))
            yield Done(task, away)

    def end(self) -> None:
        """End the copies that run, soon, and do not wait for them."""
        self.stop.set()
        self._few.end()
        self._more.end()

    def _with_room(self) -> _Pool | None:
        """Return who takes the next copy: all threads only if they wait for something."""
        took_s = list(self._took_s)
        wait = sum(took_s) > QUICK_S * len(took_s)
        pool = self._more if wait and self._more.load < self._few.load else self._few
        return pool if pool.load < AHEAD else None

    def _timed(self, work: Callable[[_Task], _Result], task: _Task) -> _Result:
        began_s = self._clock_s()
        try:
            return work(task)
        finally:
            self._took_s.append(self._clock_s() - began_s)


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
