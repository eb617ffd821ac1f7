"""Builds the services of one account, and closes them in reverse.

Used by ``mount.py``, ``serve.py``, and by tests that need the whole tree without either.
``open_app`` opens what is on disk and the connection to the service. The caller starts
:meth:`App.tasks` in its nursery, then calls :meth:`App.connect`, which gets the token and the
regions, or continues with the catalogue if the service is unavailable.
"""

import logging
import os
from collections.abc import AsyncIterator, Callable, Container, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from phonofs.access import Access
from phonofs.account import Admission, Chosen, choose, customers_of
from phonofs.cache import maintenance
from phonofs.cache.accounts import CATALOGUE
from phonofs.cache.cache import Cache
from phonofs.cache.codec import AesGcmCodec
from phonofs.cache.set_aside import SetAside
from phonofs.catalogue.catalogue import Catalogue, TreeOptions
from phonofs.changes import AccountChanges, Kernel, KernelUpdates, NoKernel
from phonofs.config import Settings, as_texts
from phonofs.control.export_command import ExportCommand
from phonofs.control.paths import control_path, door_path
from phonofs.control.peers import Peer, may_read
from phonofs.control.search_commands import SearchCommands
from phonofs.control.server import Broadcast, Control, LongCommand, Shared
from phonofs.credentials import Credentials, CredentialSources, cache_key, find
from phonofs.discovery.estimates import DaySizeEstimator
from phonofs.discovery.follower import Follower
from phonofs.discovery.indexer import Indexer
from phonofs.discovery.lister import Lister
from phonofs.discovery.page_worker import PageWorker
from phonofs.door.claim import claimed
from phonofs.door.server import Door
from phonofs.errors import CatalogueError, Unavailable, UsageError
from phonofs.journal.folder import check_apart
from phonofs.journal.journal import Journal
from phonofs.process.logging_setup import set_level
from phonofs.process.supervise import Task, keep_running
from phonofs.reader.limits import Limits
from phonofs.reader.reader import Reader
from phonofs.region_watch import RegionWatch
from phonofs.service.auth import CREDENTIALS_S, TokenProvider
from phonofs.service.client import Client
from phonofs.service.session import Transport
from phonofs.status import Status
from phonofs.vfs import Vfs, as_json
from phonofs.view_tree.call_index import CallIndex
from phonofs.view_tree.recent_listings import RecentListings
from phonofs.view_tree.text_files import TextFiles
from phonofs.view_tree.text_indexer import TextIndexer
from phonofs.view_tree.views import Views

if TYPE_CHECKING:
    from phonofs.metrics import Metrics

log = logging.getLogger(__name__)

DELIVERY_METHODS = "ways"
"""The catalogue's key for how each region delivers content, found out once."""

AHEAD_A_CONNECTION = 2
"""Texts made ahead for each connection: whoever comes meanwhile waits for two of them at most."""

CHECKPOINT_LOOK_S = 2.0
CHECKPOINT_BYTES = 16 << 20
CHECKPOINT_S = 60.0
"""The catalogue's log is checkpointed beyond that many bytes, and at the latest after that time:
a listed day of 10,000 objects writes 20 to 30 MB."""


@dataclass(frozen=True, slots=True)
class App:
    """The services of one account, joined.

    note           a message about the account for the user, '' for none
    in_background  the indexer that the option ``index`` has run, unless it is off
    commands       those of the control socket that a command without a mount uses, too
    connected      set once the regions are known
    """

    settings: Settings
    note: str
    catalogue: Catalogue
    cache: Cache
    token: TokenProvider
    client: Client
    page_worker: PageWorker
    lister: Lister
    follower: Follower
    indexer: Indexer
    text_indexer: TextIndexer
    in_background: Indexer | TextIndexer
    region_watch: RegionWatch
    reader: Reader
    commands: Mapping[str, LongCommand]
    control: Control
    status: Status
    metrics: "Metrics | None"
    texts: TextFiles
    vfs: Vfs
    journal: Journal | None
    door: Door
    changes: AccountChanges
    connected: trio.Event = field(default_factory=trio.Event)

    def tasks(self) -> list[tuple[str, Task]]:
        """Return the background tasks, by name and in the order to start them."""
        tasks = ((name, of(self)) for name, of in TASKS.items())
        return [(name, task) for name, task in tasks if task is not None]

    async def start_tasks(self, nursery: trio.Nursery, only: Container[str] | None = None) -> None:
        """Start the background tasks, which :meth:`connect` needs. Raises errors of their start.

        ``only``: the names of those to start; None: all.
        """
        for name, task in self.tasks():
            if only is None or name in only:
                await nursery.start(keep_running, name, task)

    async def connect(self) -> str:
        """Get a token and the regions; return a message for the user, '' if everything is fine.

        If the service is unavailable but the catalogue has regions, continue offline and report
        that in the message. Raises CredentialsRefused, Unavailable, Malformed.
        """
        offline, shown = "", list(self.settings.regions)
        try:
            await self.token.token()
            shown = shown or await self.region_watch.at_start()
        except Unavailable as error:
            if not self.catalogue.regions():
                raise
            offline = f"offline: {error}; what is known is shown and what is cached can be read"
        self.catalogue.begin(shown or self.catalogue.discovered())
        self.connected.set()
        if not offline:
            self.lister.begin()
        return "; ".join(filter(None, (offline, self.note, self.catalogue.only_in_memory)))

    def read_credentials_again(self) -> None:
        """Read key and secret again and try them now; ask for the regions too."""
        self.token.retry_now()
        self.region_watch.ask_now()

    async def reload(self, load: Callable[[], Settings]) -> None:
        """Read the configuration again; of its options ``max_rate`` takes effect at once."""
        try:
            settings = await trio.to_thread.run_sync(load, abandon_on_cancel=True)
        except UsageError as error:
            log.warning("the configuration could not be read again: %s", error)
        else:
            self.client.set_max_rate(settings.max_rate)

    async def restore(self, region: str, id: str, days: int) -> None:
        """Request the restore of an archived object. Raises WrongAccount, ServiceError."""
        self.vfs.check()
        await self.client.restore(region, id, days)
        self.changes.on_restore_requested(region, [id])

    def remember(self) -> None:
        """Save for the next mount what was learned about the service."""
        try:
            self.catalogue.notes.remember(
                DELIVERY_METHODS, msgspec.json.encode(self.client.delivery_methods).decode()
            )
        except CatalogueError as error:  # a failing disk is no reason to end with an error
            log.warning("what was learned of the service could not be saved: %s", error)


TASKS: dict[str, Callable[[App], Task | None]] = {
    "the token refresh": lambda app: app.token.run,
    "the journal": lambda app: app.journal.run if app.journal else None,
    "the lister": lambda app: app.lister.run,
    "the page worker": lambda app: app.page_worker.run,
    "the reader": lambda app: app.reader.run,
    "the texts": lambda app: app.texts.run,
    "the cache maintenance": lambda app: partial(_maintain, app.cache),
    "the catalogue checkpoints": lambda app: partial(_checkpoint, app.catalogue),
    "the control socket": lambda app: app.control.run,
    "the socket of the door": lambda app: partial(_after_connect, app, app.door.run),
    "the metrics": lambda app: app.metrics.run if app.metrics else None,
    "the change follower": lambda app: partial(_after_connect, app, app.follower.run),
    "the indexer": lambda app: (
        partial(_after_connect, app, app.in_background.run) if app.settings.index != "off" else None
    ),
    "the region watch": lambda app: (
        None if app.settings.regions else partial(_after_connect, app, app.region_watch.run)
    ),
}
"""The background tasks of an app, each None if the settings do not ask for it."""

COMMAND_TASKS = frozenset(
    {
        "the token refresh",
        "the journal",
        "the lister",
        "the page worker",
        "the reader",
        "the texts",
        "the cache maintenance",
        "the catalogue checkpoints",
    }
)
"""The background tasks that a command needs, which serves nobody."""


async def _after_connect(
    app: App, task: Task, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a task that needs the regions, after they are known."""
    task_status.started()
    await app.connected.wait()
    await task(task_status=trio.TASK_STATUS_IGNORED)


async def _maintain(
    cache: Cache, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    task_status.started()
    await maintenance.run(cache)


async def _checkpoint(
    catalogue: Catalogue, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Checkpoint the catalogue repeatedly, in a thread because that syncs the disk."""
    task_status.started()
    rested_s = 0.0
    while True:
        await trio.sleep(CHECKPOINT_LOOK_S)
        rested_s += CHECKPOINT_LOOK_S
        size = catalogue.log_bytes()
        if size > CHECKPOINT_BYTES or (size and rested_s >= CHECKPOINT_S):
            rested_s = 0.0
            try:
                await trio.to_thread.run_sync(catalogue.checkpoint)
            except CatalogueError as error:
                log.info("the catalogue's log could not be checkpointed: %s", error)


@asynccontextmanager
async def open_app(
    settings: Settings, mountpoint: str, kernel: Kernel | None = None, *, polite: bool = False
) -> AsyncIterator[App]:
    """Choose the account, then open its cache and its catalogue; close them in reverse order.

    The service is asked only if the cache directory may hold another account's data. ``mountpoint``
    is '' and ``kernel``, which is told of changes, None if nothing is mounted. An idle daemon that
    was started on demand is asked to hand the cache directory over, unless this one is ``polite``.
    Raises CacheInUse if another process has it.
    """
    key = await trio.to_thread.run_sync(cache_key, settings.profile, settings.cache_encrypt)
    async with AsyncExitStack() as stack:
        accounts = await trio.to_thread.run_sync(claimed, settings.cache_dir, polite)
        stack.callback(accounts.close)
        # Abandoned: its disk may not answer, and then the process ends without it.
        journal = await trio.to_thread.run_sync(_journal, settings, abandon_on_cancel=True)
        if journal is not None:
            stack.push_async_callback(journal.aclose)
        transport = await stack.enter_async_context(
            Transport(
                settings.api_url,
                max_connections=settings.max_connections,
                max_rate=settings.max_rate,
                timeout_s=settings.timeout,
            )
        )
        learn = partial(customers_of, transport, settings)
        chosen = await choose(accounts, settings, await _find_credentials(settings), learn)
        account, home = chosen.account, accounts.home(chosen.account)
        cache = Cache.open(
            home,
            size_bytes=settings.cache_size,
            min_free_bytes=settings.cache_min_free,
            codec=AesGcmCodec(key) if key is not None else None,
            set_aside=await trio.to_thread.run_sync(SetAside, accounts, account),
        )
        stack.callback(cache.close)
        catalogue = await trio.to_thread.run_sync(
            Catalogue.open, home / CATALOGUE, TreeOptions.of(settings)
        )
        stack.callback(catalogue.close)
        kernel = kernel or NoKernel()
        updates = KernelUpdates(catalogue, kernel)
        admission = Admission(
            accounts,
            chosen,
            settings.api_url,
            learn,
            lambda: catalogue.notes.customers,
            updates.on_refusal,
        )
        app = _build(
            settings,
            mountpoint,
            kernel,
            updates,
            chosen,
            admission,
            catalogue,
            cache,
            transport,
            journal,
        )
        yield app
        app.remember()
        accounts.end(account, catalogue.notes.customers, cache.own_bytes)


def _build(
    settings: Settings,
    mountpoint: str,
    kernel: Kernel,
    updates: KernelUpdates,
    chosen: Chosen,
    admission: Admission,
    catalogue: Catalogue,
    cache: Cache,
    transport: Transport,
    journal: Journal | None,
) -> App:
    """Build the services above the stores and the connection, each from those before it."""
    token, client = _connection(settings, admission, catalogue, transport)
    recent = RecentListings(catalogue)
    reader = _reader(settings, cache, client, updates, recent)
    events = Broadcast()
    index = CallIndex(catalogue)
    texts = _texts(settings, kernel, catalogue, reader)
    access = Access(journal, settings.crawlers)
    changes = AccountChanges(
        catalogue,
        reader,
        cache,
        kernel,
        events,
        admission,
        (index.changed, texts.changed),
        access.purged,
    )
    page_worker = PageWorker(catalogue.placement.options)
    sizes = DaySizeEstimator()
    lister = Lister(
        client, catalogue, settings, changes.on_changes, page_worker=page_worker, sizes=sizes
    )
    follower = Follower(client, catalogue, settings, changes.on_changes, sizes=sizes)
    region_watch = RegionWatch(client, catalogue, token, lister, follower)
    views = Views(catalogue, lister, index, texts, recent, settings)
    indexer = Indexer(
        catalogue, lister, follows=settings.poll_interval > 0, paused_s=client.paused_s
    )
    text_indexer = TextIndexer(indexer, catalogue, index, texts, reader, client.paused_s)
    searches = SearchCommands(
        catalogue, lister, indexer, text_indexer, settings.profile, admission.check, access
    )
    commands = searches.commands() | ExportCommand(access).commands()
    control = _control(
        settings, mountpoint, events, changes, admission, catalogue, client, commands
    )
    status = Status(
        settings.profile,
        mountpoint,
        admission=admission,
        catalogue=catalogue,
        token=token,
        client=client,
        cache=cache,
        reader=reader,
        follower=follower,
        regions=region_watch,
        changes=changes,
        control=control,
        access=access,
    )
    status.add("views", lambda: {"name": views.name})
    status.add("texts", texts.statistics)
    vfs = Vfs(
        catalogue,
        lister,
        reader,
        cached_bytes=cache.cached_bytes,
        status=status.document,
        check=admission.check,
        views=views,
        texts=texts,
        access=access,
    )
    door = Door(
        door_path(settings.profile),
        settings.cache_dir,
        settings.profile,
        vfs,
        lambda: as_json(status.document()),
    )
    status.add("door", door.statistics)
    in_background = text_indexer if settings.index == "texts" else indexer
    status.add("index", in_background.statistics)
    return App(
        settings=settings,
        note=chosen.note,
        catalogue=catalogue,
        cache=cache,
        token=token,
        client=client,
        page_worker=page_worker,
        lister=lister,
        follower=follower,
        indexer=indexer,
        text_indexer=text_indexer,
        in_background=in_background,
        region_watch=region_watch,
        reader=reader,
        commands=commands,
        control=control,
        status=status,
        metrics=_metrics(settings.metrics, status),
        texts=texts,
        vfs=vfs,
        door=door,
        journal=journal,
        changes=changes,
    )


def _journal(settings: Settings) -> Journal | None:
    """Begin to write the journal, if there is to be one. Raises UsageError, JournalError."""
    if settings.journal is None:
        return None
    path = settings.journal / settings.profile
    check_apart(path, settings.cache_dir)
    allow = settings.journal_full == "allow"
    return Journal.open(path, sync_s=settings.journal_sync, allow=allow)


def _connection(
    settings: Settings, admission: Admission, catalogue: Catalogue, transport: Transport
) -> tuple[TokenProvider, Client]:
    """Build what requests a token, and the client that uses it."""
    token = TokenProvider(transport, partial(_admitted_credentials, settings, admission))
    client = Client(
        transport,
        token,
        read_deadline_s=settings.read_deadline,
        delivery_methods=_delivery_methods(catalogue.notes.recall(DELIVERY_METHODS)),
    )
    return token, client


def _reader(
    settings: Settings,
    cache: Cache,
    client: Client,
    updates: KernelUpdates,
    recent: RecentListings,
) -> Reader:
    """Build the reader, which tells the kernel of a size or content that turned out wrong."""
    limits = Limits(
        read_deadline_s=settings.read_deadline,
        cache_bytes=settings.cache_size,
        connections=settings.max_connections,
        verify=settings.verify,
    )
    return Reader(
        client,
        cache,
        limits,
        siblings=recent.siblings,
        on_size=updates.on_size,
        on_wrong=updates.on_corrupt,
    )


def _texts(settings: Settings, kernel: Kernel, catalogue: Catalogue, reader: Reader) -> TextFiles:
    """Build what makes the texts of the views."""
    return TextFiles(
        catalogue,
        reader,
        profile=settings.profile,
        most_ahead=AHEAD_A_CONNECTION * settings.max_connections,
        tell_size=kernel.tell_size,
    )


def _control(
    settings: Settings,
    mountpoint: str,
    events: Broadcast,
    changes: AccountChanges,
    admission: Admission,
    catalogue: Catalogue,
    client: Client,
    commands: Mapping[str, LongCommand],
) -> Control:
    """Build the control socket. Other users may send commands only if they may use the mount."""

    async def restore(region: str, id: str, days: int) -> None:
        admission.check()
        await client.restore(region, id, days)

    def readable(peer: Peer) -> bool:
        return may_read(peer, mountpoint, settings.umask, settings.uid, settings.gid)

    def shows(region: str, id: str) -> bool:
        return admission.refusal is None and catalogue.find(region, id) is not None

    return Control(
        control_path(settings.profile),
        set_level=set_level,
        events=events,
        options=lambda: as_texts(replace(settings, max_rate=client.max_rate)),
        restore=restore,
        asked=changes.on_restore_requested,
        shared=Shared(readable, shows) if settings.allow_other and mountpoint else None,
        commands=commands,
    )


def _metrics(address: str | None, status: Status) -> "Metrics | None":
    if address is None:
        return None
    from phonofs.metrics import Metrics  # without this import a mount starts 20 ms sooner

    return Metrics(address, status.document)


def _delivery_methods(note: str | None) -> dict[str, str]:
    """Return the delivery methods that an earlier mount saved; none if they cannot be parsed."""
    try:
        return msgspec.json.decode(note or "{}", type=dict[str, str])
    except msgspec.DecodeError:
        return {}


async def _admitted_credentials(settings: Settings, admission: Admission) -> tuple[str, Any]:
    """Return key and secret as they are stored now, if they belong to the account.

    Raises UsageError, WrongAccount, ServiceError.
    """
    found = await _find_credentials(settings)
    await admission.admit(found)
    return found.key, found.secret


async def _find_credentials(settings: Settings) -> Credentials:
    """Return key and secret as they are stored now. Raises UsageError."""
    look = partial(find, settings.profile, CredentialSources.of(settings, os.environ))
    with trio.move_on_after(CREDENTIALS_S):
        return await trio.to_thread.run_sync(look, abandon_on_cancel=True)
    raise UsageError("the key and the secret could not be read: is the keyring locked?")
