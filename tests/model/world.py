"""The whole app without FUSE under a fake clock, and the reference it is compared with.

The fake service answers in the same process and threads run inline, so that a run depends only on
what Hypothesis chose. :class:`Kernel` models the kernel's caches: it keeps what it was told until
phonofs invalidates it.
"""

import contextlib
import json
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

import httpx
import trio
import trio.testing

from phonofs.app import App, open_app
from phonofs.buffers import page_aligned
from phonofs.cache.blocks import BLOCK
from phonofs.cache.checked_read import STEP
from phonofs.cache.hash_threads import HashJob, Piece
from phonofs.catalogue.catalogue import ChangeSet, Entry
from phonofs.config import Layer, Settings, Source, merge
from phonofs.config.settings import SystemDefaults
from phonofs.fakeservice.account import Account, Item
from phonofs.fakeservice.faults import Faults, plan
from phonofs.fakeservice.options import DEMO_KEY, DEMO_SECRET, Options
from phonofs.fakeservice.responses import Answer, Dropped, Request
from phonofs.process.supervise import keep_running
from phonofs.service.records import parse_record
from phonofs.service.session import Transport
from phonofs.tree.layout import ROOT
from phonofs.tree.naming import file_name
from tests.support.counted_service import Service

NOW_MS = int(datetime(2024, 4, 2, 12, tzinfo=ZoneInfo("UTC")).timestamp() * 1000)
API, STORE = "http://127.0.0.1:1", "http://127.0.0.1:2"
POLL_S = 60
TEMPLATE = "{time}_{name}_{id8}"

Key = tuple[str, str]
"""Region and id of an object."""


class InProcess(httpx.AsyncBaseTransport):
    """An httpx transport that calls the fake service directly."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asked = Request(
            request.method,
            request.url.path,
            dict(request.url.params),
            {name.lower(): value for name, value in request.headers.items()},
            await request.aread(),
            "store" if str(request.url).startswith(STORE) else "api",
        )
        answer = await self._service.answer(asked)
        try:
            await answer.begin()
        except Dropped as error:
            raise httpx.ReadError(str(error)) from None
        headers = {**answer.headers, "Content-Length": str(answer.length)}
        return httpx.Response(answer.status, headers=headers, stream=_Body(answer))


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: Answer) -> None:
        self._pieces = answer.pieces()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._pieces:
                yield bytes(piece)
                await trio.lowlevel.checkpoint()
        except Dropped as error:
            raise httpx.RemoteProtocolError(str(error)) from None

    async def aclose(self) -> None:
        await self._pieces.aclose()


class Kernel:
    """The kernel's caches: names, attributes and pages, each kept until it is invalidated."""

    def __init__(self) -> None:
        self.names: dict[tuple[int, str], int] = {}
        self.attributes: dict[int, Entry] = {}
        self.pages: dict[int, dict[int, bytes]] = {}

    def tell(self, changes: ChangeSet) -> None:
        """Take the changes as ``fuse/invalidation.py`` passes them on."""
        for ino, names in changes.directories.items():
            self.attributes.pop(ino, None)
            for name in names:
                self.names.pop((ino, name), None)
        for change in changes.objects:
            for entry in change.entries:
                self.names.pop(entry, None)
            if change.content or change.kind == "removed":
                self.pages.pop(change.ino, None)
            if change.content or change.kind in ("removed", "changed"):
                self.attributes.pop(change.ino, None)

    def tell_size(self, ino: int) -> None:
        """Take a new size as ``fuse/invalidation.py`` passes it on; the kernel drops the pages."""
        self.attributes.pop(ino, None)
        self.pages.pop(ino, None)

    def forget(self, entries: Sequence[tuple[int, str]]) -> None:
        """Forget an inode as ``fuse/invalidation.py`` requests; here no file is open for long."""
        for entry in entries:
            self.names.pop(entry, None)

    def saw(self, parent: int, entry: Entry) -> None:
        """Cache what a readdirplus or a lookup returned."""
        self.names[parent, entry.name] = entry.ino
        self.attributes[entry.ino] = entry


class Faulty(logging.Handler):
    """Collects log records with a traceback: these are errors in phonofs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.seen.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


@dataclass(frozen=True)
class Look:
    """The options of a mount."""

    timezone: str = "UTC"
    cache_size: int = 1_200_000
    archived: bool = True
    encrypt: str = "off"

    @property
    def states(self) -> tuple[str, ...]:
        """The object states that are shown."""
        return ("AVAILABLE", "ARCHIVED") if self.archived else ("AVAILABLE",)

    def settings(self, folder: Path) -> Settings:
        values = {
            "api_url": API,
            "key": DEMO_KEY,
            "secret": DEMO_SECRET,
            "timezone": self.timezone,
            "cache_dir": str(folder / "cache"),
            "cache_size": str(self.cache_size),
            "cache_min_free": "0",
            "cache_encrypt": self.encrypt,
            "poll_interval": str(POLL_S),
            "page_size": "3",
            "read_deadline": "20s",
            "timeout": "4s",
            "name_template": TEMPLATE,
            "archived": "show" if self.archived else "hide",
        }
        around = SystemDefaults("UTC", 0, 0, folder, folder)
        return merge([Layer(Source.FILE, values, "model")], "model", around)


class World:
    """The account, its service, and the app that is mounted now."""

    def __init__(self, folder: Path, account: Account, options: Options) -> None:
        self.folder = folder
        self.account = account
        self.service = Service(account, options, now_ms=self.now_ms)
        self.service.url, self.service.store_url = API, STORE
        self.kernel = Kernel()
        self.look = Look()
        self.app: App

    def now_ms(self) -> int:
        """Return the time of the fake clock, for the service and for phonofs."""
        return NOW_MS + int(trio.current_time() * 1000)

    def misbehave(self, rules: Sequence[dict[str, Any]]) -> None:
        self.service.faults = Faults(plan({"seed": 1, "rule": list(rules)}))

    @asynccontextmanager
    async def mounted(self, look: Look) -> AsyncIterator[App]:
        """Run the app as for a mount, without sockets and threads, with empty kernel caches."""
        self.look, self.kernel = look, Kernel()
        way = partial(Transport, http=InProcess(self.service))
        with patch("phonofs.app.Transport", way):
            async with open_app(look.settings(self.folder), "/m", self.kernel) as app:
                self.app = app
                async with trio.open_nursery() as nursery:
                    for name, task in app.tasks():
                        if "socket" not in name:
                            await nursery.start(keep_running, name, task)
                    await app.connect()
                    yield app
                    nursery.cancel_scope.cancel()

    # what is shown

    async def listing(self, ino: int = ROOT) -> list[Entry]:
        """List one directory as the kernel does."""
        entries = list((await self.app.vfs.open_folder(ino)).entries)
        for entry in entries:
            self.kernel.saw(ino, entry)
        return entries

    async def tree(self, *, settled: bool = False) -> dict[str, Entry]:
        """Return every file by its path, by a walk. ``settled``: fail if a directory is empty."""
        found: dict[str, Entry] = {}
        waiting = [("", ROOT)]
        while waiting:
            path, ino = waiting.pop()
            entries = await self.listing(ino)
            if settled:
                assert entries or path in ("", *self.account.regions), f"{path} is empty"
            for entry in entries:
                below = f"{path}/{entry.name}" if path else entry.name
                if entry.is_directory:
                    waiting.append((below, entry.ino))
                else:
                    found[below] = entry
        return found

    async def files_below(self, ino: int) -> list[Entry]:
        """Return every file below a directory of the views, by a walk."""
        found: list[Entry] = []
        waiting = [ino]
        while waiting:
            for entry in (await self.app.vfs.open_folder(waiting.pop())).entries:
                if entry.is_directory:
                    waiting.append(entry.ino)
                else:
                    found.append(entry)
        return found

    def key(self, ino: int) -> Key:
        """Return the object of a file from its extended attributes."""
        attribute = self.app.vfs.attribute
        region, id = (attribute(ino, f"user.phonofs.{name}") for name in ("region", "id"))
        return region.decode(), id.decode()

    def folder_of(self, key: Key) -> str:
        """Return the directory that contains an object."""
        item = self.account.item(*key)
        assert item is not None
        return folder_of(self.account, item, ZoneInfo(self.look.timezone))

    def plain(self, key: Key) -> bytes:
        """Return the current content of an object."""
        item = self.account.item(*key)
        assert item is not None
        return item.content.read(0, item.content.size)

    def check_kernel(self) -> None:
        """Check that everything in the kernel's caches is true."""
        catalogue = self.app.catalogue
        for (parent, name), ino in self.kernel.names.items():
            entry = catalogue.lookup(parent, name)
            assert entry is not None, f"the kernel still has {name!r}, which is gone"
            assert entry.ino == ino, f"the kernel has another file at {name!r}"
        for ino, entry in self.kernel.attributes.items():
            assert catalogue.entry(ino) == entry, "the kernel has old attributes"


# the reference


def reference(account: Account, look: Look) -> dict[str, Key]:
    """Compute the path of every object that is shown, from the object list alone."""
    zone = ZoneInfo(look.timezone)
    shown = [item for item in account if item.state in look.states]
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in shown:
        folder = folder_of(account, item, zone)
        groups.setdefault((folder, name_of(item, zone, 0)), []).append(item)
    paths = {}
    for (folder, name), items in groups.items():
        items.sort(key=lambda item: (item.created_ms // 1000, item.id))
        for rank, item in enumerate(items):
            own = name if not rank else name_of(item, zone, 1)
            paths[f"{folder}/{own}"] = (item.region, item.id)
    return paths


def folder_of(account: Account, item: Item, zone: ZoneInfo) -> str:
    """Return the directory of an object's day."""
    day = datetime.fromtimestamp(item.created_ms // 1000, zone)
    above = f"{item.region}/" if len(account.regions) > 1 else ""
    return f"{above}{day:%Y}/{day:%Y-%m}/{day:%Y-%m-%d}"


def name_of(item: Item, zone: ZoneInfo, rank: int) -> str:
    """Return the name from the pure function; that has its own tests."""
    record = parse_record(json.dumps(item.record()).encode(), item.region)
    return file_name(record, TEMPLATE, zone, rank) if rank else file_name(record, TEMPLATE, zone)


# running it


async def _inline(work: Callable[..., Any], *args: Any, **_: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return work(*args)


class _InlineThread:
    """In place of a thread that hashes, and of its queue: does at once what it is given."""

    def __init__(self) -> None:
        self.jobs: set[HashJob] = set()
        self.queue = self
        self._buffer = page_aligned(STEP * BLOCK)

    def put(self, piece: Piece | None) -> None:
        if piece is not None:
            job, file, sources = piece
            job.work(file, sources, self._buffer)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Use no threads, only trio's clock, and only Hypothesis's random choices."""

    def now_ns() -> int:
        return (NOW_MS + int(trio.current_time() * 1000)) * 1_000_000

    def chance() -> random.Random:
        return random.Random(1)

    with (
        patch("trio.to_thread.run_sync", _inline),
        patch("phonofs.cache.hash_threads._Thread", _InlineThread),
        patch("time.time_ns", now_ns),
        patch("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True),
        patch("trio._core._run._r", chance()),
        patch("phonofs.reader.reader.SystemRandom", chance),
    ):
        yield


def run(main: Callable[..., Any], *args: Any) -> None:
    """Run an async function in such a world; fail if a traceback is logged."""
    random.seed(1)
    faulty = Faulty()
    logger = logging.getLogger("phonofs")
    logger.addHandler(faulty)
    try:
        with _alone():
            trio.run(main, *args, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
    finally:
        logger.removeHandler(faulty)
    assert not faulty.seen, faulty.seen
