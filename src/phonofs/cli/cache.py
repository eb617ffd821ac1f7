"""``phonofs cache``: shows, checks or empties the cache of a profile that is not mounted.

A running mount locks its cache; ``phonofs status`` shows that cache.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import click
import trio

from phonofs.account import known
from phonofs.cache import fsck, maintenance
from phonofs.cache.accounts import Account, Accounts, key_hash
from phonofs.cache.cache import Cache
from phonofs.cache.codec import AesGcmCodec
from phonofs.cache.filestore import remove_content
from phonofs.cli.account import credentials_of
from phonofs.config import DEFAULT_PROFILE, Settings
from phonofs.config.load import load
from phonofs.credentials import cache_key
from phonofs.errors import UsageError
from phonofs.units import format_count, format_size, printable

EXIT_DAMAGED = 1


@click.command("cache")
@click.argument("action", type=click.Choice(["show", "verify", "clear"]))
@click.argument("profile", default=DEFAULT_PROFILE)
@click.option("-o", "options", metavar="OPT,…", multiple=True, help="Options, as with mount.")
@click.option("--list", "listed", is_flag=True, help="Show each object too.")
def command(action: str, profile: str, options: Sequence[str], listed: bool) -> int:
    """Show, check or empty the cache of a profile.

    'verify' reads every block and compares its checksum; it removes what is wrong, which is then
    downloaded again. 'clear' removes all content, even of a damaged or encrypted cache, and
    everything that other accounts left in the folder; it keeps the catalogue, unless that is
    damaged. The profile must not be mounted.
    """
    settings = load(profile, options)
    if not settings.cache_dir.is_dir():
        if action == "clear":
            click.echo(f"There is no cache at {settings.cache_dir}.")
            return 0
        raise UsageError(f"there is no cache at {settings.cache_dir}")
    with closing(Accounts.open(settings.cache_dir)) as accounts:
        mine = _account(accounts, settings)
        others = [one for one in accounts.all() if one is not mine]
        if action == "clear":
            return _clear(accounts, mine, others)
        with _opened(settings, accounts, mine) as cache:
            whole = cache.check_index()
            if not whole:
                click.echo("the index of the cache was damaged, so all content was removed")
            if action == "verify":
                return _verify(cache, listed=listed) if whole else EXIT_DAMAGED
            _show(cache, listed=listed)
        for other in others:
            click.echo(f"set aside: {format_size(accounts.size(other))} of {_whose(other)}")
        return 0


def _clear(accounts: Accounts, mine: Account | None, others: Sequence[Account]) -> int:
    """Remove all content files of the directory; needs no index, no key and no cache size."""
    count = size = 0
    try:
        if mine is not None:
            count, size = remove_content(accounts.home(mine))
        accounts.remove_damaged()
        click.echo(f"{format_count(count, 'object')} removed, {format_size(size)} freed")
        for other in others:
            what = f"{format_size(accounts.size(other))} of {_whose(other)}"
            accounts.remove(other)
            click.echo(f"removed what was set aside: {what}")
    except OSError as error:
        raise UsageError(
            f"the cache in {accounts.path} cannot be emptied: {error.strerror}; "
            "check its disk and try again"
        ) from error
    return 0


def _whose(account: Account) -> str:
    """Return a description of an account that the user may recognise."""
    customers = ", ".join(map(printable, account.customers[:3])) or "an account without a name"
    return f"{customers} ({account.api_url})" if account.api_url else customers


def _account(accounts: Accounts, settings: Settings) -> Account | None:
    """Return the account of the profile's key, or None if no account has it or it is ambiguous.

    If the profile has no key, or the cache knows no keys, return the account used last.
    """
    last = next(iter(accounts.all()), None)
    if not accounts.keys:
        return last
    try:
        key = credentials_of(settings).key
    except UsageError:
        return last
    return known(accounts, settings, key_hash(settings.api_url, key))


@contextmanager
def _opened(settings: Settings, accounts: Accounts, account: Account | None) -> Iterator[Cache]:
    if not settings.cache_size:
        raise UsageError("cache_size is 0: no content is on disk")
    if settings.cache_encrypt == "session":
        raise UsageError("cache_encrypt is session: only its mount can read the cache")
    if account is None:
        yield Cache(size_bytes=settings.cache_size, min_free_bytes=0)
        return
    key = cache_key(settings.profile, settings.cache_encrypt)
    cache = Cache.open(
        accounts.home(account),
        size_bytes=settings.cache_size,
        min_free_bytes=0,
        codec=AesGcmCodec(key) if key is not None else None,
    )
    try:
        state = cache.statistics()
        if state["state"] != "on":
            raise UsageError(
                f"the cache in {settings.cache_dir} cannot be used: {state['reason']}; "
                "check its disk, or empty it with `phonofs cache clear`"
            )
        yield cache
        trio.run(maintenance.tidy, cache)
    finally:
        cache.close()


def _show(cache: Cache, *, listed: bool) -> None:
    rows = cache.entries()
    for row in rows if listed else ():
        state = "whole" if row.verified else "part"
        id = printable(row.id)
        click.echo(f"{row.region} {id} {row.bytes} of {row.size} bytes, {state}")
    whole = sum(row.verified for row in rows)
    size = format_size(sum(row.charge for row in rows))
    cap = format_size(int(str(cache.statistics()["cap_bytes"])))
    click.echo(
        f"{format_count(len(rows), 'object')}, {whole} of them whole, {size} of at most {cap}"
    )


def _verify(cache: Cache, *, listed: bool) -> int:
    findings = trio.run(fsck.verify, cache)
    damaged = [(row, bad) for row, bad in findings if bad]
    for row, bad in findings if listed else damaged:
        outcome = f"{bad} bytes wrong, removed" if bad else "good"
        id = printable(row.id)
        click.echo(f"{row.region} {id} {row.bytes} bytes: {outcome}")
    click.echo(f"{format_count(len(findings), 'object')} checked, {len(damaged)} damaged")
    return EXIT_DAMAGED if damaged else 0
