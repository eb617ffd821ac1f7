"""Serves one account without a mount, to programs that read through a door.

The same services as in ``mount.py``, without FUSE; nothing here imports pyfuse3. ``serve`` blocks
until the process is told to stop, or was idle for as long as it may be.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import trio

from phonofs.app import App, open_app
from phonofs.config import Settings
from phonofs.door.call import who_is_there
from phonofs.door.server import Door
from phonofs.errors import CacheInUse, UsageError
from phonofs.lifecycle import Lifetime, run, start_for_systemd
from phonofs.process.supervise import keep_running
from phonofs.process.systemd import notify
from phonofs.s3door.answers import Restoring
from phonofs.s3door.listener import Listener
from phonofs.s3door.server import Opened, S3Door, open_listener

log = logging.getLogger(__name__)

WAIT_S = 10.0
"""How long to wait for a daemon that was faster, or for a command that uses the cache folder."""

LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class ServePlan:
    """What to serve.

    load    reads the settings again; raises UsageError
    ready   called once, when clients can connect, with a message for the user, or ''
    idle_s  for how many seconds it may be idle before it ends, if it is started on demand; None if
            it is not: then it ends when it is told to
    listener  where S3 clients are served; None if they are not
    """

    settings: Settings
    load: Callable[[], Settings]
    ready: Callable[[str], None]
    idle_s: float | None = None
    listener: Listener | None = None


def serve(plan: ServePlan) -> None:
    """Serve until told to stop, or idle. Raises PhonofsError.

    If this was started on demand, and another daemon serves the account, there is nothing to do:
    ``ready`` is called, and this returns.
    """
    deadline_s = time.monotonic() + WAIT_S
    while True:
        try:
            run(partial(_live, plan), _stopped)
            return
        except CacheInUse:
            if plan.idle_s is None or time.monotonic() > deadline_s:
                raise
        if who_is_there(plan.settings.cache_dir) is not None:
            plan.ready("")
            return
        time.sleep(LOOK_S)


def _stopped(name: str) -> UsageError:
    return UsageError(f"stopped by {name} before it served")


async def _live(plan: ServePlan, lifetime: Lifetime) -> None:
    on_demand = plan.idle_s is not None
    opened = await open_listener(plan.listener) if plan.listener is not None else None
    async with open_app(plan.settings, "", polite=on_demand) as app:
        s3door = _s3door(app, opened) if opened is not None else None
        lifetime.begin(app, plan.load, s3door.reload if s3door is not None else None)
        service = _Service(app.door)
        if on_demand:
            app.door.lend(service.asked.set)
        async with trio.open_nursery() as nursery:
            lifetime.serve(service)
            await app.start_tasks(nursery)
            note = await app.connect()
            await service.begin()
            if s3door is not None:
                await nursery.start(keep_running, "the S3 door", s3door.run)
            plan.ready(note)
            notify(f"READY=1\nSTATUS={note or 'serving'}")
            log.info("serving %s%s", plan.settings.profile, f" ({note})" if note else "")
            answers = partial(_answers, plan.settings)
            await start_for_systemd(nursery, app.status.condition, answers, "the door")
            await service.over(plan.idle_s)
            nursery.cancel_scope.cancel()


def _s3door(app: App, opened: Opened) -> S3Door:
    restoring = Restoring(app.restore, app.changes.is_restoring)
    s3door = S3Door(opened, app.settings.profile, app.vfs, restoring)
    app.status.add("s3", s3door.statistics)
    return s3door


def _answers(settings: Settings) -> bool:
    return who_is_there(settings.cache_dir) is not None


class _Service:
    """The service, which signals and clients end."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.serving = False
        self.asked = trio.Event()

    async def begin(self) -> None:
        """Wait until clients can connect. Raises UsageError if they cannot."""
        await self._door.opened()
        if self._door.trouble:
            raise UsageError(f"nothing can be served: {self._door.trouble}")
        self.serving = True

    async def over(self, idle_s: float | None) -> None:
        """Wait until it is asked to end, or was idle for that long."""
        while not self.asked.is_set():
            if idle_s is None:
                await self.asked.wait()
                continue
            left_s = idle_s - self._door.idle_s()
            if left_s <= 0:
                log.info("nobody has used it for %g s: it ends", idle_s)
                return
            with trio.move_on_after(left_s):
                await self.asked.wait()
