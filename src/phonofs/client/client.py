"""Asks the daemon of a profile: finds it, starts it if need be, keeps idle connections."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from phonofs.client.autostart import START_S, start_daemon
from phonofs.client.connection import Connection, Disconnected, os_error, refused
from phonofs.config.load import load
from phonofs.door.address import read_address
from phonofs.door.protocol import (
    CAT_MAX,
    HEAD_MAX,
    VERSION,
    About,
    Answer,
    Attribute,
    Cat,
    Entry,
    Error,
    Find,
    Hello,
    Info,
    Ls,
    Open,
    Record,
    Request,
    Welcome,
)
from phonofs.errors import UsageError

Item = tuple[str, int | None, int | None]
"""A part of a file: its path, where it starts and stops, as in a slice of its bytes."""

TIMEOUT_S = 70.0
"""How long to wait for an answer: the default ``read_deadline`` of a daemon, and 10 s."""

MARGIN_S = 10.0

PATHS_MAX = HEAD_MAX // 2
"""The most bytes of paths in one ``cat``."""

_Result = TypeVar("_Result")


class Client:
    """Asks the daemon of one profile, and starts one if there is none.

    Owns the idle connections, of this process: a child that was forked makes its own. ``deque``
    appends and pops atomically, so there is no lock that a fork could leave held.
    """

    def __init__(
        self,
        profile: str,
        *,
        address: Path | None = None,
        timeout_s: float | None = None,
        autostart: bool = True,
    ) -> None:
        """Make a client; nothing is connected yet.

        profile    its name; '' for whatever the socket serves
        address    the socket; None: the one that the profile's cache folder names
        timeout_s  how long to wait for an answer; None: what the profile's daemon may take
        autostart  whether a daemon may be started
        """
        self.profile = profile
        self._address = address
        self._cache_dir: Path | None = None
        self._timeout_s = timeout_s
        self._autostart = autostart and address is None
        self._pid = os.getpid()
        self._idle: deque[Connection] = deque()

    def info(self, path: str) -> Entry:
        """Return the entry of a path below the root of the profile."""
        answer = self._exchange(Info(path), Connection.receive)
        if not isinstance(answer, About):
            raise refused(answer, self.shown(path))
        return answer.entry

    def ls(self, path: str, *, refresh: bool = False) -> list[Entry]:
        """List a directory; ``refresh`` asks the service for a day that is known, too."""
        entries = self._exchange(Ls(path, refresh), Connection.receive_entries)
        if isinstance(entries, Error):
            raise os_error(entries, self.shown(path))
        return entries

    def find(self, path: str, maxdepth: int | None, *, withdirs: bool) -> list[Entry]:
        """List what is below a directory; raises an error instead of giving a part of it."""
        entries = self._exchange(Find(path, maxdepth, withdirs), Connection.receive_entries)
        if isinstance(entries, Error):
            raise os_error(entries, self.shown(path))
        return entries

    def content(self, path: str) -> bytes:
        """Return the bytes of a file."""
        result = self._exchange(Open(path), Connection.receive_whole)
        if isinstance(result, Error):
            raise os_error(result, self.shown(path))
        return result

    def record(self, path: str) -> bytes:
        """Return the record of an object: its JSON, as the service sent it."""
        result = self._exchange(Record(path), Connection.receive_content)
        if isinstance(result, Error):
            raise os_error(result, self.shown(path))
        return result

    def attribute(self, path: str, name: str) -> bytes:
        """Return an extended attribute of a file or directory. Raises ENODATA if it has none."""
        result = self._exchange(Attribute(path, name), Connection.receive_content)
        if isinstance(result, Error):
            raise os_error(result, self.shown(path))
        return result

    def cat(self, items: Sequence[Item]) -> Iterator[bytes | OSError]:
        """Yield the bytes of each part of a file in order, or why there are none.

        The daemon fetches them side by side. If it hangs up, those that are left are asked for
        again; if it hangs up twice at the same one, that is an error.
        """
        left = deque(items)
        hung_up_at = None
        while left:
            try:
                yield from self._cat(left)
            except Disconnected:
                if len(left) == hung_up_at:
                    raise
                hung_up_at = len(left)

    def served(self) -> str:
        """Return the profile of the daemon that is there."""
        answer = self._exchange(Hello(), Connection.receive)
        if not isinstance(answer, Welcome):
            raise refused(answer, self.shown(""))
        return answer.profile

    def take(self) -> Connection:
        """Return a connection for requests of the caller's own; it is given back or closed."""
        idle = self._idle_here()
        try:
            return idle.pop()
        except IndexError:
            return self._connect()

    def give_back(self, connection: Connection) -> None:
        """Take a connection back whose last answer was received to its end."""
        self._idle_here().append(connection)

    def drop_idle(self) -> None:
        """Close the connections that nobody uses; they are of a daemon that has ended."""
        idle = self._idle_here()
        with suppress(IndexError):
            while True:
                idle.pop().close()

    def shown(self, path: str) -> str:
        """Return a path as users write it, with the profile."""
        return f"{self.profile}/{path}" if path else self.profile

    def _idle_here(self) -> deque[Connection]:
        if self._pid != os.getpid():
            inherited, self._idle = self._idle, deque()
            self._pid = os.getpid()
            for connection in inherited:
                connection.close()  # our copy of it; the parent's stays
        return self._idle

    def _exchange(self, request: Request, receive: Callable[[Connection], _Result]) -> _Result:
        """Send a request and receive its answer; once more if the daemon hung up.

        An idle connection may have been closed, and a daemon may have been restarted.
        """
        try:
            return self._exchange_once(request, receive)
        except Disconnected:
            self.drop_idle()
            return self._exchange_once(request, receive)

    def _exchange_once(self, request: Request, receive: Callable[[Connection], _Result]) -> _Result:
        connection = self.take()
        try:
            connection.send(request)
            result = receive(connection)
        except BaseException:  # the rest of the answer may still come
            connection.close()
            raise
        self.give_back(connection)
        return result

    def _cat(self, left: deque[Item]) -> Iterator[bytes | OSError]:
        """Yield the results of one request; remove what was had from ``left``."""
        some = _together(left)
        connection = self.take()
        try:
            connection.send(Cat(some))
            for path, _, _ in some:
                result = connection.receive_content()
                left.popleft()
                yield os_error(result, self.shown(path)) if isinstance(result, Error) else result
        except BaseException as error:
            connection.close()
            if isinstance(error, Disconnected):
                self.drop_idle()
            raise
        self.give_back(connection)

    def _connect(self) -> Connection:
        """Connect to the daemon, if need be to one that is started for that."""
        connection = self._connect_to_running()
        until_s = time.monotonic() + START_S
        while connection is None and self._autostart and time.monotonic() < until_s:
            start_daemon(self.profile)  # again, if the one that was started has ended since
            connection = self._connect_to_running()
        if connection is None:
            place = self._address or f"profile {self.profile}"
            raise ConnectionError(
                f"no daemon of {place} is running; start one with "
                f"`phonofs serve {self.profile}` or mount the profile"
            )
        return connection

    def _connect_to_running(self) -> Connection | None:
        """Connect and introduce ourselves; None if nobody is there."""
        try:
            path = self._address or read_address(self._folder())
            connection = None if path is None else Connection(path, self._timeout())
        except (FileNotFoundError, ConnectionRefusedError):
            return None  # the note was left by a daemon that was killed
        if connection is None:
            return None
        try:
            connection.send(Hello())
            self._check(connection.receive())
        except Disconnected:
            connection.close()
            return None  # it is just ending
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, answer: Answer) -> None:
        if not isinstance(answer, Welcome):
            raise refused(answer, self.profile)
        if answer.protocol != VERSION:
            raise ConnectionError(
                f"the daemon of profile {self.profile} is phonofs {answer.version} (process "
                f"{answer.pid}), which this program cannot talk to: restart it"
            )
        if self.profile and (refusal := answer.refusal(self.profile)):
            raise ConnectionError(refusal)

    def _folder(self) -> Path:
        if self._cache_dir is None:
            try:
                settings = load(self.profile)
            except UsageError as error:
                raise ConnectionError(f"profile {self.profile}: {error}") from None
            self._cache_dir = settings.cache_dir
            if self._timeout_s is None:
                self._timeout_s = settings.read_deadline + MARGIN_S
        return self._cache_dir

    def _timeout(self) -> float:
        return TIMEOUT_S if self._timeout_s is None else self._timeout_s


def _together(items: Sequence[Item] | deque[Item]) -> list[Item]:
    """Return as many of the items, from the first one, as fit into one request."""
    some: list[Item] = []
    size = 0
    for item in items:
        size += len(item[0].encode(errors="surrogateescape"))
        if some and (len(some) == CAT_MAX or size > PATHS_MAX):
            break
        some.append(item)
    return some
