"""Shares each running call to the service among all callers that want its result.

Each call runs in its own task: a caller waits for it, and may leave without ending it.
"""

import copy
import logging
from collections.abc import Awaitable, Callable, Hashable

import trio

from phonofs.errors import CatalogueError, PhonofsError, ServiceError, Unavailable, unwrap
from phonofs.priority import Priority

log = logging.getLogger(__name__)

Work = Callable[[Priority], Awaitable[None]]


class SharedCall:
    """One call and its outcome. ``name`` says what is listed, for messages."""

    def __init__(self, name: str, priority: Priority) -> None:
        self.name = name
        self.priority = priority
        self.over = trio.Event()
        self.error: PhonofsError | None = None

    async def run(self, work: Work) -> None:
        """Do the work; set ``over`` however it ends."""
        self.error = Unavailable("the listing was given up")
        try:
            await work(self.priority)
            self.error = None
        except* (ServiceError, CatalogueError) as group:
            first = unwrap(group)  # to show it for all
            assert isinstance(first, PhonofsError)
            self.error = first
            log.debug("listing %s failed: %s", self.name, self.error)
        except* Exception:  # other listings must continue
            log.exception("listing %s failed by a fault of phonofs", self.name)
        finally:
            self.over.set()

    async def wait(self, most_s: float, *, urgent: bool = True) -> None:
        """Wait until the call is over. Raises the error that the call ended with.

        Raises Unavailable after ``most_s`` seconds; the call then continues for the next caller.
        An ``urgent`` caller makes the call urgent.
        """
        if urgent:
            self.priority.rise()
        with trio.move_on_after(most_s) as waiting:
            await self.over.wait()
        if waiting.cancelled_caught:
            raise Unavailable(f"listing {self.name} takes longer than {most_s:g} s")
        if self.error is not None:
            raise copy.copy(self.error) from self.error


class SingleFlight:
    """Owns the running calls, at most one for each key."""

    def __init__(self) -> None:
        self._calls: dict[Hashable, SharedCall] = {}
        self._nursery: trio.Nursery | None = None

    def __contains__(self, key: Hashable) -> bool:
        return key in self._calls

    def __len__(self) -> int:
        return len(self._calls)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the calls until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def start(
        self, key: Hashable, name: str, work: Work, *, urgent: bool = True, last: bool = False
    ) -> SharedCall:
        """Return the call for ``key``; start it if there is none. Raises Unavailable.

        A call that is ``last`` goes after all others, until an urgent caller waits for it.
        """
        call = self._calls.get(key)
        if call is not None:
            return call
        if self._nursery is None:
            raise Unavailable("the lister is not running")
        call = SharedCall(name, Priority(urgent, last=last))
        try:
            self._nursery.start_soon(self._run, key, work, call)  # it begins to run later
        except RuntimeError as error:  # the nursery has just closed
            raise Unavailable("the lister is not running") from error
        self._calls[key] = call
        return call

    async def _run(self, key: Hashable, work: Work, call: SharedCall) -> None:
        try:
            await call.run(work)
        finally:
            del self._calls[key]
