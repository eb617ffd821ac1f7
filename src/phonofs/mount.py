"""Mounts one account: starts the app and the FUSE session, and shuts down.

A process has one mount, because pyfuse3's session is a global. ``serve`` blocks until the mount
ends, and raises PhonofsError if the mount could not be made.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pyfuse3
import trio

from phonofs.app import open_app
from phonofs.config import Settings
from phonofs.errors import MountFailed, unwrap
from phonofs.fuse.interrupts import MARGIN_S, InterruptibleRequests
from phonofs.fuse.invalidation import KernelCache
from phonofs.fuse.kernel_limits import CONNECTIONS, raise_background, raise_read_ahead
from phonofs.fuse.memory_pressure import outlast
from phonofs.fuse.mount_check import check, check_others_allowed, check_outside
from phonofs.fuse.mountinfo import SOURCE, Mounted, connection_of, device_fd, shown
from phonofs.fuse.operations import Operations, Ownership
from phonofs.fuse.unmount import is_mounted, just_mounted, take_down
from phonofs.lifecycle import Lifetime, run, start_for_systemd
from phonofs.process.supervise import keep_running
from phonofs.process.systemd import ask_tree, notify

log = logging.getLogger(__name__)

MAX_TASKS = 4096
"""Requests handled at a time: waiting reads must never block an ls."""

GRACE_S = 1.0
"""How long a clean stop waits for the handlers in flight. A stop may take 5 s in all."""


@dataclass(frozen=True, slots=True)
class MountPlan:
    """What to mount where. ``ready`` is called once, when the tree can be read, with a message for
    the user, or ''. ``load`` reads the settings again, and raises UsageError.
    """

    settings: Settings
    mountpoint: str
    ready: Callable[[str], None]
    load: Callable[[], Settings]


def serve(plan: MountPlan) -> None:
    """Mount and serve until the mount is unmounted or told to stop. Raises PhonofsError."""
    check(plan.mountpoint)
    if device_fd(plan.mountpoint) is None and plan.settings.allow_other:
        check_others_allowed()
    paths = {"the cache folder": plan.settings.cache_dir}
    if plan.settings.log_file is not None:
        paths["the log file"] = plan.settings.log_file
    if plan.settings.journal is not None:
        paths["the journal"] = plan.settings.journal / plan.settings.profile
    check_outside(plan.mountpoint, paths)

    def stopped(name: str) -> MountFailed:
        return MountFailed(f"{plan.mountpoint}: stopped by {name} before it was mounted")

    run(partial(_live, plan), stopped)


async def _live(plan: MountPlan, lifetime: Lifetime) -> None:
    kernel = KernelCache()
    async with open_app(plan.settings, shown(plan.mountpoint), kernel) as app:
        lifetime.begin(app, plan.load)
        interruptible = InterruptibleRequests(plan.settings.read_deadline + MARGIN_S)
        operations = Operations(app.vfs, interruptible, _ownership(plan.settings), kernel)
        app.status.add("fuse", operations.statistics)
        async with trio.open_nursery() as nursery:
            session = _Session(plan, operations)
            lifetime.serve(session)
            await app.start_tasks(nursery)
            note = await app.connect()
            await nursery.start(keep_running, "the scan of waiting callers", interruptible.run)
            async with session.mounted(nursery):
                await nursery.start(keep_running, "the kernel notifications", kernel.run)
                await session.answers()
                await _announce(plan, session.device, note)
                point = shown(plan.mountpoint)
                answers = partial(ask_tree, point)
                await start_for_systemd(nursery, app.status.condition, answers, point)
                await session.over()
            nursery.cancel_scope.cancel()


async def _announce(plan: MountPlan, device: str | None, note: str) -> None:
    """Report to the user, systemd and the log that the mount answers, after raising its limits."""
    raised = False
    if device is not None:
        await trio.to_thread.run_sync(raise_read_ahead, device, abandon_on_cancel=True)
        raised = await trio.to_thread.run_sync(raise_background, device, abandon_on_cancel=True)
    if not raised:
        log.info("only 12 reads can wait at a time: fusectl is not at %s", CONNECTIONS)
    plan.ready(note)
    notify(f"READY=1\nSTATUS={note or 'mounted'}")
    log.info("mounted on %s%s", shown(plan.mountpoint), f" ({note})" if note else "")


class _Session:
    """The FUSE session. Owns the scope around pyfuse3's loop and how it ended.

    _mount      the mount in the kernel's table; None before it is made, or if another process
                made it and passed it on: that process unmounts it
    """

    def __init__(self, plan: MountPlan, operations: Operations) -> None:
        self._plan = plan
        self._operations = operations
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._crash: BaseException | None = None
        self._mount: Mounted | None = None
        self._unmounted = False
        self.serving = False
        self.asked = trio.Event()

    @asynccontextmanager
    async def mounted(self, nursery: trio.Nursery) -> AsyncIterator[None]:
        """Mount, serve while the block runs, then unmount, unless the session crashed.

        Raises MountFailed.
        """
        try:
            pyfuse3.init(self._operations, self._plan.mountpoint, _options(self._plan.settings))
        except RuntimeError as error:
            raise MountFailed(
                f"{self._plan.mountpoint} could not be mounted: {error}; "
                "`phonofs doctor` looks for the reason"
            ) from error
        self._mount = just_mounted(self._plan.mountpoint)
        outlast(self._operations.error_stats.reserve)
        nursery.start_soon(self._loop)
        self.serving = True
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await self._stop()
            try:
                self._take_down()
            finally:
                pyfuse3.close(unmount=False)  # its own unmount would go by the path
        if self._crash is not None:
            raise MountFailed(f"the mount on {self._plan.mountpoint} broke: {self._crash}")

    @property
    def device(self) -> str | None:
        """The device of the mount, ``MAJOR:MINOR``; None if the kernel does not tell."""
        if self._mount is not None:
            return self._mount.device
        descriptor = device_fd(self._plan.mountpoint)
        connection = None if descriptor is None else connection_of(descriptor)
        return None if connection is None else f"0:{connection}"

    async def answers(self) -> None:
        """Wait until requests of the kernel are answered, or the session is over.

        Nothing here asks the mount for that. If the process were killed while a thread of it waits
        for its own answer, that thread would never end, and /dev/fuse would stay open: whoever
        touches the mount would wait for ever.
        """
        await _first_of(self._operations.begun, self._ended)

    async def over(self) -> None:
        """Wait until the mount is unmounted, is asked to stop, or breaks."""
        await _first_of(self.asked, self._ended)

    async def _loop(self) -> None:
        """Run pyfuse3's main loop; keep its errors from cancelling the nursery."""
        try:
            with self._scope:
                await pyfuse3.main(max_tasks=MAX_TASKS)
            self._unmounted = not self.asked.is_set()  # the kernel ended the loop
            if self._unmounted and self._mount is not None and is_mounted(self._mount):
                self._crash = MountFailed("the kernel aborted the connection")
        except Exception as error:
            self._crash = unwrap(error)
            log.exception("the FUSE loop ended with a fault; the mount point stays broken")
        finally:
            self._ended.set()

    def _take_down(self) -> None:
        """Unmount if still mounted. After a crash the mount stays, so that it looks broken and
        not empty.
        """
        if self._crash is None and self._mount is not None and not self._unmounted:
            try:
                take_down(self._mount)
            except (MountFailed, OSError) as error:
                failed = MountFailed(str(error))
                log.error("%s", failed)
                raise failed from None

    async def _stop(self) -> None:
        """End the loop: give the handlers in flight a grace period, then cancel them."""
        if not self._ended.is_set():
            self.asked.set()
            pyfuse3.terminate()
            with trio.move_on_after(GRACE_S):
                await self._ended.wait()
            self._scope.cancel()
            await self._ended.wait()


async def _first_of(*events: trio.Event) -> None:
    """Wait until one of them is set."""

    async def wait(event: trio.Event) -> None:
        await event.wait()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for event in events:
            nursery.start_soon(wait, event)


def _options(settings: Settings) -> set[str]:
    """Return the mount options, as the kernel and fusermount3 know them."""
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
