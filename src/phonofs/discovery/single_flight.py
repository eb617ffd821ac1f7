"""Calls to the service that are under way, each shared by everybody who wants its answer.

A call belongs to a task of its own: callers wait for it, and may leave without ending it.
"""

import copy
import logging
from collections.abc import Awaitable, Callable, Hashable

import trio

from phonofs.errors import CatalogueError, PhonofsError, ServiceError, Unavailable
from phonofs.priority import Priority

log = logging.getLogger(__name__)

Work = Callable[[Priority], Awaitable[None]]


class SharedCall:
    """One call and how it ended. ``name`` says what it is about."""

    def __init__(self, name: str, urgent: bool) -> None:
        self.name = name
        self.priority = Priority(urgent)
        self.over = trio.Event()
        self.error: PhonofsError | None = None

    async def run(self, work: Work) -> None:
        """Do the work; whatever happens to it, the callers learn that it is over."""
        self.error = Unavailable("the listing was given up")
        try:
            await work(self.priority)
            self.error = None
        except* (ServiceError, CatalogueError) as group:
            self.error = _first(group)
            log.debug("listing %s failed: %s", self.name, self.error)
        except* Exception:  # the listings of others go on
            log.exception("listing %s failed by a fault of phonofs", self.name)
        finally:
            self.over.set()

    async def wait(self, most_s: float) -> None:
        """Wait until it is over. Raises the error it ended with, or Unavailable after ``most_s``
        seconds: then it goes on, for the next caller.
        """
        self.priority.rise()
        with trio.move_on_after(most_s) as waiting:
            await self.over.wait()
        if waiting.cancelled_caught:
            raise Unavailable(f"listing {self.name} takes longer than {most_s:g} s")
        if self.error is not None:
            raise copy.copy(self.error) from self.error


class SingleFlight:
    """Owns the calls under way, by what they are about; one for each."""

    def __init__(self) -> None:
        self._calls: dict[Hashable, SharedCall] = {}
        self._nursery: trio.Nursery | None = None

    def __contains__(self, key: Hashable) -> bool:
        return key in self._calls

    def __len__(self) -> int:
        return len(self._calls)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold them until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def start(self, key: Hashable, name: str, work: Work, *, urgent: bool = True) -> SharedCall:
        """Return the call about ``key``; start it if there is none. Raises Unavailable."""
        call = self._calls.get(key)
        if call is not None:
            return call
        if self._nursery is None:
            raise Unavailable("the lister is not running")
        call = SharedCall(name, urgent)
        try:
            self._nursery.start_soon(self._run, key, work, call)  # it begins to run later
        except RuntimeError as error:  # the last one has just ended, and it with it
            raise Unavailable("the lister is not running") from error
        self._calls[key] = call
        return call

    async def _run(self, key: Hashable, work: Work, call: SharedCall) -> None:
        try:
            await call.run(work)
        finally:
            del self._calls[key]


def _first(group: BaseExceptionGroup[PhonofsError]) -> PhonofsError:
    """The error to show for several: the first."""
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group is never empty")
