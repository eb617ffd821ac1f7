"""Everything of a mount but FUSE itself: builds the rooms, joins them, reports on them.

Used by ``mount.py`` and by tests, which get a whole tree without a mount. ``build`` opens what
is on disk and the way to the service; ``tasks`` are the background tasks that the caller runs in
its nursery; ``connect`` gets the token and the regions, or goes on from the catalogue without.
"""

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import platformdirs
import trio

from phonofs import __version__
from phonofs.cache.cache import Cache
from phonofs.cache.sealed import Cipher
from phonofs.catalogue.clerk import HelpedClerk
from phonofs.catalogue.follower import Follower
from phonofs.catalogue.lister import Lister
from phonofs.catalogue.store import LISTED, REMOVED, Catalogue, Change
from phonofs.config import Settings
from phonofs.control import Broadcast, Control
from phonofs.credentials import Credentials, Places, cache_key, find
from phonofs.css.auth import Keeper
from phonofs.css.client import Client
from phonofs.css.transport import Transport
from phonofs.errors import Unavailable
from phonofs.logs import set_level
from phonofs.reader.limits import Limits
from phonofs.reader.reader import Reader
from phonofs.restores import Restores
from phonofs.supervise import Task
from phonofs.vfs import Vfs

if TYPE_CHECKING:
    from phonofs.metrics import Metrics

log = logging.getLogger(__name__)

CATALOGUE_NAME = "catalogue.sqlite"
WAYS = "ways"
"""The catalogue's key for how each region gives content, found out once."""
RESTORES = "restores"
"""The catalogue's key for the archived objects that were asked back."""

Statistics = Callable[[], dict[str, object]]


class House:
    """The rooms of one mount. Owns the wiring between them and the tree's own change events."""

    def __init__(
        self,
        settings: Settings,
        mountpoint: str,
        *,
        catalogue: Catalogue,
        cache: Cache,
        transport: Transport,
    ) -> None:
        self._settings = settings
        self._mountpoint = mountpoint
        self._begun_s = _since_boot_s()
        self._catalogue = catalogue
        self._cache = cache
        self._keeper = Keeper(transport, settings.api_url, self._credentials)
        self._client = Client(
            transport,
            self._keeper,
            settings.api_url,
            read_deadline_s=settings.read_deadline,
            ways=_ways(catalogue.recall(WAYS)),
        )
        self._clerk = HelpedClerk(catalogue.view)
        self._lister = Lister(self._client, catalogue, settings, self._changed, clerk=self._clerk)
        self._follower = Follower(self._client, catalogue, settings, self._changed)
        self._reader = Reader(
            self._client,
            cache,
            Limits(
                read_deadline_s=settings.read_deadline,
                cache_bytes=settings.cache_size,
                connections=settings.max_connections,
            ),
            siblings=catalogue.siblings,
            on_size=self._resized,
            on_wrong=self._falsified,
        )
        self._restores = Restores.of_note(catalogue.recall(RESTORES))
        self._events = Broadcast()
        self._control = Control(
            control_path(mountpoint),
            status=self.status,
            set_level=set_level,
            events=self._events,
            restoring=self._restoring,
        )
        self._metrics = _metrics(settings.metrics, self.status)
        self._tell_kernel: Callable[[Sequence[Change]], None] = lambda changes: None
        self._fuse: Statistics = dict
        self.vfs = Vfs(
            catalogue,
            self._lister,
            self._reader,
            cached_bytes=cache.cached_bytes,
            status=self.status,
        )

    # life

    def attach(self, fuse: Statistics, tell_kernel: Callable[[Sequence[Change]], None]) -> None:
        """Join the FUSE side: its gauges, and whom to tell of changes."""
        self._fuse = fuse
        self._tell_kernel = tell_kernel

    def tasks(self) -> list[tuple[str, Task]]:
        """The background tasks to start before :meth:`connect`, in order."""
        return [
            ("the token keeper", self._keeper.run),
            ("the lister", self._lister.run),
            ("the clerk", self._clerk.run),
            ("the reader", self._reader.run),
            ("the cache janitor", self._janitor),
            ("the control socket", self._control.run),
        ]

    def later_tasks(self) -> list[tuple[str, Task]]:
        """Those to start after it: they need to know the regions."""
        tasks: list[tuple[str, Task]] = [("the change follower", self._follower.run)]
        if self._metrics is not None:
            tasks.append(("the metrics", self._metrics.run))
        return tasks

    async def _janitor(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()
        await self._cache.run()

    async def connect(self) -> str:
        """Get a token and the regions; a note for the person who waits, '' when all is well.

        Without the service it goes on where the catalogue is known, and says so. Raises
        CredentialsRefused, Unavailable, Malformed.
        """
        note = ""
        known = list(self._settings.regions) or self._catalogue.regions()
        try:
            await self._keeper.token()
            if not known:
                known = await self._client.regions()
        except Unavailable as error:
            if not self._catalogue.regions():
                raise
            note = f"offline: {error}; what is known is shown and what is cached can be read"
        self._catalogue.set_regions(known)
        if not note:
            self._lister.begin()
        return note

    def read_credentials_again(self) -> None:
        """Have the keeper read key and secret again and try them now."""
        self._keeper.retry_now()

    def remember(self) -> None:
        """Keep what was learned of the service for the next mount."""
        try:
            self._catalogue.remember(WAYS, msgspec.json.encode(self._client.ways).decode())
        except Unavailable as error:  # the disk fails: no reason to end with an error
            log.warning("what was learned of the service is not kept: %s", error)

    async def _credentials(self) -> tuple[str, Any]:
        found: Credentials = await trio.to_thread.run_sync(self._find, abandon_on_cancel=True)
        return found.key, found.secret

    def _find(self) -> Credentials:
        settings = self._settings
        places = Places(
            Path(platformdirs.user_config_dir("phonofs")),
            os.environ,
            settings.key,
            settings.secret,
            settings.secret_file,
        )
        return find(settings.profile, places)

    # what changes

    def _changed(self, changes: Sequence[Change]) -> None:
        """The service told of changes: the catalogue has them, now all others are told."""
        for change in changes:
            record = change.record
            if change.kind == REMOVED:
                self._reader.withdraw(record.region, record.id)
                self._cache.forget(record.region, record.id)
            elif change.content:
                self._reader.withdraw(record.region, record.id, but=record.fingerprint)
                self._cache.forget(record.region, record.id, but=record.fingerprint)
        self._settled(changes)
        self._tell_kernel(changes)
        self._events.send([_event(one) for one in changes if one.kind != LISTED])

    def _restoring(self, region: str, ids: Sequence[str]) -> None:
        """Somebody asked the service for these archived objects."""
        self._restores.asked(region, ids, time.time())
        self._catalogue.remember(RESTORES, self._restores.note())

    def _settled(self, changes: Sequence[Change]) -> None:
        """What came back, or went for good, is no longer waited for."""
        if self._restores.settle((change.kind, change.record) for change in changes):
            self._catalogue.remember(RESTORES, self._restores.note())

    def _resized(self, ino: int, size: int) -> None:
        """The real length of a content differs from what its record says."""
        self._tell_kernel(self._catalogue.set_size(ino, size))

    def _falsified(self, ino: int) -> None:
        """Bytes given so far turned out false: the kernel must forget its pages."""
        self._tell_kernel(self._catalogue.touched(ino))

    # what is said

    def condition(self) -> str:
        """How the mount is, in one line: what is wrong, or what is known."""
        token = self._keeper.statistics()
        if token["error"] and not token["valid"]:
            return f"no token: {token['error']}; what is cached goes on working"
        followed: Any = self._follower.statistics()["followed"]
        if away := [region for region, seen in followed.items() if seen["failures"]]:
            return f"no news from {', '.join(away)}: the service cannot be asked"
        return f"mounted, {self._catalogue.totals()[0]:,} objects known"

    def status(self) -> dict[str, object]:
        """All gauges and counts, as ``phonofs status --json`` prints them."""
        objects, size = self._catalogue.totals()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "profile": self._settings.profile,
            "mountpoint": self._mountpoint,
            "condition": self.condition(),
            "uptime_s": round(_since_boot_s() - self._begun_s, 1),
            "control": str(control_path(self._mountpoint)),
            "catalogue": {
                "objects": objects,
                "bytes": size,
                "regions": self._catalogue.regions(),
                **self._follower.statistics(),
            },
            "restores": self._restores.statistics(),
            "service": self._client.statistics(),
            "cache": self._cache.statistics(),
            "reader": self._reader.statistics(),
            "fuse": self._fuse(),
        }


def _metrics(address: str | None, status: Statistics) -> "Metrics | None":
    if address is None:
        return None
    from phonofs.metrics import Metrics  # a mount without them starts 20 ms sooner

    return Metrics(address, status)


def _since_boot_s() -> float:
    """A clock that nobody sets, and that goes on in a suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _event(change: Change) -> dict[str, object]:
    """A change as ``phonofs watch`` prints it; the path is below the mount point."""
    return {
        "kind": change.kind,
        "path": change.path,
        "record": msgspec.Raw(change.record.source),
    }


def _ways(note: str | None) -> dict[str, str]:
    """What an earlier mount found out; nothing where the note is not what it should be."""
    try:
        return msgspec.json.decode(note or "{}", type=dict[str, str])
    except msgspec.DecodeError:
        return {}


def control_path(mountpoint: str) -> Path:
    """Where the control socket of a mount is: short, since a socket's path has 107 bytes."""
    digest = hashlib.blake2b(os.fsencode(mountpoint), digest_size=8).hexdigest()
    return runtime_folder() / f"{digest}.sock"


def runtime_folder() -> Path:
    """Where sockets go: systemd's or the user's runtime directory, else one of our own."""
    given = os.environ.get("RUNTIME_DIRECTORY") or os.environ.get("XDG_RUNTIME_DIR")
    if given:
        return Path(given) / "phonofs"
    if os.geteuid() == 0:
        return Path("/run/phonofs")
    own = Path(f"/run/user/{os.getuid()}")
    return (own if own.is_dir() else Path(tempfile.gettempdir())) / f"phonofs-{os.getuid()}"


@asynccontextmanager
async def build(settings: Settings, mountpoint: str) -> AsyncIterator[House]:
    """Open the cache, the catalogue and the way to the service; close them in reverse."""
    key = await trio.to_thread.run_sync(cache_key, settings.profile, settings.cache_encrypt)
    cache = Cache.open(
        settings.cache_dir,
        size_bytes=settings.cache_size,
        min_free_bytes=settings.cache_min_free,
        cipher=Cipher(key) if key is not None else None,
    )
    try:
        catalogue = await trio.to_thread.run_sync(
            Catalogue.open, settings.cache_dir / CATALOGUE_NAME, settings
        )
        try:
            async with Transport(
                settings.api_url,
                max_connections=settings.max_connections,
                timeout_s=settings.timeout,
            ) as transport:
                house = House(
                    settings, mountpoint, catalogue=catalogue, cache=cache, transport=transport
                )
                yield house
                house.remember()
        finally:
            catalogue.close()
    finally:
        cache.close()
