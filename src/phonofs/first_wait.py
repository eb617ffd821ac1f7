"""Tells when a coroutine first has to wait. Used by the S3 door.

Most answers are made from the cache, without waiting. What is needed only while one waits, such as
a task that watches the client, then costs those nothing: to start a task and to end it takes
50 µs, which is a third of such an answer.
"""

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class FirstWait(Generic[T]):
    """Awaits a coroutine; calls a function when that first lets other tasks run."""

    def __init__(self, work: Coroutine[Any, Any, T], waits: Callable[[], None]) -> None:
        """``waits`` is called at most once. It must not raise."""
        self._work = work
        self._waits = waits

    def __await__(self) -> Generator[Any, Any, T]:
        """Pass on what the coroutine yields to the event loop, and what that answers."""
        try:
            trap = self._work.send(None)
            self._waits()
            while True:
                try:
                    answer = yield trap
                except BaseException as error:  # noqa: BLE001 - it is for the coroutine
                    trap = self._work.throw(error)
                else:
                    trap = self._work.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result
