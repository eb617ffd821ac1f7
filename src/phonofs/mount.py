"""The composition root: the house, the FUSE session, one nursery, the order of shutdown.

One mount a process (pyfuse3's session is a global of its own). ``serve`` blocks until the mount
ends and raises PhonofsError when it could not be made.
"""

import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import trio

from phonofs.config import Settings
from phonofs.daemon import notify
from phonofs.errors import MountFailed
from phonofs.fuse.background import CONNECTIONS, raise_background
from phonofs.fuse.callers import MARGIN_S, Callers
from phonofs.fuse.errnos import unwrap
from phonofs.fuse.mountpoint import (
    SOURCE,
    check,
    check_outside,
    device_fd,
    mounted_type,
    raise_read_ahead,
    shown,
)
from phonofs.fuse.notify import KernelNotifier
from phonofs.fuse.operations import Operations, Ownership
from phonofs.fuse.workers import outlast
from phonofs.house import House, build
from phonofs.supervise import Task, keep_running
from phonofs.systemd import StatusLine, Watchdog, listening, watchdog_interval_s

log = logging.getLogger(__name__)

MAX_TASKS = 4096
"""Requests handled at a time: waiting reads must never stop an ls."""

GRACE_S = 1.0
"""What handlers in flight get at a clean stop, of the 5 s that it may take in all."""

COLLECT_AFTER = 50_000
"""Objects made before the garbage collector looks for cycles among them, of which there are few:
at Python's own 700 it took a third of the time of reading a page of records."""

FUSE_CONF = Path("/etc/fuse.conf")


@dataclass(frozen=True, slots=True)
class MountPlan:
    """What to mount where; ``ready`` is called once, with a note, when the tree can be read."""

    settings: Settings
    mountpoint: str
    ready: Callable[[str], None]


def serve(plan: MountPlan) -> None:
    """Mount and serve until unmounted or told to stop."""
    check(plan.mountpoint)
    if device_fd(plan.mountpoint) is None:
        _check_allow_other(plan.settings)
    paths = {"the cache folder": plan.settings.cache_dir}
    if plan.settings.log_file is not None:
        paths["the log file"] = plan.settings.log_file
    check_outside(plan.mountpoint, paths)
    gc.freeze()  # what was imported stays
    gc.set_threshold(COLLECT_AFTER)
    try:
        trio.run(_serve, plan)
    except BaseExceptionGroup as group:
        raise unwrap(group) from None


async def _serve(plan: MountPlan) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with build(plan.settings, shown(plan.mountpoint)) as house:
            callers = Callers(plan.settings.read_deadline + MARGIN_S)
            notifier = KernelNotifier()
            operations = Operations(house.vfs, callers, _ownership(plan.settings), notifier)
            house.attach(operations.statistics, notifier.tell, notifier.tell_size)
            async with trio.open_nursery() as nursery:
                session = _Session(plan, operations)
                nursery.start_soon(_obey, signals, house, session, nursery.cancel_scope)
                for name, task in house.tasks():
                    await nursery.start(keep_running, name, task)
                note = await house.connect()
                for name, task in house.later_tasks():
                    await nursery.start(keep_running, name, task)
                await nursery.start(keep_running, "the look at who waits", callers.run)
                async with session.mounted(nursery):
                    await nursery.start(keep_running, "the kernel notifier", notifier.run)
                    await _announce(plan, note)
                    for name, task in _for_systemd(plan, house):
                        await nursery.start(keep_running, name, task)
                    await session.over()
                nursery.cancel_scope.cancel()


async def _announce(plan: MountPlan, note: str) -> None:
    """Wait until the mount answers, then say so."""
    point = shown(plan.mountpoint)
    if device_fd(point) is None:
        with suppress(PermissionError):  # handed over, and below a folder that is not ours
            await trio.to_thread.run_sync(os.statvfs, point, abandon_on_cancel=True)
            await trio.to_thread.run_sync(raise_read_ahead, point, abandon_on_cancel=True)
    if not await trio.to_thread.run_sync(raise_background, plan.mountpoint, abandon_on_cancel=True):
        log.info("only 12 reads can wait at a time: fusectl is not at %s", CONNECTIONS)
    plan.ready(note)
    notify(f"READY=1\nSTATUS={note or 'mounted'}")
    log.info("mounted on %s%s", point, f" ({note})" if note else "")


def _for_systemd(plan: MountPlan, house: House) -> list[tuple[str, Task]]:
    """The tasks that only a service manager wants."""
    tasks: list[tuple[str, Task]] = []
    if listening():
        tasks.append(("the status line", StatusLine(house.condition).run))
    interval_s = watchdog_interval_s()
    if interval_s is not None:
        tasks.append(("the watchdog", Watchdog(shown(plan.mountpoint), interval_s).run))
    return tasks


async def _obey(
    signals: AsyncIterator[int], house: House, session: "_Session", scope: trio.CancelScope
) -> None:
    """SIGTERM and SIGINT end the mount, SIGHUP has the credentials read again."""
    async for number in signals:
        if number == signal.SIGHUP:
            log.info("reading the credentials again")
            house.read_credentials_again()
        elif session.serving and not session.asked.is_set():
            log.info("stopping on %s", signal.Signals(number).name)
            notify("STOPPING=1")
            session.asked.set()
        else:  # still starting, or in a hurry
            scope.cancel()


class _Session:
    """The FUSE session. Owns the scope around pyfuse3's loop and how it ended."""

    def __init__(self, plan: MountPlan, operations: Operations) -> None:
        self._plan = plan
        self._operations = operations
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._crash: BaseException | None = None
        self.serving = False
        self.asked = trio.Event()

    @asynccontextmanager
    async def mounted(self, nursery: trio.Nursery) -> AsyncIterator[None]:
        """The mount, served while the block runs, and taken down after it unless it crashed."""
        try:
            pyfuse3.init(self._operations, self._plan.mountpoint, _options(self._plan.settings))
        except RuntimeError as error:
            raise MountFailed(
                f"{self._plan.mountpoint} could not be mounted: {error}; "
                "`phonofs doctor` looks for the reason"
            ) from error
        outlast(self._operations.ledger.shortage)
        nursery.start_soon(self._loop)
        self.serving = True
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await self._stop()
            pyfuse3.close(unmount=self._crash is None)
        if self._crash is not None:
            raise MountFailed(f"the mount on {self._plan.mountpoint} broke: {self._crash}")

    async def over(self) -> None:
        """Wait until somebody unmounts it, asks for its end, or it breaks."""
        async with trio.open_nursery() as nursery:
            for event in (self.asked, self._ended):
                nursery.start_soon(_cancel_when, event, nursery.cancel_scope)

    async def _loop(self) -> None:
        """pyfuse3's main loop, kept from taking the nursery with it."""
        try:
            with self._scope:
                await pyfuse3.main(max_tasks=MAX_TASKS)
            if not self.asked.is_set() and self._still_there():
                self._crash = MountFailed("the kernel aborted the connection")
        except Exception as error:
            self._crash = unwrap(error)
            log.exception("the FUSE loop ended with a fault; the mount point stays broken")
        finally:
            self._ended.set()

    def _still_there(self) -> bool:
        """Whether the mount outlives its connection, as after an abort; reads /proc only."""
        point = shown(self._plan.mountpoint)
        return device_fd(point) is None and mounted_type(point) is not None

    async def _stop(self) -> None:
        """End the loop: a grace period for the handlers in flight, then cancel them."""
        if not self._ended.is_set():
            self.asked.set()
            pyfuse3.terminate()
            with trio.move_on_after(GRACE_S):
                await self._ended.wait()
            self._scope.cancel()
            await self._ended.wait()


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _options(settings: Settings) -> set[str]:
    """The mount options, as the kernel and fusermount3 know them."""
    options = {
        "ro",
        "nosuid",
        "nodev",
        "noexec",
        "default_permissions",
        f"fsname={SOURCE}{settings.profile}",
        f"subtype={settings.subtype}",
    }
    return options | ({"allow_other"} if settings.allow_other else set())


def _ownership(settings: Settings) -> Ownership:
    return Ownership(settings.uid, settings.gid, settings.umask)


def _check_allow_other(settings: Settings) -> None:
    """fusermount3 allows it to others than root only where the administrator does."""
    if not settings.allow_other or os.geteuid() == 0:
        return
    try:
        lines = FUSE_CONF.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    if "user_allow_other" not in (line.strip() for line in lines):
        raise MountFailed(
            f"allow_other needs a line `user_allow_other` in {FUSE_CONF}; ask root to add it"
        )
