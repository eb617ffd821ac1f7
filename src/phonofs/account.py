"""Which account a mount shows: chosen before anything of the cache folder is opened, and kept.

Used by the composition root. An API key says nothing of its account, so the first mount with a
key asks the service whose the records are that it shows (``customerId``), unless nothing lies in
the folder that could be another's. The answer is kept with a hash of the key, so that later
mounts ask nobody. The key is read again while the mount runs: :class:`Admission` then sees to it
that another account's key gets nothing of this one's.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from phonofs.cache.accounts import CATALOGUE, Account, Accounts, key_hash
from phonofs.catalogue.store import Catalogue
from phonofs.config import Settings
from phonofs.credentials import Credentials
from phonofs.css.auth import Keeper
from phonofs.css.client import Client
from phonofs.css.transport import Transport
from phonofs.errors import PhonofsError, Unavailable, UnknownAccount, WrongAccount
from phonofs.model import Query, State
from phonofs.units import format_size

log = logging.getLogger(__name__)

PATIENCE_S = 20.0
"""How long a new key may take to show whose it is while a mount waits for it."""

FEW, MANY = 1, 100
"""Records asked for in each region: one says whose it is, unless it cannot be read."""

Learn = Callable[[Credentials], Awaitable[frozenset[str]]]
"""Asks the service whose records a key shows."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The account of a mount, and a sentence for the person who waits, '' for none."""

    account: Account
    note: str


async def customers_of(
    transport: Transport, settings: Settings, credentials: Credentials
) -> frozenset[str]:
    """The ``customerId`` of a record in each region that a key can see; empty without records.

    Raises ServiceError, UsageError.
    """

    async def known() -> Credentials:
        return credentials

    keeper = Keeper(transport, settings.api_url, known)
    deadline_s = min(PATIENCE_S, settings.read_deadline)
    client = Client(transport, keeper, settings.api_url, read_deadline_s=deadline_s)
    failed: PhonofsError | None = None
    seen: set[str] = set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        try:
            await keeper.token()
            for region in settings.regions or await client.regions():
                seen |= await _customers_in(client, region)
        except PhonofsError as error:  # not out of the nursery, which would make a group of it
            failed = error
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed
    return frozenset(seen - {""})


async def _customers_in(client: Client, region: str) -> set[str]:
    for limit in (FEW, MANY):
        page = await client.search(region, Query(states=tuple(State)), 0, limit)
        if page.records or not page.count:
            break
    return {record.customer for record in page.records}


async def choose(
    accounts: Accounts, settings: Settings, credentials: Credentials, learn: Learn
) -> Chosen:
    """The account that belongs to a key. Raises what ``learn`` does, where that has to be asked.

    A key that was seen before is known. Any other one is asked about, unless the folder holds
    nothing: with the one customer of an account that lies here it is a new key of that account;
    with several customers, or none, nobody can tell, and it gets an account of its own.
    """
    hashed = key_hash(settings.api_url, credentials.key)
    account = accounts.of_key(hashed)
    if account is None and accounts.all():
        customers = await learn(credentials)
        account = await trio.to_thread.run_sync(_matching, accounts, settings, customers)
        if account is not None:
            accounts.admit(hashed, account)
    if account is None:
        account = accounts.add(hashed, settings.api_url)
    changed = accounts.begin(account, settings.api_url)
    note = await trio.to_thread.run_sync(_said, accounts, account) if changed else ""
    return Chosen(account, note)


def _matching(accounts: Accounts, settings: Settings, customers: frozenset[str]) -> Account | None:
    """The account that has these customers, of those that lie here; in a thread.

    One that never had an object, as after a mount with a mistyped key, is removed on the way.
    """
    url = settings.api_url.rstrip("/")
    found = None
    for account in accounts.all():
        if not (accounts.home(account) / CATALOGUE).exists():
            continue
        catalogue = Catalogue.open(accounts.home(account) / CATALOGUE, settings)
        try:
            known, empty = catalogue.customers, catalogue.is_empty()
        finally:
            catalogue.close()
        if empty and not accounts.has_content(account):
            accounts.remove(account)
        elif found is None and customers and known == customers and account.api_url in ("", url):
            found = account
    return found


def _said(accounts: Accounts, account: Account) -> str:
    """The sentence on what is set aside; '' where nothing is; in a thread."""
    size = sum(accounts.size(one) for one in accounts.all() if one is not account)
    if not size:
        return ""
    return (
        f"what another account left in {accounts.path} ({format_size(size)}) is set aside and "
        "comes back with its key; `phonofs cache clear` removes it"
    )


class Admission:
    """Sees to it that only keys of one account are used while a mount runs.

    Owns why the present key is refused (``refusal``), None while it is not. A mount that was
    refused is not ended: an empty mount point would look like a deletion to whoever mirrors it.
    It answers nothing instead, until it gets a key of its account again.
    """

    def __init__(
        self,
        accounts: Accounts,
        account: Account,
        api_url: str,
        learn: Learn,
        customers: Callable[[], frozenset[str]],
        on_refusal: Callable[[PhonofsError | None], None] = lambda refusal: None,
    ) -> None:
        """``customers`` are those of the account; ``on_refusal`` is told when that changes."""
        self._accounts = accounts
        self._account = account
        self._api_url = api_url
        self._learn = learn
        self._customers = customers
        self.on_refusal = on_refusal
        self.refusal: PhonofsError | None = None

    async def admit(self, credentials: Credentials) -> None:
        """Let a key be used. Raises WrongAccount where it is another account's, or ServiceError
        where that cannot be told; then it must not be used, and nothing is served.
        """
        hashed = key_hash(self._api_url, credentials.key)
        known = self._accounts.of_key(hashed)
        if known is None:
            try:
                customers = await self._learn(credentials)
            except Unavailable as error:
                self._refuse(
                    UnknownAccount(
                        "the API key is a new one, and the service cannot be asked whose account "
                        f"it belongs to: {error}"
                    )
                )
                raise
            if customers and customers == self._customers():
                self._accounts.admit(hashed, self._account)
                known = self._account
        if known is None or known.id != self._account.id:
            refusal = WrongAccount(
                "the API key belongs to another account than the one that is mounted; unmount "
                "and mount again to see it, or log in with the former key"
            )
            self._refuse(refusal)
            raise refusal
        self._refuse(None)

    def _refuse(self, refusal: PhonofsError | None) -> None:
        before, self.refusal = self.refusal, refusal
        if type(before) is type(refusal):
            return
        if refusal is not None:
            log.warning("nothing is served: %s", refusal)
        else:
            log.warning("the API key is one of the mounted account again: it is served")
        self.on_refusal(refusal)
