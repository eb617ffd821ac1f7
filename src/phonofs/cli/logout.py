"""``phonofs logout``: deletes the key and the secret that ``phonofs login`` stored."""

import os
from collections.abc import Sequence

import click

from phonofs.cli.cache import command as cache
from phonofs.config import DEFAULT_PROFILE
from phonofs.config.folders import own_folder
from phonofs.config.load import load, places_of
from phonofs.credentials import forget, forget_cache_key
from phonofs.fuse.mountinfo import SOURCE, mounts


@click.command("logout")
@click.argument("profile", default=DEFAULT_PROFILE)
@click.option("-o", "options", metavar="OPT,…", multiple=True, help="Options, as with mount.")
@click.option("--clear", is_flag=True, help="Empty the cache of the profile, too.")
@click.pass_context
def command(context: click.Context, profile: str, options: Sequence[str], clear: bool) -> int:
    """Delete the key and the secret that login stored.

    The cache stays, unless --clear is given. A key or secret in the configuration or the
    environment stays, too; its place is printed.
    """
    removed = forget(profile, own_folder(os.environ))  # first: the configuration may be invalid
    if removed:
        click.echo(f"The key and the secret of {profile} are removed from {' and '.join(removed)}.")
    else:
        click.echo(f"No key and no secret were stored for {profile}.")
    for place in places_of(profile, ("key", "secret", "secret_file"), options):
        click.echo(f"Still there: {place}")
    if os.environ.get("CREDENTIALS_DIRECTORY"):
        click.echo("Still there: the credentials of systemd ($CREDENTIALS_DIRECTORY)")
    for mount in mounts():
        if mount.is_phonofs and mount.source == f"{SOURCE}{profile}":
            click.echo(f"Still mounted: {mount.point}, which continues until it is unmounted.")
    there = load(profile, options).cache_dir.is_dir()
    if not clear:
        if there:
            click.echo(f"The cache stays; `phonofs cache clear {profile}` empties it.")
        return 0
    status = 0
    if there:
        status = context.invoke(cache, action="clear", profile=profile, options=options)
    forget_cache_key(profile)
    return int(status or 0)
