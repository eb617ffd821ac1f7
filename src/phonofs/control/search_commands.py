"""The commands ``find``, ``manifest`` and ``index`` of the control socket.

The first two are answered with a first line on the mount, lines with what was found, and a last
line that says what was looked at; ``index`` with a line of progress after each month. Between two
lines other tasks run. A search that has ended is recorded in the journal.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from datetime import date
from typing import TypeVar

import msgspec
import trio

from phonofs.access import Access, Opener
from phonofs.catalogue.catalogue import Catalogue
from phonofs.catalogue.search import day_of, file_named, read, report, search_known
from phonofs.control.peers import Peer
from phonofs.control.server import Event, LongCommand
from phonofs.discovery.indexer import TRIES, Indexer
from phonofs.discovery.lister import Lister
from phonofs.discovery.record_search import RecordSearch
from phonofs.errors import CatalogueError, ServiceError, UsageError
from phonofs.search.answer import Answer, Found
from phonofs.search.condition import Condition
from phonofs.search.narrowing import narrowing
from phonofs.view_tree.text_indexer import TextIndexer

EVERYTHING = Condition()

TOGETHER = 200
TOGETHER_S = 0.1
"""Found objects are sent when there are that many, or nothing was sent for that long."""

_Request = TypeVar("_Request")


class _Find(msgspec.Struct):
    condition: Condition
    what: str = "this search"
    records: bool = False
    offline: bool = False


class _Manifest(msgspec.Struct):
    paths: list[str]
    offline: bool = False


class _Index(msgspec.Struct):
    since: date | None = None
    texts: bool = False


class SearchCommands:
    """Answers the commands. ``check`` raises the error with which everything is refused, if any."""

    def __init__(
        self,
        catalogue: Catalogue,
        lister: Lister,
        indexer: Indexer,
        text_indexer: TextIndexer,
        profile: str,
        check: Callable[[], None],
        access: Access,
    ) -> None:
        self._catalogue = catalogue
        self._lister = lister
        self._indexer = indexer
        self._text_indexer = text_indexer
        self._search = RecordSearch(catalogue, lister)
        self._profile = profile
        self._check = check
        self._access = access

    def commands(self) -> dict[str, LongCommand]:
        """Return the commands by name; only the owner may have the whole account indexed."""
        return {
            "find": LongCommand(self.find, for_readers=True),
            "manifest": LongCommand(self.manifest, for_readers=True),
            "index": LongCommand(self.index, for_readers=False),
        }

    async def find(self, asked: Mapping[str, object], peer: Peer) -> AsyncGenerator[Event, None]:
        """Answer with the objects that match a condition. Raises UsageError, CatalogueError."""
        request = converted(asked, _Find)
        self._check()
        yield self._head()
        line = self._access.search(Opener(peer.uid, peer.pid), request.condition.words())
        answer, results = Answer(narrow=narrowing(request.condition)), 0
        try:
            async with aclosing(self._found(request, answer)) as found:
                async for some in found:
                    results += len(some)  # what is sent counts, also if the client hangs up
                    yield _found(some)
        finally:
            self._access.searched(line, results)
        yield {"answer": answer}

    async def _found(self, request: _Find, answer: Answer) -> AsyncGenerator[list[Found], None]:
        """Yield what matches, and complete the answer."""
        settled: set[str] = set()
        if not request.offline:
            settled = await self._search.prepare(request.condition, answer)
        some: list[Found] = []
        sent_at = trio.current_time()
        for found in search_known(self._catalogue, request.condition, records=request.records):
            self._check()
            some += found
            if len(some) >= TOGETHER or (some and trio.current_time() > sent_at + TOGETHER_S):
                yield some
                some, sent_at = [], trio.current_time()
            await trio.lowlevel.checkpoint()
        if some:
            self._check()
            yield some
        # Not before: a damaged record shows when it is read, and then its day is not known.
        report(self._catalogue, request.condition, request.what, _now_ms(), answer, settled)

    async def manifest(
        self, asked: Mapping[str, object], peer: Peer
    ) -> AsyncGenerator[Event, None]:
        """Answer with the records of files, by their paths below the mount point."""
        request = converted(asked, _Manifest)
        self._check()
        yield self._head()
        answer = Answer()
        objects = []
        for path in request.paths:
            try:
                ino = await self._ino(path, offline=request.offline)
            except (ServiceError, CatalogueError) as error:
                answer.missing.append(f"{path} could not be looked at: {error}")
                continue
            if ino is None:
                answer.missing.append(f"{path} is not there")
            else:
                objects.append((path, ino))
            await trio.lowlevel.checkpoint()
        for found in read(self._catalogue, objects, EVERYTHING):
            self._check()
            if found:
                yield _found(found)
            await trio.lowlevel.checkpoint()
        yield {"answer": answer}

    async def index(self, asked: Mapping[str, object], peer: Peer) -> AsyncGenerator[Event, None]:
        """Index the account; answer with the progress. Raises the service's last error."""
        request = converted(asked, _Index)
        self._check()
        indexer = self._text_indexer if request.texts else self._indexer
        async with aclosing(indexer.steps(request.since, tries=TRIES)) as steps:
            async for progress in steps:
                yield {"progress": progress}

    def _head(self) -> Event:
        return {"profile": self._profile, "timezone": self._catalogue.placement.options.timezone}

    async def _ino(self, path: str, *, offline: bool) -> int | None:
        """Return the inode number of a file; list its day if needed. Raises ServiceError."""
        day = day_of(self._catalogue, path)
        if day is None or offline:
            return file_named(self._catalogue, path)
        if errors := await self._lister.list_each([day]):
            raise errors[day]
        return file_named(self._catalogue, path)


def converted(asked: Mapping[str, object], kind: type[_Request]) -> _Request:
    """Return a request with its types checked. Raises UsageError."""
    try:
        return msgspec.convert(asked, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"the request is not understood: {error}") from None


def _found(found: Iterable[Found]) -> Event:
    paths, objects = [], []
    for path, record in found:
        if record is None:
            paths.append(path)
        else:
            objects.append(
                {
                    "path": path,
                    "region": record.region,
                    "size": record.size,
                    "state": record.state,
                    "record": msgspec.Raw(_one_line(record.source)),
                }
            )
    return {"found": paths, "objects": objects}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _one_line(source: bytes) -> bytes:
    """Return JSON without line ends, which can only be between its tokens."""
    return source.replace(b"\r", b" ").replace(b"\n", b" ")
