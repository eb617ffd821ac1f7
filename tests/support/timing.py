"""Bounds on time, for all tests, with one scale: how slow this machine is just now.

A bound says what an idle machine needs, generously. ``timely`` widens it only after it was
missed, by the factor that ``slowness`` measures then. ``LongestStep`` and ``Stretches`` measure
the event loop in CPU time of its thread, where other processes do not count. Nor do they for
``FairClock``, by which an event loop may run.
"""

import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

IDLE_START_S = 0.015
"""A bare interpreter starts and ends in this time on an idle machine of two cores (measured)."""

_STARTS = 7

AnyInstrument = TypeVar("AnyInstrument", bound=trio.abc.Instrument)


def slowness() -> float:
    """Return how many times longer than on an idle machine a process takes now; at least 1."""
    taken = []
    for _ in range(_STARTS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
        taken.append(time.perf_counter() - began)
    return max(1.0, statistics.median(taken) / IDLE_START_S)


def timely(took_s: float, bound_s: float) -> bool:
    """Return whether what took so long stays within the bound, as slow as this machine is."""
    return took_s <= bound_s or took_s <= bound_s * slowness()


class Stopwatch:
    """The time since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __repr__(self) -> str:
        return f"Stopwatch({self.seconds:.3f} s)"

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def within(self, bound_s: float) -> bool:
        """Return whether the time until now is within the bound (see ``timely``)."""
        return timely(self.seconds, bound_s)


class FairClock(trio.abc.Clock):
    """A clock ``rate`` times as fast as the wall's, which stands still while others use the CPU.

    Linux says how long each thread was ready to run without running; that time is left out. So a
    deadline leaves as much to a test on a busy machine as on an idle one. Where Linux does not say
    it (without ``/proc/PID/task/TID/schedstat``), nothing is left out.
    """

    _LOOK_S = 0.004
    """How often the threads are looked at, in the wall's time: that takes 0.2 ms for twenty."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._looked_at = time.perf_counter()
        self._waited_s: dict[str, float] = {}
        self._until_look_s = 0.0
        self._since_look_s = 0.0

    def start_clock(self) -> None:
        """Begin at 0."""
        self._looked_at = time.perf_counter()
        self._waited_s = _waited_s()

    def current_time(self) -> float:
        now = time.perf_counter()
        since_look_s = now - self._looked_at
        if since_look_s < self._LOOK_S:
            self._since_look_s = since_look_s
        else:
            before, self._waited_s = self._waited_s, _waited_s()
            waited_s = sum(
                max(0.0, total - before.get(thread, 0.0))
                for thread, total in self._waited_s.items()
            )
            self._until_look_s += max(self._since_look_s, since_look_s - waited_s)
            self._since_look_s, self._looked_at = 0.0, now
        return self._rate * (self._until_look_s + self._since_look_s)

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return (deadline - self.current_time()) / self._rate


def _waited_s() -> dict[str, float]:
    """Return how long each thread of this process has been ready to run without running."""
    waited = {}
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/schedstat", "rb") as file:
                waited[thread] = int(file.read().split()[1]) / 1e9
        except (OSError, IndexError):  # it has ended; or Linux does not say it
            continue
    return waited


class LongestStep(trio.abc.Instrument):
    """The longest step of any task: for so long no other task could run."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._began_s = time.thread_time()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began_s = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.note(time.thread_time() - self._began_s, task)

    def note(self, spent_s: float, task: trio.lowlevel.Task) -> None:
        """Take a step into account; subclasses override it."""
        self.longest_s = max(self.longest_s, spent_s)


class Stretches(trio.abc.Instrument):
    """The longest time, and all time, that the loop spent between two polls of its sockets."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.spent_s = 0.0
        self._since_s = time.thread_time()

    def after_io_wait(self, timeout: float) -> None:
        """Begin a stretch: the loop has polled its sockets."""
        self._since_s = time.thread_time()

    def before_io_wait(self, timeout: float) -> None:
        """End the stretch: the loop is about to poll its sockets."""
        stretch_s = time.thread_time() - self._since_s
        self.spent_s += stretch_s
        self.longest_s = max(self.longest_s, stretch_s)


@contextmanager
def stretches() -> Iterator[Stretches]:
    """Measure this event loop between its polls, the current stretch included."""
    with _instrument(Stretches) as measured:
        try:
            yield measured
        finally:
            measured.before_io_wait(0)


@contextmanager
def longest_step() -> Iterator[LongestStep]:
    """Measure the steps of all tasks; await a checkpoint at the end for the block's own step."""
    with _instrument(LongestStep) as measured:
        yield measured


@contextmanager
def _instrument(made: Callable[[], AnyInstrument]) -> Iterator[AnyInstrument]:
    """Without the cost of collecting what other tests left: that can take a hundred ms."""
    gc.collect()
    gc.freeze()
    instrument = made()  # it measures from now on
    trio.lowlevel.add_instrument(instrument)
    try:
        yield instrument
    finally:
        trio.lowlevel.remove_instrument(instrument)
        gc.unfreeze()
