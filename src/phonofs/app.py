"""Everything of a mount but FUSE itself: builds the rooms, joins them, reports on them.

Used by ``mount.py`` and by tests, which get a whole tree without a mount. ``build`` opens what
is on disk and the way to the service; ``tasks`` are the background tasks that the caller runs in
its nursery; ``connect`` gets the token and the regions, or goes on from the catalogue without.
"""

import logging
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from phonofs import __version__
from phonofs.account import Admission, choose, customers_of
from phonofs.cache import maintenance
from phonofs.cache.accounts import CATALOGUE, Accounts
from phonofs.cache.cache import Cache
from phonofs.cache.codec import AesGcmCodec
from phonofs.catalogue.catalogue import REMOVED, Catalogue, ChangeSet, ObjectChange
from phonofs.config import Settings, as_texts
from phonofs.control.peers import Peer, may, may_reach
from phonofs.control.server import Broadcast, Control, Shared
from phonofs.credentials import Credentials, CredentialSources, cache_key, find, own_folder
from phonofs.discovery.follower import Follower
from phonofs.discovery.lister import Lister
from phonofs.discovery.page_worker import HelpedPageWorker
from phonofs.errors import CatalogueError, PhonofsError, ServiceError, Unavailable, UsageError
from phonofs.process.logging_setup import set_level
from phonofs.process.supervise import Task
from phonofs.reader.limits import Limits
from phonofs.reader.reader import Reader
from phonofs.restores import Restores
from phonofs.service.auth import CREDENTIALS_S, TokenProvider
from phonofs.service.client import Client
from phonofs.service.session import Transport
from phonofs.tree.layout import ROOT
from phonofs.units import format_count
from phonofs.vfs import Vfs

if TYPE_CHECKING:
    from phonofs.metrics import Metrics

log = logging.getLogger(__name__)

WAYS = "ways"
"""The catalogue's key for how each region gives content, found out once."""
RESTORES = "restores"
"""The catalogue's key for the archived objects that were asked back."""

REGIONS_S = 3.0
"""How long a mount that knows its regions waits to hear of new ones."""

REGIONS_EVERY_S = 3600.0
REGIONS_RETRY_S = 60.0
"""How often they are asked for while mounted; a region comes once in years."""

LOOK_S = 2.0
LARGEST_LOG = 16 << 20
CHECKPOINT_S = 60.0
"""When the catalogue's log is brought in: a listed day of 10,000 objects writes 20 to 30 MB."""

Statistics = Callable[[], dict[str, object]]


class App:
    """The rooms of one mount. Owns the wiring between them and the tree's own change events."""

    def __init__(
        self,
        settings: Settings,
        mountpoint: str,
        *,
        catalogue: Catalogue,
        cache: Cache,
        transport: Transport,
        admission: Admission,
        note: str = "",
    ) -> None:
        """``admission`` decides on each key; ``note`` is said once it is mounted."""
        self._settings = settings
        self._mountpoint = mountpoint
        self._begun_s = _since_boot_s()
        self._catalogue = catalogue
        self._cache = cache
        self._admission = admission
        self._note = note
        self._regions_wanted = trio.Event()
        self._regions_to_come: list[str] = []
        self._keeper = TokenProvider(transport, settings.api_url, self._credentials)
        self._client = Client(
            transport,
            self._keeper,
            settings.api_url,
            read_deadline_s=settings.read_deadline,
            delivery_methods=_delivery_methods(catalogue.recall(WAYS)),
        )
        self._page_worker = HelpedPageWorker(catalogue.view)
        self._lister = Lister(
            self._client, catalogue, settings, self._changed, page_worker=self._page_worker
        )
        self._follower = Follower(self._client, catalogue, settings, self._changed)
        self._reader = Reader(
            self._client,
            cache,
            Limits(
                read_deadline_s=settings.read_deadline,
                cache_bytes=settings.cache_size,
                connections=settings.max_connections,
                verify=settings.verify,
            ),
            siblings=catalogue.siblings,
            on_size=self._resized,
            on_wrong=self._falsified,
        )
        self._restores = Restores.of_note(catalogue.recall(RESTORES))
        self._events = Broadcast()
        self._control = Control(
            control_path(settings.profile),
            status=self.status,
            set_level=set_level,
            events=self._events,
            options=lambda: as_texts(settings),
            restore=self._restore,
            asked=self._restoring,
            shared=Shared(self._may_read, self._shows) if settings.allow_other else None,
        )
        self._metrics = _metrics(settings.metrics, self.status)
        self._tell_kernel: Callable[[ChangeSet], None] = lambda changes: None
        self._kernel_forgets: Callable[[Sequence[tuple[int, str]]], None] = lambda entries: None
        self._tell_size: Callable[[int], None] | None = None
        self._fuse: Statistics = dict
        self.vfs = Vfs(
            catalogue,
            self._lister,
            self._reader,
            cached_bytes=cache.cached_bytes,
            status=self.status,
        )
        admission.on_refusal = self._refused

    # life

    def attach(
        self,
        fuse: Statistics,
        tell_kernel: Callable[[ChangeSet], None],
        kernel_forgets: Callable[[Sequence[tuple[int, str]]], None] = lambda entries: None,
        tell_size: Callable[[int], None] | None = None,
    ) -> None:
        """Join the FUSE side: its gauges, whom to tell of changes, what has the kernel forget
        names with all below them, and what is open, and whom to tell of new sizes if apart.
        """
        self._fuse = fuse
        self._tell_kernel = tell_kernel
        self._kernel_forgets = kernel_forgets
        self._tell_size = tell_size

    def tasks(self) -> list[tuple[str, Task]]:
        """The background tasks to start before :meth:`connect`, in order."""
        return [
            ("the token keeper", self._keeper.run),
            ("the lister", self._lister.run),
            ("the clerk", self._page_worker.run),
            ("the reader", self._reader.run),
            ("the cache janitor", self._janitor),
            ("the catalogue's checkpoints", self._checkpoints),
            ("the control socket", self._control.run),
        ]

    def later_tasks(self) -> list[tuple[str, Task]]:
        """Those to start after it: they need to know the regions."""
        tasks: list[tuple[str, Task]] = [("the change follower", self._follower.run)]
        if not self._settings.regions:
            tasks.append(("the look for regions", self._watch_regions))
        if self._metrics is not None:
            tasks.append(("the metrics", self._metrics.run))
        return tasks

    async def _janitor(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()
        await maintenance.run(self._cache)

    async def _checkpoints(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Bring what was written into the catalogue's file, which syncs the disk: in a thread."""
        task_status.started()
        rested_s = 0.0
        while True:
            await trio.sleep(LOOK_S)
            rested_s += LOOK_S
            size = self._catalogue.log_bytes()
            if size > LARGEST_LOG or (size and rested_s >= CHECKPOINT_S):
                rested_s = 0.0
                try:
                    await trio.to_thread.run_sync(self._catalogue.checkpoint)
                except CatalogueError as error:
                    log.info("the catalogue's log could not be brought in: %s", error)

    async def connect(self) -> str:
        """Get a token and the regions; a note for the person who waits, '' when all is well.

        Without the service it goes on where the catalogue is known, and says so. Raises
        CredentialsRefused, Unavailable, Malformed.
        """
        offline, shown = "", list(self._settings.regions)
        try:
            await self._keeper.token()
            shown = shown or await self._regions_at_start()
        except Unavailable as error:
            if not self._catalogue.regions():
                raise
            offline = f"offline: {error}; what is known is shown and what is cached can be read"
        self._catalogue.begin(shown or self._catalogue.discovered())
        if not offline:
            self._lister.begin()
        parts = (offline, self._note, self._catalogue.only_in_memory)
        return "; ".join(part for part in parts if part)

    async def _regions_at_start(self) -> list[str]:
        """The regions that the service names; those known where it does not say so in time.

        Raises ServiceError where none is known.
        """
        known = self._catalogue.discovered()
        if not known:
            return self._catalogue.discover(await self._client.regions())
        error: ServiceError = Unavailable(f"no answer within {REGIONS_S:g} s")
        with trio.move_on_after(REGIONS_S):
            try:
                return self._catalogue.discover(await self._client.regions())
            except ServiceError as failed:
                error = failed
        log.warning("the known regions are shown, since the service does not name them: %s", error)
        self._regions_wanted.set()
        return known

    async def _watch_regions(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Ask for the regions now and then, and at once when somebody wants it."""
        task_status.started()
        pause_s = REGIONS_EVERY_S if self._keeper.current() else REGIONS_RETRY_S
        while True:
            with trio.move_on_after(pause_s):
                await self._regions_wanted.wait()
            self._regions_wanted = trio.Event()
            try:
                self._show_new(self._catalogue.discover(await self._client.regions()))
                pause_s = REGIONS_EVERY_S
            except PhonofsError as error:
                log.info("the regions cannot be asked for: %s", error)
                pause_s = REGIONS_RETRY_S

    def _show_new(self, found: Sequence[str]) -> None:
        """Show regions that came; not yet where that moved the years of the only one so far."""
        shown = self._catalogue.regions()
        new = [region for region in found if region not in shown]
        if len(shown) == 1:
            if new and new != self._regions_to_come:
                log.warning("%s", _to_come(new))
            self._regions_to_come = new
        elif new:
            self._catalogue.set_regions([*shown, *new])
            for region in new:
                self._follower.follow(region)
            self._lister.begin()

    def read_credentials_again(self) -> None:
        """Have the keeper read key and secret again and try them now; ask for the regions too."""
        self._keeper.retry_now()
        self._regions_wanted.set()

    def remember(self) -> None:
        """Keep what was learned of the service for the next mount."""
        try:
            self._catalogue.remember(
                WAYS, msgspec.json.encode(self._client.delivery_methods).decode()
            )
        except CatalogueError as error:  # the disk fails: no reason to end with an error
            log.warning("what was learned of the service is not kept: %s", error)

    async def _credentials(self) -> tuple[str, Any]:
        found = await _found(self._settings)
        await self._admission.admit(found)
        return found.key, found.secret

    def _refused(self, refusal: PhonofsError | None) -> None:
        """The key in use is not, or is again, one of the account that is mounted."""
        self.vfs.refuse(refusal)
        try:
            names = [entry.name for entry in self._catalogue.children(ROOT)]
        except CatalogueError as error:  # the disk fails; what is open is forgotten all the same
            log.warning("the kernel is not told of the names at the root: %s", error)
            names = []
        self._kernel_forgets([(ROOT, name) for name in names])

    # what changes

    def _changed(self, changes: ChangeSet) -> None:
        """The service told of changes: the catalogue has them, now all others are told."""
        for change in changes.objects:
            record = change.record
            if change.kind == REMOVED:
                self._reader.withdraw(record.region, record.id)
                self._cache.forget(record.region, record.id)
            elif change.content:
                self._reader.withdraw(record.region, record.id, but=record.fingerprint)
                self._cache.forget(record.region, record.id, but=record.fingerprint)
        self._tell_kernel(changes)
        if self._admission.refusal is None:
            self._events.send([_event(one) for one in changes.objects])
        self._settled(changes.objects)

    async def _restore(self, region: str, id: str, days: int) -> None:
        """Ask for an archived object back. Raises ServiceError, or why nothing is served."""
        self.vfs.check()
        await self._client.restore(region, id, days)

    def _restoring(self, region: str, ids: Sequence[str]) -> None:
        """The service was asked for these archived objects: they are waited for."""
        self._restores.asked(region, ids, time.time())
        self._note_restores()

    def _shows(self, region: str, id: str) -> bool:
        return self._admission.refusal is None and self._catalogue.find(region, id) is not None

    def _may_read(self, peer: Peer) -> bool:
        """Whether another user could read the files: by the folders above, and by their mode.

        A mount that was handed over may not know its path (``/dev/fd/N``); then by mode alone.
        """
        of = self._settings
        readable = may(peer, 4, 0o444 & ~of.umask, of.uid, of.gid)
        listable = may(peer, 5, 0o555 & ~of.umask, of.uid, of.gid)
        known = not self._mountpoint.startswith("/dev/fd/")
        return readable and listable and (not known or may_reach(peer, Path(self._mountpoint)))

    def _settled(self, changes: Sequence[ObjectChange]) -> None:
        """What came back, or went for good, is no longer waited for."""
        if self._restores.settle((change.kind, change.record) for change in changes):
            self._note_restores()

    def _note_restores(self) -> None:
        """Keep what is waited for; a disk that fails takes nothing else with it."""
        try:
            self._catalogue.remember(RESTORES, self._restores.note())
        except CatalogueError as error:
            log.warning("what was asked back is not noted: %s", error)

    def _resized(self, ino: int, size: int) -> None:
        """The real length of a content differs from what its record says."""
        changes = self._catalogue.set_size(ino, size)
        if self._tell_size is None:
            self._tell_kernel(changes)
        elif changes:
            self._tell_size(ino)

    def _falsified(self, ino: int) -> None:
        """Bytes given so far turned out false: the kernel must forget its pages."""
        self._tell_kernel(self._catalogue.touched(ino))

    # what is said

    def condition(self) -> str:
        """How the mount is, in one line: what is wrong, or what is known."""
        if self._admission.refusal is not None:
            return f"nothing is served: {self._admission.refusal}"
        token = self._keeper.statistics()
        if token["error"] and not token["valid"]:
            return f"no token: {token['error']}; what is cached goes on working"
        if trouble := self._follower.local_trouble():
            return f"changes cannot be noted: {trouble}"
        followed: Any = self._follower.statistics()["followed"]
        if away := [region for region, seen in followed.items() if seen["failures"]]:
            return f"no news from {', '.join(away)}: the service cannot be asked"
        count = self._catalogue.totals()[0]
        known = f"mounted, {format_count(count, 'object')} known"
        to_come = self._regions_to_come
        return f"{known}; {_to_come(to_come)}" if to_come else known

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
            "control": str(self._control.path) if self._control.path else None,
            "control_error": self._control.trouble,
            "control_shared": self._control.shared,
            "catalogue": {
                "objects": objects,
                "bytes": size,
                "regions": self._catalogue.regions(),
                "regions_to_come": list(self._regions_to_come),
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


def _to_come(regions: Sequence[str]) -> str:
    """What to say of regions that are not shown yet."""
    names = ", ".join(regions)
    what = f"the region {names} is" if len(regions) == 1 else f"the regions {names} are"
    return f"{what} shown after the next mount, which puts the years into a folder for each region"


def _since_boot_s() -> float:
    """A clock that nobody sets, and that goes on in a suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _event(change: ObjectChange) -> dict[str, object]:
    """A change as ``phonofs watch`` prints it; the path is below the mount point."""
    return {
        "kind": change.kind,
        "path": change.path,
        "record": msgspec.Raw(change.record.source),
    }


def _delivery_methods(note: str | None) -> dict[str, str]:
    """What an earlier mount found out; nothing where the note is not what it should be."""
    try:
        return msgspec.json.decode(note or "{}", type=dict[str, str])
    except msgspec.DecodeError:
        return {}


def control_path(profile: str) -> Path:
    """Where the control socket of this process goes: two mounts never share a name."""
    # A socket's path has 107 bytes, and a profile's name up to 64.
    return runtime_folder() / f"{profile[:32]}-{os.getpid()}-{secrets.token_hex(4)}.sock"


def runtime_folder() -> Path:
    """Where sockets go: systemd's or the user's runtime directory, else one of our own."""
    of_unit = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]  # systemd.exec(5): a list
    given = of_unit or os.environ.get("XDG_RUNTIME_DIR")
    if given:
        return Path(given) / "phonofs"
    if os.geteuid() == 0:
        return Path("/run/phonofs")
    own = Path(f"/run/user/{os.getuid()}")
    return (own if own.is_dir() else Path(tempfile.gettempdir())) / f"phonofs-{os.getuid()}"


async def _found(settings: Settings) -> Credentials:
    """Key and secret as they are kept now. Raises UsageError."""
    places = CredentialSources(
        own_folder(os.environ),
        os.environ,
        settings.key,
        settings.secret,
        settings.secret_file,
    )
    look = partial(find, settings.profile, places)
    with trio.move_on_after(CREDENTIALS_S):
        return await trio.to_thread.run_sync(look, abandon_on_cancel=True)
    raise UsageError("the key and the secret could not be read: is the keyring locked?")


@asynccontextmanager
async def build(settings: Settings, mountpoint: str) -> AsyncIterator[App]:
    """Find out which account it is, then open its cache and its catalogue; close them in reverse.

    The service is asked only where what lies in the cache folder may be another account's.
    """
    key = await trio.to_thread.run_sync(cache_key, settings.profile, settings.cache_encrypt)
    cipher = AesGcmCodec(key) if key is not None else None
    async with AsyncExitStack() as stack:
        accounts = await trio.to_thread.run_sync(Accounts.open, settings.cache_dir)
        stack.callback(accounts.close)
        transport = await stack.enter_async_context(
            Transport(
                settings.api_url,
                max_connections=settings.max_connections,
                timeout_s=settings.timeout,
            )
        )
        learn = partial(customers_of, transport, settings)
        chosen = await choose(accounts, settings, await _found(settings), learn)
        account, home = chosen.account, accounts.home(chosen.account)
        cache = Cache.open(
            home,
            size_bytes=settings.cache_size,
            min_free_bytes=settings.cache_min_free,
            cipher=cipher,
            set_aside=await trio.to_thread.run_sync(accounts.set_aside, account),
        )
        stack.callback(cache.close)
        catalogue = await trio.to_thread.run_sync(Catalogue.open, home / CATALOGUE, settings)
        stack.callback(catalogue.close)
        admission = Admission(
            accounts, chosen, settings.api_url, learn, lambda: catalogue.customers
        )
        house = App(
            settings,
            mountpoint,
            catalogue=catalogue,
            cache=cache,
            transport=transport,
            admission=admission,
            note=chosen.note,
        )
        yield house
        house.remember()
        accounts.end(account, catalogue.customers, cache.own_bytes)
