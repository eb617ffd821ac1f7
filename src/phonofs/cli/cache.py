"""``phonofs cache``: shows, checks or empties the cache of a profile that is not mounted.

A mounted cache is locked by its mount; ``phonofs status`` shows it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
import trio

from phonofs.cache.cache import Cache, remove_content
from phonofs.cache.sealed import Cipher
from phonofs.cli.settings import load
from phonofs.config import DEFAULT_PROFILE, Settings
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
    is fetched again. ``clear`` removes all content, also of a damaged or encrypted cache, and
    keeps the catalogue. The profile must not be mounted.
    """
    if action == "clear":
        return _clear(profile, options)
    with _opened(profile, options) as cache:
        whole = cache.check_index()
        if not whole:
            click.echo("the index of the cache was damaged, so all content was removed")
        if action == "show":
            return _show(cache, listed=listed)
        return _verify(cache, listed=listed) if whole else EXIT_DAMAGED


def _clear(profile: str, options: Sequence[str]) -> int:
    """Remove all content by what lies in the folder: it needs no index, no key and no size."""
    folder = _settings(profile, options).cache_dir
    try:
        removed = remove_content(folder)
    except OSError as error:
        raise UsageError(
            f"the cache in {folder} cannot be emptied: {error.strerror}; "
            "see to its disk and try again"
        ) from error
    click.echo(f"{removed.files} objects removed, {format_size(removed.bytes)} freed")
    return 0


def _settings(profile: str, options: Sequence[str]) -> Settings:
    settings = load(profile, options)
    if not settings.cache_dir.is_dir():
        raise UsageError(f"there is no cache at {settings.cache_dir} yet")
    return settings


@contextmanager
def _opened(profile: str, options: Sequence[str]) -> Iterator[Cache]:
    settings = _settings(profile, options)
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
        state = cache.statistics()
        if state["state"] != "on":
            raise UsageError(
                f"the cache in {settings.cache_dir} cannot be used: {state['reason']}; "
                "see to its disk, or empty it with phonofs cache clear"
            )
        yield cache
        cache.remove_evicted()
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
