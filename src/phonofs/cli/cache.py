"""``phonofs cache``: shows, checks or empties the cache of a profile that is not mounted.

A mounted cache is locked by its mount; ``phonofs status`` shows it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
import trio

from phonofs.cache.cache import Cache
from phonofs.cache.sealed import Cipher
from phonofs.cli.settings import load
from phonofs.config import DEFAULT_PROFILE
from phonofs.credentials import cache_key
from phonofs.errors import UsageError
from phonofs.units import format_size, printable

EXIT_DAMAGED = 1


@click.command("cache")
@click.argument("action", type=click.Choice(["show", "verify", "clear"]))
@click.argument("profile", default=DEFAULT_PROFILE)
@click.option("-o", "options", metavar="OPT,…", multiple=True, help="As with mount.")
@click.option("--list", "listed", is_flag=True, help="Show each object too.")
def command(action: str, profile: str, options: Sequence[str], listed: bool) -> int:
    """Show, check or empty the cache of a profile.

    ``verify`` reads every block and compares its checksum; what is wrong is removed, so that it
    is fetched again. ``clear`` removes all content and keeps the catalogue. The profile must not
    be mounted.
    """
    with _opened(profile, options) as cache:
        if action == "show":
            return _show(cache, listed=listed)
        if action == "verify":
            return _verify(cache, listed=listed)
        objects, size = cache.clear()
        click.echo(f"{objects} objects removed, {format_size(size)} freed")
        return 0


@contextmanager
def _opened(profile: str, options: Sequence[str]) -> Iterator[Cache]:
    settings = load(profile, options)
    if not settings.cache_dir.is_dir():
        raise UsageError(f"there is no cache at {settings.cache_dir} yet")
    if not settings.cache_size:
        raise UsageError("cache_size is 0: nothing is kept on disk")
    if settings.cache_encrypt == "session":
        raise UsageError("cache_encrypt is session: without its mount nobody can read the cache")
    key = cache_key(settings.profile, settings.cache_encrypt)
    cache = Cache.open(
        settings.cache_dir,
        size_bytes=settings.cache_size,
        min_free_bytes=0,
        cipher=Cipher(key) if key is not None else None,
    )
    try:
        yield cache
    finally:
        cache.close()


def _show(cache: Cache, *, listed: bool) -> int:
    rows = list(cache.entries())
    for row in rows if listed else ():
        state = "whole" if row.verified else "part"
        id = printable(row.identity.id)
        click.echo(f"{row.identity.region} {id} {row.bytes} of {row.size} bytes, {state}")
    whole = sum(row.verified for row in rows)
    size = format_size(sum(row.charge for row in rows))
    cap = format_size(int(str(cache.statistics()["cap_bytes"])))
    click.echo(f"{len(rows)} objects, {whole} of them whole, {size} of at most {cap}")
    return 0


def _verify(cache: Cache, *, listed: bool) -> int:
    findings = trio.run(cache.verify)
    damaged = [finding for finding in findings if finding.bad_bytes]
    for finding in findings if listed else damaged:
        outcome = f"{finding.bad_bytes} bytes wrong, removed" if finding.bad_bytes else "good"
        id = printable(finding.id)
        click.echo(f"{finding.region} {id} {finding.bytes} bytes: {outcome}")
    click.echo(f"{len(findings)} objects checked, {len(damaged)} damaged")
    return EXIT_DAMAGED if damaged else 0
