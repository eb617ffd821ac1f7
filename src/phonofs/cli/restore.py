"""``phonofs restore``: asks for archived objects back."""

from collections.abc import Sequence

import click

from phonofs.cli.account import Account, ask, credentials_of
from phonofs.cli.probe import status_of
from phonofs.cli.selection import Chosen, chosen, one_mount
from phonofs.cli.settings import load
from phonofs.cli.status import printable
from phonofs.errors import Gone, PhonofsError, UsageError

MANY = 10
"""More than so many are only asked for once a person has agreed."""


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

    async def work(account: Account) -> list[PhonofsError]:
        return [error for file in archived if (error := await _restore(account, file, days))]

    failures = ask(settings, credentials_of(settings), work)
    for error in failures:
        click.echo(f"phonofs: {printable(str(error))}", err=True)
    click.echo(f"{len(archived) - len(failures)} of {len(archived)} asked for, for {days} days")
    return failures[0].exit_status if failures else 0


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
