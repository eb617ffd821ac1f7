"""A session with the service for a command, if no mount runs: an app in a thread of its own.

The command asks it as it would ask a mount. Its thread has the event loop; the methods here are for
all other threads. Used by ``phonofs export``.
"""

import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
import trio

from phonofs.app import COMMAND_TASKS, App, open_app
from phonofs.cli.search_source import RunningSource
from phonofs.config import Settings
from phonofs.control.peers import Peer
from phonofs.errors import ServiceError, Unavailable, unwrap
from phonofs.process.hardening import keep_secrets_in_memory
from phonofs.vfs import as_json

END_S = 20.0
"""How long to wait for the end of a session; its stores are closed by then, or never."""

VIEWS = ".views"

_T = TypeVar("_T")


class Session:
    """An app that runs in another thread.

    app    the app
    stale  a sentence for each region whose changes could not be followed
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="session", daemon=True)
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self.stale: list[str] = []
        self.app: App

    def start(self) -> None:
        """Start, and wait until the app is connected. Raises what the app raises."""
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """End, and wait until the stores are closed."""
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(END_S)

    def call(self, function: Callable[..., Awaitable[_T]], *arguments: object) -> _T:
        """Call an async function in the event loop; return its result. Raises what it raises."""
        assert self._token is not None
        try:
            return trio.from_thread.run(function, *arguments, trio_token=self._token)
        except (trio.RunFinishedError, trio.Cancelled):
            raise Unavailable("the session has ended") from None

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001  # the thread that waits raises it
            self._error = unwrap(error)
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with open_app(self._settings, "") as self.app, trio.open_nursery() as nursery:
                await self.app.start_tasks(nursery, COMMAND_TASKS)
                if offline := await self.app.connect():
                    self.stale.append(offline)
                await self._follow()
                self._ready.set()
                await trio.sleep_forever()

    async def _follow(self) -> None:
        """Ask once what has changed since the last session or mount."""
        if self._settings.poll_interval > 0:
            for region in self.app.catalogue.regions():
                try:
                    await self.app.follower.poll(region)
                except ServiceError as error:
                    self.stale.append(f"changes in {region} could not be asked for: {error}")


@contextmanager
def opened(settings: Settings) -> Iterator[Session]:
    """Run a session. Raises what the app raises, also if the profile is mounted."""
    keep_secrets_in_memory()
    # Views are needed for the texts, whether a mount would show them or not.
    session = Session(settings if settings.views else replace(settings, views=VIEWS))
    session.start()
    try:
        yield session
    finally:
        session.end()


class SessionSource(RunningSource):
    """Searches a session."""

    def __init__(self, session: Session) -> None:
        super().__init__("the session", "", lambda request: nullcontext(self._lines(request)))
        self._session = session

    def _lines(self, request: Mapping[str, Any]) -> Iterator[bytes]:
        command = self._session.app.commands[request["command"]]
        me = Peer(os.getuid(), frozenset(), os.getpid())
        events = command.lines(msgspec.json.decode(msgspec.json.encode(request)), me)
        try:
            while True:
                try:
                    yield as_json(self._session.call(events.__anext__))
                except StopAsyncIteration:
                    return
        finally:
            self._session.call(events.aclose)
