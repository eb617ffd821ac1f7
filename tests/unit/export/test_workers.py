"""How many copies run at the same time."""

import threading

import pytest

from phonofs.export.contents import NotCopied, Reason
from phonofs.export.workers import FEW, QUICK_S, Workers

pytestmark = pytest.mark.real_clock


class Counted:
    """Work that counts how much of it runs; from the middle on, so much waits for each other."""

    def __init__(self, tasks: int, together: int) -> None:
        self._meet = range(tasks // 2, tasks)
        self._left = together
        self._barrier = threading.Barrier(together)
        self._lock = threading.Lock()
        self._running = 0
        self.most = 0

    def __call__(self, task: int) -> int:
        with self._lock:
            self._running += 1
            self.most = max(self.most, self._running)
            meets = task in self._meet and self._left > 0
            self._left -= meets
        if meets:
            self._barrier.wait(20)
        with self._lock:
            self._running -= 1
        return task


class Clock:
    """Each copy takes ``step_s`` by this clock."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._calls = threading.local()

    def __call__(self) -> float:
        self._calls.count = getattr(self._calls, "count", 0) + 1
        return self._calls.count * self._step_s


def run(count: int, step_s: float, tasks: int, together: int) -> int:
    workers = Workers(count, Clock(step_s))
    work = Counted(tasks, together)
    try:
        done = list(workers.run(range(tasks), work))
    finally:
        workers.end()
    assert sorted(each.result() for each in done) == list(range(tasks))
    return work.most


def test_copies_that_wait_for_something_have_all_threads():
    assert run(16, 5 * QUICK_S, 200, 16) == 16


def test_copies_that_wait_for_nothing_have_few():
    assert run(16, QUICK_S / 5, 200, FEW) == FEW


@pytest.mark.parametrize("count", [1, 3])
def test_no_more_run_than_were_asked_for(count):
    assert run(count, 5 * QUICK_S, 60, count) == count


def test_once_the_service_is_away_the_rest_fails_without_a_try():
    workers = Workers(8)
    tried = []

    def away(task: int) -> None:
        tried.append(task)
        raise NotCopied(Reason.UNAVAILABLE, "away")

    try:
        done = list(workers.run(range(1000), away))
    finally:
        workers.end()
    assert len(done) == 1000
    assert all(each.is_vain for each in done)
    assert len(tried) < 200
