"""``phonofs restore``: asks for archived objects back."""

from collections.abc import Sequence
from contextlib import suppress

import click

from phonofs.cli.account import Account, ask, credentials_of
from phonofs.cli.probe import command as tell
from phonofs.cli.probe import status_of
from phonofs.cli.selection import Chosen, chosen, one_mount
from phonofs.cli.settings import load
from phonofs.cli.status import printable
from phonofs.errors import Gone, PhonofsError, UsageError

MANY = 10
"""More than so many are only asked for once a person has agreed."""
BATCH = 500
"""Ids in one request to the mount, whose line is bounded."""


@click.command("restore")
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@click.option("--days", type=click.IntRange(1, 10), default=7, metavar="N", help="1 to 10 (7).")
@click.option("-y", "--yes", is_flag=True, help="Do not ask, however many there are.")
@click.option("-o", "options", metavar="OPT,…", multiple=True, help="As with mount.")
def command(paths: Sequence[str], days: int, yes: bool, options: Sequence[str]) -> int:
    """Ask for archived objects back.

    It takes up to 24 hours, and a key with edit access. The files become readable by themselves.
    """
    point = one_mount(paths)
    archived = [file for file in chosen(paths) if file.archived]
    if not archived:
        click.echo("none of them is archived")
        return 0
    if len(archived) > MANY and not yes:
        click.confirm(f"Ask for {len(archived)} archived objects back?", abort=True, err=True)
    settings = load(_profile(point), options)

    asked: list[Chosen] = []
    failures: list[PhonofsError] = []

    async def work(account: Account) -> None:
        for file in archived:
            error = await _restore(account, file, days)
            failures.append(error) if error else asked.append(file)

    try:
        ask(settings, credentials_of(settings), work)
    finally:
        _tell_mount(point, asked)
    for error in failures:
        click.echo(f"phonofs: {printable(str(error))}", err=True)
    click.echo(f"{len(archived) - len(failures)} of {len(archived)} asked for, for {days} days")
    return failures[0].exit_status if failures else 0


def _tell_mount(point: str, asked: Sequence[Chosen]) -> None:
    """Let ``status`` show what is pending; only the mount's owner can, and it is no failure."""
    for region in {file.region for file in asked}:
        ids = [file.id for file in asked if file.region == region]
        for batch in range(0, len(ids), BATCH):
            request = {"command": "restoring", "region": region, "ids": ids[batch : batch + BATCH]}
            with suppress(PhonofsError):
                tell(point, request)


def _profile(point: str) -> str:
    profile = status_of(point).get("profile")
    if not isinstance(profile, str):
        raise UsageError(f"{point} does not say which profile it shows")
    return profile


async def _restore(account: Account, file: Chosen, days: int) -> PhonofsError | None:
    """Ask for one; what it alone met is returned, what all would meet is raised."""
    try:
        await account.client.restore(file.region, file.id, days)
    except Gone as error:
        return error
    return None
