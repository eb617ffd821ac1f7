"""The whole app over the fake service in one process, without FUSE: fast, with every gauge.

Time runs ten times as fast as the wall clock, so that timeouts and pauses of seconds take tenths
of seconds, while sockets and threads are real. It stands still while the machine runs others.
"""

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from phonofs.app import App, open_app
from phonofs.catalogue.catalogue import ChangeSet, ObjectChange
from phonofs.changes import Kernel
from phonofs.config import Settings
from phonofs.config.settings import Layer, Source, SystemDefaults, merge
from phonofs.errors import CatalogueError, PhonofsError, Unavailable
from phonofs.fakeservice.account import Account
from phonofs.fakeservice.faults import Faults, plan
from phonofs.fakeservice.options import DEMO_KEY, DEMO_SECRET, Options
from phonofs.fakeservice.server import serve
from phonofs.tree.layout import ROOT
from tests.support.counted_service import Service
from tests.support.mounts import START_S
from tests.support.timing import FairClock

RATE = 10
PATIENCE = 5
"""Attempts at what must work: a busy machine can be slower than the fast clock allows."""
PAUSE_S = 5.0
"""Between them, so that what failed is tried again: for some seconds the error is the answer."""
KERNEL = 131072
"""Bytes that the kernel reads at a time."""

READER_GAUGES = (
    "waiters", "parts", "ahead", "ahead_queued", "streams", "handles", "lingering", "held",
)  # fmt: skip


def fast(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test with the fast clock."""

    @functools.wraps(function)
    def run(**fixtures: Any) -> None:
        trio.run(functools.partial(function, **fixtures), clock=FairClock(RATE))

    return run


def thinned(values: Iterable[Any], nth: int) -> list[Any]:
    """Return every n-th value for each run; the others are for the long run only."""
    return [
        value
        if number % nth == 0
        else pytest.param(*value, marks=pytest.mark.slow)
        if isinstance(value, tuple)
        else pytest.param(value, marks=pytest.mark.slow)
        for number, value in enumerate(values)
    ]


async def until(condition: Callable[[], Awaitable[bool]], within_s: float, step_s: float) -> None:
    """Wait until a condition on the network or a thread is true; check it every ``step_s``."""
    with trio.fail_after(within_s):
        while not await condition():  # noqa: ASYNC110 - the other side has no event for us
            await trio.sleep(step_s)


def settings_of(url: str, folder: Path, **options: object) -> Settings:
    """Return the settings of a mount of the fake service; ``options`` are as in a file."""
    values = {
        "key": DEMO_KEY,
        "secret": DEMO_SECRET,
        "api_url": url,
        "cache_dir": str(folder / "cache"),
        "cache_min_free": "0",
        "timezone": "UTC",
        "timeout": "3s",
        "read_deadline": "20s",
        "poll_interval": "0",
        **options,
    }
    around = SystemDefaults("UTC", 0, 0, folder, folder)
    return merge([Layer(Source.FILE, values)], "default", around)


class RecordingKernel:
    """Records what the kernel is told: changes, and inodes whose size changed."""

    def __init__(self) -> None:
        self.changes: list[ObjectChange] = []
        self.resized: list[int] = []

    def tell(self, changes: ChangeSet) -> None:
        self.changes += changes.objects

    def tell_size(self, ino: int) -> None:
        self.resized.append(ino)

    def forget(self, entries: Sequence[tuple[int, str]]) -> None:
        pass


@dataclass
class Scene:
    """The app, the service behind it, and helpers that read as the kernel does."""

    app: App
    service: Service

    @property
    def vfs(self):
        return self.app.vfs

    def faults(self, *rules: dict[str, object], seed: int = 1) -> Faults:
        """Apply these fault rules from now on, or none."""
        self.service.faults = Faults(plan({"seed": seed, "rule": list(rules)}))
        return self.service.faults

    async def tree(self) -> dict[str, int]:
        """Call :meth:`walk` as often as a busy machine needs."""
        for _ in range(PATIENCE):
            with contextlib.suppress(Unavailable, CatalogueError):
                return await self.walk()
        return await self.walk()

    async def walk(self) -> dict[str, int]:
        """Open every directory; return the inode of every file by its path."""
        found: dict[str, int] = {}

        async def walk(ino: int, above: str) -> None:
            folder = await self.vfs.open_folder(ino)
            for entry in folder.entries:
                path = f"{above}{entry.name}"
                if entry.is_directory:
                    await walk(entry.ino, f"{path}/")
                else:
                    found[path] = entry.ino

        await walk(ROOT, "")
        return found

    def truth(self, ino: int) -> bytes:
        """Return the content of a file as the service has it."""
        record = self.app.catalogue.record(ino)
        item = self.service.account.item(record.region, record.id)
        return item.content.read(0, item.content.size)

    async def read(self, ino: int, step: int = KERNEL) -> bytes:
        """Read a whole file as the kernel does."""
        handle = await self.vfs.open(ino)
        try:
            pieces: list[bytes] = []
            offset = 0
            while piece := await self.piece(handle, offset, step):
                pieces.append(piece)
                offset += len(piece)
            return b"".join(pieces)
        finally:
            self.vfs.release(handle)

    async def piece(self, handle, offset: int, size: int) -> bytes:
        want = max(0, min(size, handle.size - offset))
        lent = self.vfs.lend_now(handle, offset, size)
        if lent is None:
            data = await self.vfs.read(handle, offset, size)
            want = max(0, min(size, handle.size - offset))  # the real length may differ
        else:
            data = bytes(lent)
            await trio.lowlevel.checkpoint()
        assert len(data) == want, "a short read is the end of the file for everybody"
        return data

    def busy(self) -> dict[str, int]:
        """Return the gauges that must be zero in the end and are not."""
        status = self.app.status.document()
        reader, service, cache = status["reader"], status["service"], status["cache"]
        gauges = {
            **{name: reader[name] for name in READER_GAUGES},
            "slots": service["slots"]["in_use"],
            "slots_waiting": service["slots"]["waiting"],
            "listings": len(self.app.lister._single_flight),
            "pinned": cache["pinned"],
        }
        return {name: count for name, count in gauges.items() if count}

    async def settled(self, within_s: float = 60) -> None:
        """Wait until every gauge is zero again."""
        with trio.move_on_after(within_s):
            while self.busy():  # noqa: ASYNC110 - gauges have no event
                await trio.sleep(0.2)
        assert not self.busy()


async def outcome(scene: Scene, ino: int, deadline_s: float, step: int = KERNEL) -> str:
    """Read a file; return 'right' or the error's name. Fail if bytes are wrong or late."""
    handle = await scene.vfs.open(ino)
    got = bytearray()
    try:
        while True:
            begun = trio.current_time()
            try:
                piece = await scene.piece(handle, len(got), step)
            finally:
                took = trio.current_time() - begun
                assert took <= deadline_s + 0.5 * RATE, f"a read took {took:.1f} s"
            if not piece:
                break
            got += piece
    except PhonofsError as error:
        return type(error).__name__
    finally:
        scene.vfs.release(handle)
    assert bytes(got) == scene.truth(ino), "wrong bytes"
    return "right"


async def all_of(scene: Scene, inodes: Iterable[int], deadline_s: float) -> dict[int, str]:
    """Read the files concurrently; return the outcome of each."""
    ends: dict[int, str] = {}

    async def one(ino: int) -> None:
        ends[ino] = await outcome(scene, ino, deadline_s)

    async with trio.open_nursery() as nursery:
        for ino in inodes:
            nursery.start_soon(one, ino)
    return ends


async def in_the_end_right(scene: Scene, inodes: Iterable[int], deadline_s: float) -> None:
    """End the faults and check that all files can be read soon."""
    scene.faults()

    async def all_right() -> bool:
        return set((await all_of(scene, inodes, deadline_s)).values()) == {"right"}

    await until(all_right, 120, 1)


@asynccontextmanager
async def standing(
    account: Account, options: Options | None = None, *rules: dict[str, object]
) -> AsyncIterator[Service]:
    async with serve(Service(account, options, Faults(plan({"rule": list(rules)})))) as service:
        yield service


@asynccontextmanager
async def living(
    service: Service,
    folder: Path,
    patience: int = PATIENCE,
    kernel: Kernel | None = None,
    **options: object,
) -> AsyncIterator[Scene]:
    """Run the app until the block ends; then check that all its gauges are zero."""
    settings = settings_of(service.url, folder, **options)
    async with open_app(settings, str(folder / "m"), kernel) as app, trio.open_nursery() as nursery:
        with trio.fail_after(START_S * RATE):
            await app.start_tasks(nursery)
            for _ in range(patience):
                with contextlib.suppress(Unavailable):
                    await app.connect()
                    break
                await trio.sleep(PAUSE_S)
            else:
                await app.connect()
        scene = Scene(app, service)
        yield scene
        await scene.settled()
        nursery.cancel_scope.cancel()
