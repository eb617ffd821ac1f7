"""Real mounts for tests: the fake service in a thread, phonofs as a separate process.

Used by ``tests/mount`` and ``tests/fault``. Every process is ended by its pid and every mount is
unmounted, even if a test fails.
"""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import trio

from phonofs.fakeservice.account import Account
from phonofs.fakeservice.faults import Faults, load
from phonofs.fakeservice.options import DEMO_KEY, DEMO_SECRET, Options
from phonofs.fakeservice.server import listen, serve
from tests.support.counted_service import Service
from tests.support.timing import Stopwatch

START_S = 60.0
"""How long a program may take to do what is waited for, on a slow machine that has other work."""

Value = TypeVar("Value")


class StandIn:
    """The fake service in a thread; ``service`` may be read and changed while it runs.

    ``port`` stays the same after ``stop`` and ``start``, as for a service that comes back.
    """

    def __init__(self, account: Account, options: Options | None = None) -> None:
        self.service = Service(account, options)
        self._port = 0
        self._store_port = 0
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return self.service.url

    def start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run, ready), daemon=True)
        self._thread.start()
        assert ready.wait(START_S)

    async def _run(self, ready: threading.Event) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as self._scope:
            sockets = listen(self.service, self._port, self._store_port)
            async with serve(self.service, sockets) as service:
                self._port = int(service.url.rpartition(":")[2])
                self._store_port = int(service.store_url.rpartition(":")[2])
                async with self.beside(service):
                    ready.set()
                    await trio.sleep_forever()

    def beside(self, service: Service) -> contextlib.AbstractAsyncContextManager[None]:
        """Return a context to enter while the service runs; subclasses override it."""
        return contextlib.nullcontext()

    def faults(self, *rules: dict[str, object]) -> Faults:
        """Apply these fault rules from now on, or none; the return value counts what fired."""
        self.service.faults = Faults(load(json.dumps({"rule": list(rules)})))
        return self.service.faults

    def stop(self) -> None:
        if self._thread is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)
            self._thread.join(START_S)
            self._thread = None


class Mount:
    """One phonofs process and its mount point.

    ``under`` is the command before Python (a wrapper), ``program`` are Python's arguments.
    """

    def __init__(self, url: str, point: Path, cache: Path, **options: str) -> None:
        self.point = point
        self.cache = cache
        self.environment = {
            **os.environ,
            "PHONOFS_KEY": DEMO_KEY,
            "PHONOFS_SECRET": DEMO_SECRET,
            "PHONOFS_API_URL": url,
            "PHONOFS_CACHE_DIR": str(cache),
            "PHONOFS_TIMEZONE": "UTC",
            "PHONOFS_CACHE_MIN_FREE": "0",
            "XDG_CONFIG_HOME": str(cache.parent / "config"),
            "XDG_RUNTIME_DIR": str(cache.parent / "run"),
            **{f"PHONOFS_{name.upper()}": value for name, value in options.items()},
        }
        self.log = cache.parent / f"{point.name}.log"
        self.under: tuple[str, ...] = ()
        self.program: tuple[str, ...] = ("-m", "phonofs.cli")
        self.process: subprocess.Popen[bytes] | None = None
        self.stand_in: StandIn | None = None

    def on_path(self, folder: Path) -> None:
        """Put a program ``phonofs`` into a new folder that PATH begins with, for mount.fuse3(8)."""
        folder.mkdir()
        program = folder / "phonofs"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m phonofs.cli "$@"\n')
        program.chmod(0o755)
        self.environment["PATH"] = f"{folder}:{os.environ['PATH']}"

    def start(self, wait: bool = True) -> "Mount":
        self.point.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.under, sys.executable, *self.program, "mount", "-f", str(self.point)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            until(lambda: os.path.ismount(self.point) or self.process.poll() is not None)
            assert self.process.poll() is None, self.log.read_text()
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the process by a signal; return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(START_S)
        self.process = None
        return status

    def clean_up(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(START_S)
        subprocess.run(["umount", "-l", str(self.point)], stderr=subprocess.DEVNULL, check=False)

    def log_text(self) -> str:
        return self.log.read_text()


def until(condition: Callable[[], bool], within_s: float = START_S) -> None:
    """Wait for something that another process does; check every 10 ms."""
    watch = Stopwatch()
    while not condition():
        assert watch.within(within_s), "it did not happen in time"
        time.sleep(0.01)


def at_last(ask: Callable[[], Value]) -> Value:
    """Return what ``ask`` returns; ask again, for a while, if it is EIO.

    On a busy machine a healthy service takes longer than the short deadline of a mount that is to
    meet an outage. What was asked for goes on, and is there in the end.
    """
    answers: list[Value] = []

    def answered() -> bool:
        try:
            answers.append(ask())
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        return bool(answers)

    until(answered)
    return answers[0]


@contextlib.contextmanager
def standing(account: Account, options: Options | None = None) -> Iterator[StandIn]:
    stand_in = StandIn(account, options)
    stand_in.start()
    try:
        yield stand_in
    finally:
        stand_in.stop()


@contextlib.contextmanager
def mounted(url: str, folder: Path, **options: str) -> Iterator[Mount]:
    """Mount at ``folder/m``, with the cache at ``folder/cache``."""
    mount = Mount(url, folder / "m", folder / "cache", **options)
    try:
        yield mount.start()
    finally:
        mount.clean_up()


@contextlib.contextmanager
def unmounted(stand_in: StandIn, folder: Path) -> Iterator[Mount]:
    """Return what is to be mounted at ``folder/m``; the service is its ``stand_in``."""
    mount = Mount(stand_in.url, folder / "m", folder / "cache")
    mount.point.mkdir()
    mount.stand_in = stand_in
    try:
        yield mount
    finally:
        mount.clean_up()


def phonofs(mount: Mount, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the environment of a mount."""
    return subprocess.run(
        [sys.executable, "-m", "phonofs.cli", *words],
        env={**mount.environment, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def mount_in_background(mount: Mount) -> str:
    """Mount as a user does; return what the command said on standard error."""
    done = phonofs(mount, "mount", str(mount.point))
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stderr


def unmount(mount: Mount) -> None:
    """Unmount as a user does."""
    done = phonofs(mount, "umount", str(mount.point))
    assert done.returncode == 0, (done.returncode, done.stderr)


def status_of(mount: Mount) -> dict:
    """Return the status document, read through the mount."""
    return json.loads(os.getxattr(mount.point, "user.phonofs.status"))


def is_followed(status: dict) -> bool:
    """Whether the changes of each region are followed: its first poll is over."""
    followed = status["catalogue"]["followed"]
    return bool(followed) and all(region["polled_at"] for region in followed.values())


def files(point: Path) -> list[Path]:
    """Return all files below a mount point, sorted."""
    return at_last(lambda: sorted(path for path in point.rglob("*") if path.is_file()))


def held_at_once(paths: Iterable[Path]) -> int:
    """Return the bytes on disk of files that exist at the same time.

    A process that adds and removes some meanwhile must not have both counted.
    """
    sizes = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            sizes[path] = path.stat().st_blocks * 512
    return sum(size for path, size in sizes.items() if path.exists())
