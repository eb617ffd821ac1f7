"""Chooses the account that a mount shows, before anything in the cache directory is opened.

Used by ``app.py`` and by ``phonofs cache``. An API key does not name its account, so the first
mount with a key asks the service for the ``customerId`` of the records that the key can see,
unless the cache directory is empty. The answer is stored with a hash of the key, so that later
mounts need not ask. The key is read again while the mount runs: :class:`Admission` then makes sure
that a key of another account is not given data of the mounted one.
"""

import copy
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from phonofs.cache.accounts import CATALOGUE, Account, Accounts, key_hash
from phonofs.catalogue.catalogue import Catalogue, TreeOptions
from phonofs.config import Settings
from phonofs.credentials import Credentials
from phonofs.errors import PhonofsError, Unavailable, UnknownAccount, WrongAccount
from phonofs.model import Query, State
from phonofs.service.auth import TokenProvider
from phonofs.service.client import Client
from phonofs.service.session import Transport
from phonofs.units import format_size

log = logging.getLogger(__name__)

PATIENCE_S = 20.0
"""The longest that a mount waits for the service to say which account a new key belongs to."""

FEW, MANY = 1, 100
"""Records requested in each region. One names its customer; if it is malformed, more are needed."""

Learn = Callable[[Credentials], Awaitable[frozenset[str]]]
"""Asks the service for the customers whose records a key can see."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The account of a mount.

    note    a message for the user, '' for none
    hashed  the hash of the key by which the account was chosen
    """

    account: Account
    note: str
    hashed: str


async def customers_of(
    transport: Transport, settings: Settings, credentials: Credentials
) -> frozenset[str]:
    """Return the ``customerId`` values of one or more records in each region that a key can see.

    Empty if it can see no records. Raises ServiceError; Unavailable after ``PATIENCE_S``.
    """

    async def known() -> Credentials:
        return credentials

    tokens = TokenProvider(transport, known)
    deadline_s = min(PATIENCE_S, settings.read_deadline)
    client = Client(transport, tokens, read_deadline_s=deadline_s)
    failed: PhonofsError | None = Unavailable(f"no answer within {PATIENCE_S:g} s")
    seen: set[str] = set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tokens.run)
        with trio.move_on_after(PATIENCE_S):
            try:
                await tokens.token()
                for region in settings.regions or await client.regions():
                    seen |= await _customers_in(client, region)
                failed = None
            except PhonofsError as error:  # raised later: the nursery would wrap it in a group
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
    """Return the account that a key belongs to. Raises the errors of ``learn``.

    If the key is not known (see :func:`known`), ``learn`` asks the service, unless the cache
    directory is empty. If the key can see the customers of an account in the cache directory, it
    is a new key of that account. Otherwise, or if it can see no records, a new account is added.
    """
    hashed = key_hash(settings.api_url, credentials.key)
    account = await trio.to_thread.run_sync(known, accounts, settings, hashed)
    if account is None and accounts.all():
        customers = await learn(credentials)
        account = await trio.to_thread.run_sync(_matching, accounts, settings, customers)
        if account is not None:
            accounts.admit(hashed, account)
    if account is None:
        account = accounts.add(hashed, settings.api_url)
    changed = accounts.begin(account, settings.api_url)
    note = await trio.to_thread.run_sync(_said, accounts, account) if changed else ""
    return Chosen(account, note, hashed)


def known(accounts: Accounts, settings: Settings, hashed: str) -> Account | None:
    """Return the account that a key was seen to belong to, or None.

    Also None if the account has several keys and, by now, several customers: then it is unknown
    which of the keys may see all of them. Opens the catalogue to count the customers.
    """
    account = accounts.of_key(hashed)
    if account is not None and len(accounts.keys_of(account)) > 1:
        return account if len(_customers(accounts, settings, account)) <= 1 else None
    return account


def _matching(accounts: Accounts, settings: Settings, customers: frozenset[str]) -> Account | None:
    """Return the account in the cache directory that has these customers. Runs in a thread.

    Removes accounts that never had an object, as left by a mount with a mistyped key.
    """
    url = settings.api_url.rstrip("/")
    found = None
    for account in accounts.all():
        with _catalogue_of(accounts, settings, account) as catalogue:
            if catalogue is None:
                continue
            seen = catalogue.notes.customers
            empty = catalogue.is_empty() and not catalogue.only_in_memory  # the disk may hold more
        if empty and not accounts.has_content(account):
            accounts.remove_or_say(account)
        elif found is None and customers and seen == customers and account.api_url in ("", url):
            found = account
    return found


def _customers(accounts: Accounts, settings: Settings, account: Account) -> frozenset[str]:
    """Return the customers whose objects an account's catalogue holds. Runs in a thread."""
    with _catalogue_of(accounts, settings, account) as catalogue:
        return catalogue.notes.customers if catalogue is not None else frozenset()


@contextmanager
def _catalogue_of(
    accounts: Accounts, settings: Settings, account: Account
) -> Iterator[Catalogue | None]:
    """Open the catalogue of an account; None if it has none."""
    path = accounts.home(account) / CATALOGUE
    if not path.exists():
        yield None
        return
    catalogue = Catalogue.open(path, TreeOptions.of(settings))
    try:
        yield catalogue
    finally:
        catalogue.close()


def _said(accounts: Accounts, account: Account) -> str:
    """Return a message about the data of other accounts, '' if there is none. Runs in a thread."""
    size = sum(accounts.size(one) for one in accounts.all() if one is not account)
    if not size:
        return ""
    return (
        f"what another account left in {accounts.path} ({format_size(size)}) is set aside and "
        "comes back with its key; `phonofs cache clear` removes it"
    )


class Admission:
    """Makes sure that only keys of one account are used while a mount runs.

    Owns the hash of the key admitted last, the hash of a key found to belong to another account,
    and the reason why the present key is refused (``refusal``; None if it is not). A refused mount
    is not ended: to a program that mirrors it, an empty mount point would look like a deletion.
    Instead every operation fails until a key of the account is used again.
    """

    def __init__(
        self,
        accounts: Accounts,
        chosen: Chosen,
        api_url: str,
        learn: Learn,
        customers: Callable[[], frozenset[str]],
        on_refusal: Callable[[PhonofsError | None], None] = lambda refusal: None,
    ) -> None:
        """``customers`` returns the account's customers; ``on_refusal`` is called with the new
        refusal when it changes.
        """
        self._accounts = accounts
        self._account = chosen.account
        self._hashed = chosen.hashed
        self._another = ""
        self._api_url = api_url
        self._learn = learn
        self._customers = customers
        self._on_refusal = on_refusal
        self.refusal: PhonofsError | None = None

    def check(self) -> None:
        """Raise the error with which everything is refused, if there is one."""
        if self.refusal is not None:
            raise copy.copy(self.refusal)  # one object would gather the tracebacks of all raises

    async def admit(self, credentials: Credentials) -> None:
        """Admit a key. Raises WrongAccount if it belongs to another account, and ServiceError if
        its account cannot be found out: then it must not be used, and nothing is served.
        """
        hashed = key_hash(self._api_url, credentials.key)
        if not (self._is_known(hashed) or await self._is_learned(hashed, credentials)):
            refusal = WrongAccount(
                "the API key belongs to another account than the one that is mounted; unmount "
                "and mount again to see it, or log in with the former key"
            )
            self._refuse(refusal)
            raise refusal
        self._hashed = hashed
        self._refuse(None)

    def _is_known(self, hashed: str) -> bool:
        """Return whether the key was seen to belong to the account; see :func:`known`."""
        seen = self._accounts.of_key(hashed)
        if seen is None or seen.id != self._account.id:
            return False
        return hashed == self._hashed or len(self._customers()) <= 1

    async def _is_learned(self, hashed: str, credentials: Credentials) -> bool:
        """Return whether the service shows that the key belongs to the account.

        Raises ServiceError.
        """
        seen = self._accounts.of_key(hashed)
        if hashed == self._another or (seen is not None and seen.id != self._account.id):
            return False
        try:
            customers = await self._learn(credentials)
        except PhonofsError as error:
            self._refuse(
                UnknownAccount(
                    "the API key is a new one, and it cannot be found out whose account it "
                    f"belongs to: {error}"
                )
            )
            raise
        if customers and customers == self._customers():
            self._accounts.admit(hashed, self._account)
            return True
        if customers:  # a key without records may have some later
            self._another = hashed
        return False

    def _refuse(self, refusal: PhonofsError | None) -> None:
        before, self.refusal = self.refusal, refusal
        if type(before) is type(refusal):
            return
        if refusal is not None:
            log.warning("nothing is served: %s", refusal)
        else:
            log.warning("the API key is one of the mounted account again: it is served")
        self._on_refusal(refusal)
