"""Questions on their way to the service, each shared by all who want its answer.

They belong to a task of their own: callers wait for them, and go without ending them.
"""

import copy
import logging
from collections.abc import Awaitable, Callable, Hashable

import trio

from phonofs.errors import CatalogueError, PhonofsError, ServiceError, Unavailable
from phonofs.priority import Priority

log = logging.getLogger(__name__)

Work = Callable[[Priority], Awaitable[None]]


class Flight:
    """One on its way, and how it ended. ``name`` says what it is about."""

    def __init__(self, name: str, urgent: bool) -> None:
        self.name = name
        self.priority = Priority(urgent)
        self.over = trio.Event()
        self.error: PhonofsError | None = None

    async def wait(self, most_s: float) -> None:
        """Until it is over. Raises the error it ended with; Unavailable after ``most_s``
        seconds: it goes on, for the next one who asks.
        """
        self.priority.rise()
        with trio.move_on_after(most_s) as waiting:
            await self.over.wait()
        if waiting.cancelled_caught:
            raise Unavailable(f"listing {self.name} takes longer than {most_s:g} s")
        if self.error is not None:
            raise copy.copy(self.error) from self.error


class SingleFlight:
    """Owns those on their way, by what they are about; one for each."""

    def __init__(self) -> None:
        self._flying: dict[Hashable, Flight] = {}
        self._nursery: trio.Nursery | None = None

    def __contains__(self, key: Hashable) -> bool:
        return key in self._flying

    def __len__(self) -> int:
        return len(self._flying)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold them until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def start(self, key: Hashable, name: str, work: Work, *, urgent: bool = True) -> Flight:
        """The one about ``key``, which is begun if there is none. Raises Unavailable."""
        flight = self._flying.get(key)
        if flight is not None:
            return flight
        if self._nursery is None:
            raise Unavailable("the lister is not running")
        flight = Flight(name, urgent)
        try:
            self._nursery.start_soon(self._fly, key, work, flight)  # it begins to run later
        except RuntimeError as error:  # the last one has just ended, and it with it
            raise Unavailable("the lister is not running") from error
        self._flying[key] = flight
        return flight

    async def _fly(self, key: Hashable, work: Work, flight: Flight) -> None:
        """Whatever happens to it, the callers learn that it is over."""
        flight.error = Unavailable("the listing was given up")
        try:
            await work(flight.priority)
            flight.error = None
        except* (ServiceError, CatalogueError) as group:
            flight.error = _first(group)
            log.debug("listing %s failed: %s", flight.name, flight.error)
        except* Exception:  # the listings of others go on
            log.exception("listing %s failed by a fault of phonofs", flight.name)
        finally:
            del self._flying[key]
            flight.over.set()


def _first(group: BaseExceptionGroup[PhonofsError]) -> PhonofsError:
    """The error to show for several: the first."""
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group is never empty")
