"""What the processes that serve an account have in common: signals, systemd, the collector.

Used by ``mount.py`` and ``serve.py``. SIGTERM and SIGINT end the process cleanly, a second one at
once; SIGHUP has the credentials and the configuration read again.
"""

import gc
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import trio

from phonofs.app import App
from phonofs.config import Settings
from phonofs.errors import PhonofsError, unwrap
from phonofs.process.limits import allow_many_files
from phonofs.process.supervise import Task, keep_running
from phonofs.process.systemd import StatusLine, Watchdog, listening, notify, watchdog_interval_s

log = logging.getLogger(__name__)

COLLECT_AFTER = 50_000
"""New objects after which the garbage collector runs. There are few cycles to find, and with
Python's default of 700 it took a third of the time of reading a page of records."""


class Session(Protocol):
    """What a signal ends.

    serving  whether it has begun
    asked    set to end it cleanly
    """

    serving: bool
    asked: trio.Event


class Lifetime:
    """What signals act on: the app and the session, once they exist.

    Owns them, and what reads the settings again.

    stopped_by  the signal that ended the process before it served, if one did
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        """``nursery`` has everything; it is cancelled to end."""
        self._nursery = nursery
        self._app: App | None = None
        self._load: Callable[[], Settings] | None = None
        self._also: Callable[[], Awaitable[None]] | None = None
        self._session: Session | None = None
        self.stopped_by: int | None = None

    def begin(
        self,
        app: App,
        load: Callable[[], Settings],
        also: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Set the app, which SIGHUP has read its credentials and settings again.

        ``also`` is what else has to read something again.
        """
        self._app, self._load, self._also = app, load, also

    def serve(self, session: Session) -> None:
        """Set the session that signals end."""
        self._session = session

    async def obey(self, signals: AsyncIterator[int]) -> None:
        """End the session on SIGTERM and SIGINT; read credentials and settings again on SIGHUP."""
        async for number in signals:
            session = self._session
            if number == signal.SIGHUP:
                log.info("reading the credentials and the configuration again")
                if self._app is not None and self._load is not None:
                    self._app.read_credentials_again()
                    self._nursery.start_soon(self._app.reload, self._load)
                if self._also is not None:
                    self._nursery.start_soon(self._also)
            elif session is not None and session.serving and not session.asked.is_set():
                log.info("stopping on %s", signal.Signals(number).name)
                notify("STOPPING=1")
                session.asked.set()
            else:  # still starting, or the second signal
                self._stop(number)

    def _stop(self, number: int) -> None:
        if self._session is None or not self._session.serving:
            self.stopped_by = number
        self._nursery.cancel_scope.cancel()


Live = Callable[[Lifetime], Awaitable[None]]
"""Serves until it is asked to end, or the lifetime is cancelled."""


def run(live: Live, stopped: Callable[[str], PhonofsError]) -> None:
    """Run ``live`` in an event loop until it returns or a signal ends it.

    ``stopped`` returns the error to raise for a signal, by its name, that came before it served;
    for SIGINT it is KeyboardInterrupt.
    """
    allow_many_files()
    gc.freeze()  # imported objects are never garbage
    gc.set_threshold(COLLECT_AFTER)
    try:
        trio.run(_run, live, stopped)
    except BaseExceptionGroup as group:
        raise unwrap(group) from None


async def _run(live: Live, stopped: Callable[[str], PhonofsError]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            lifetime = Lifetime(nursery)
            nursery.start_soon(lifetime.obey, signals)
            await live(lifetime)
            nursery.cancel_scope.cancel()
    if lifetime.stopped_by == signal.SIGINT:
        raise KeyboardInterrupt
    if lifetime.stopped_by is not None:
        raise stopped(signal.Signals(lifetime.stopped_by).name)


async def start_for_systemd(
    nursery: trio.Nursery, condition: Callable[[], str], answers: Callable[[], bool], what: str
) -> None:
    """Start the tasks that only a service manager needs.

    ``condition`` returns in one line how it is. ``answers`` asks, in a thread, whether ``what``
    answers.
    """
    tasks: list[tuple[str, Task]] = []
    if listening():
        tasks.append(("the status line", StatusLine(condition).run))
    interval_s = watchdog_interval_s()
    if interval_s is not None:
        tasks.append(("the watchdog", Watchdog(what, interval_s, ask=lambda _: answers()).run))
    for name, task in tasks:
        await nursery.start(keep_running, name, task)
