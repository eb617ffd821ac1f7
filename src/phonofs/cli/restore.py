"""``phonofs restore``: requests the restore of archived objects through a mount."""

from collections.abc import Iterator, Sequence

import click

from phonofs.cli.account import Account, ask, credentials_of
from phonofs.cli.selection import Chosen, chosen, one_mount
from phonofs.config.load import load
from phonofs.control.client import NoCommands, status_of
from phonofs.control.client import command as tell
from phonofs.errors import Gone, UsageError
from phonofs.restores import NOT_RESTORED, why_not_restored
from phonofs.units import format_count, printable

MANY = 10
"""The user must confirm the restore of more objects than this."""
BATCH = 100
"""Ids in one request to the mount, which limits the length of a request."""


@click.command("restore")
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option(
    "--days",
    type=click.IntRange(1, 10),
    default=7,
    metavar="N",
    help="How many days, 1 to 10 (7).",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("-o", "options", metavar="OPT,…", multiple=True, help="Options, as with mount.")
def command(paths: Sequence[str], days: int, yes: bool, options: Sequence[str]) -> int:
    """Request the restore of archived objects.

    A restore takes up to 24 hours and needs a key with edit access. The mount requests it with its
    own key, for anyone who may read the files; they become readable without further commands. If
    the mount accepts no commands, the key of its profile is used, with the options of -o.
    """
    point = one_mount(paths)
    archived = [file for file in chosen(paths) if file.archived]
    if not archived:
        click.echo("none of the files is archived")
        return 0
    if len(archived) > MANY and not yes:
        click.confirm(f"Request the restore of {len(archived)} objects?", abort=True, err=True)
    try:
        failures = _by_mount(point, archived, days)
    except NoCommands:
        failures = _by_key(point, archived, days, options)
    for failure in failures:
        click.echo(f"phonofs: {printable(failure)}", err=True)
    asked = f"{len(archived) - len(failures)} of {len(archived)} requested"
    click.echo(f"{asked}, for {format_count(days, 'day')}")
    return Gone.exit_status if failures else 0


def _by_mount(point: str, files: Sequence[Chosen], days: int) -> list[str]:
    """Request the restores through the mount; return the failures of single objects."""
    failures: list[str] = []
    for region, ids in _batches(files):
        request = {"command": "restore", "region": region, "ids": ids, "days": days}
        found = tell(point, request).get("failures")
        failures += map(str, found) if isinstance(found, list) else []
    return failures


def _batches(files: Sequence[Chosen]) -> Iterator[tuple[str, list[str]]]:
    for region in dict.fromkeys(file.region for file in files):
        ids = [file.id for file in files if file.region == region]
        for start in range(0, len(ids), BATCH):
            yield region, ids[start : start + BATCH]


def _by_key(point: str, files: Sequence[Chosen], days: int, options: Sequence[str]) -> list[str]:
    """Request the restores with the profile's key; return the failures of single objects."""
    settings = load(_profile(point), options)

    async def work(account: Account) -> list[str]:
        failures = []
        for file in files:
            try:
                await account.client.restore(file.region, file.id, days)
            except NOT_RESTORED as error:
                failures.append(why_not_restored(file.id, error))
        return failures

    return ask(settings, credentials_of(settings), work)


def _profile(point: str) -> str:
    profile = status_of(point).get("profile")
    if not isinstance(profile, str):
        raise UsageError(f"{point} does not say which profile it shows")
    return profile
