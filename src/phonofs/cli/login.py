"""``phonofs login``: asks for key and secret, tries them, and keeps them."""

import sys

import click

from phonofs.cli.account import Account, ask, places
from phonofs.cli.settings import load
from phonofs.config import DEFAULT_PROFILE, Secret
from phonofs.credentials import Credentials, store
from phonofs.errors import UsageError


@click.command("login")
@click.argument("profile", default=DEFAULT_PROFILE)
@click.option("-o", "options", metavar="OPT,…", multiple=True, help="As with mount.")
def command(profile: str, options: tuple[str, ...]) -> int:
    """Ask for key and secret, try them, and keep them.

    Neither is echoed. They go to the keyring where there is one, else to a file that only you
    can read. Where the input is no terminal: the key and the secret, a line each.
    """
    settings = load(profile, options)
    credentials = asked()
    regions = ask(settings, credentials, _try)
    place = store(profile, credentials, places(settings).folder)
    click.echo(f"They work (regions: {', '.join(regions)}) and are kept in {place}.")
    return 0


def asked() -> Credentials:
    """Key and secret, from the person or from the input. Raises UsageError."""
    key, secret = _line("API key"), _line("Secret")
    if not key or not secret:
        raise UsageError("both a key and a secret are needed; nothing was changed")
    return Credentials(key, Secret(secret))


def _line(what: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(what, hide_input=True, default="", show_default=False)).strip()
    return sys.stdin.readline().strip()


async def _try(account: Account) -> list[str]:
    """A token is granted, and the storage answers with it."""
    await account.keeper.token()
    return await account.client.regions()
