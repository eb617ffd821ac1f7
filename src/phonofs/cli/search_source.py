"""Where ``find``, ``manifest`` and ``export`` search: what runs, or a profile's account."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import msgspec

from phonofs.config import DEFAULT_PROFILE
from phonofs.control.client import connect, refusal
from phonofs.errors import Unavailable, UsageError
from phonofs.fuse.mountinfo import absolute as resolve
from phonofs.fuse.mountinfo import mount_of, own_mount
from phonofs.search.answer import Answer, Found
from phonofs.search.condition import Condition
from phonofs.service.records import parse_record

BATCH_BYTES = 48 << 10
"""Bytes of paths, as JSON, in one request to the mount: a request has at most 64 KiB."""

LONGEST_PATH = 4095  # bytes; PATH_MAX of linux/limits.h, without the NUL


Connect = Callable[[Mapping[str, Any]], AbstractContextManager[Iterable[bytes]]]
"""Sends a command, and returns the lines of its answer (``control/search_commands.py``)."""


class Source(Protocol):
    """What is searched. The attributes below hold once a search has ended.

    top      what stands before each path: the mount point with a slash, or nothing
    profile  the profile
    zone     the time zone of the folders
    answer   what the searches looked at
    """

    top: str
    profile: str
    zone: tzinfo
    answer: Answer

    def find(self, condition: Condition, what: str, *, records: bool) -> Iterator[list[Found]]:
        """Yield what matches a condition, by day and name; ``what`` names the search."""

    def files(self, paths: Sequence[str]) -> Iterator[list[Found]]:
        """Yield files with their records, by their paths below the top."""


class _Object(msgspec.Struct):
    path: str
    region: str
    size: int
    state: str
    record: msgspec.Raw

    def found(self) -> Found:
        record = parse_record(bytes(self.record), self.region)
        return Found(self.path, msgspec.structs.replace(record, size=self.size, state=self.state))


class _Line(msgspec.Struct):
    """A line of the mount's answer (``control/search_commands.py``)."""

    profile: str = ""
    timezone: str = ""
    found: list[str] = []
    objects: list[_Object] = []
    answer: Answer | None = None
    error: str = ""
    exit_status: int = 1


class RunningSource:
    """Searches what runs: a mount, a daemon without one, or a session of the command.

    ``offline``: the service is not asked.

    ``name`` is what it is called in messages; ``connect`` sends it a command.
    """

    def __init__(self, name: str, top: str, connect: Connect, *, offline: bool = False) -> None:
        self.top = top
        self.profile = DEFAULT_PROFILE
        self.zone: tzinfo = ZoneInfo("UTC")
        self.answer = Answer()
        self._name = name
        self._connect = connect
        self._offline = offline

    def find(self, condition: Condition, what: str, *, records: bool) -> Iterator[list[Found]]:
        """Yield what matches a condition."""
        return self._results(
            {
                "command": "find",
                "condition": msgspec.to_builtins(condition),
                "what": what,
                "records": records,
                "offline": self._offline,
            }
        )

    def files(self, paths: Sequence[str]) -> Iterator[list[Found]]:
        """Yield files with their records."""
        for some in _batches(paths):
            request = {"command": "manifest", "paths": some, "offline": self._offline}
            yield from self._results(request)

    def tell(self, request: Mapping[str, object]) -> Mapping[str, Any]:
        """Send a command that is answered with one line; return that. Raises PhonofsError."""
        with self._connect(request) as lines:
            for text in lines:
                answer: Mapping[str, Any] = msgspec.json.decode(text)
                if "error" in answer:
                    raise refusal(self._name, answer["error"], answer.get("exit_status"))
                return answer
        raise Unavailable(f"{self._name} ended before its answer was whole")

    def _results(self, request: Mapping[str, object]) -> Iterator[list[Found]]:
        decoder = msgspec.json.Decoder(_Line)
        with self._connect(request) as lines:
            for text in lines:
                line = decoder.decode(text)
                if line.error:
                    raise refusal(self._name, line.error, line.exit_status)
                if line.timezone:
                    self.profile, self.zone = line.profile, ZoneInfo(line.timezone)
                if line.found or line.objects:
                    yield [Found(path, None) for path in line.found] + [
                        each.found() for each in line.objects
                    ]
                if line.answer is not None:
                    self.answer.add(line.answer)
                    return
        raise Unavailable(f"{self._name} ended before its answer was whole")


class MountSource(RunningSource):
    """Searches a running mount."""

    def __init__(self, point: str, *, offline: bool = False) -> None:
        send = partial(connect, point)
        super().__init__(point, point.rstrip("/") + "/", send, offline=offline)
        self.point = point


def _batches(paths: Sequence[str]) -> Iterator[list[str]]:
    """Cut paths into lists that fit into a request."""
    some: list[str] = []
    size = 0
    for path in paths:
        cost = len(json.dumps(path)) + 2
        if some and size + cost > BATCH_BYTES:
            yield some
            some, size = [], 0
        some.append(path)
        size += cost
    if some:
        yield some


@contextmanager
def source_of(
    mount: str | None, profile: str | None, options: Sequence[str] = (), *, offline: bool = False
) -> Iterator[Source]:
    """Open the mount to search, or else the daemon or the catalogue of the profile.

    Without a path and a profile: the one running mount of the caller, else the profile ``default``.
    Raises UsageError, also if there are several mounts to choose from.
    """
    if mount is not None and profile is not None:
        raise UsageError("--mount and --profile are two ways to say the same; give one of them")
    point = mount_of(mount).point if mount is not None else own_mount(profile)
    if point is not None:
        yield MountSource(point, offline=offline)
        return
    # Without these imports, a search of a running mount starts 100 ms sooner.
    from phonofs.cli.catalogue_source import opened
    from phonofs.cli.daemon import daemon_of

    profile = profile or DEFAULT_PROFILE
    daemon = daemon_of(profile, options)
    if daemon is not None:
        yield RunningSource(daemon.name, "", daemon.connect, offline=offline)
        return
    with opened(profile, options) as source:
        yield source


def checked(path: str) -> str:
    """Return a path below a mount point. Raises UsageError if no file can have it."""
    try:
        if len(path.encode()) > LONGEST_PATH:
            raise UsageError(f"{path[:100]}… is longer than any path of a file")
    except UnicodeEncodeError:
        raise UsageError(f"{path!r} is not UTF-8, as every path in a mount is") from None
    return path


def below(point: str, path: str) -> str:
    """Return the path below a mount point. Raises UsageError if it lies elsewhere."""
    absolute = path if path.startswith("/") else str(Path.cwd() / path)
    if absolute.rstrip("/") == point.rstrip("/"):
        return ""
    inside = absolute.removeprefix(point.rstrip("/") + "/")
    plain = "//" not in inside and not {".", ".."} & set(inside.split("/"))
    if inside != absolute and plain:
        return inside.rstrip("/")  # the usual case, without a look at the table of mounts
    resolved = resolve(path)
    if resolved != point and not resolved.startswith(point.rstrip("/") + "/"):
        raise UsageError(f"{path} is not in {point}: name paths of one mount at a time")
    return resolved.removeprefix(point).strip("/")
