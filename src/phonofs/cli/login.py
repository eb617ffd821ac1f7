"""``phonofs login``: asks for key and secret, checks them, and stores them."""

import sys
from collections.abc import Sequence

import click

from phonofs.cli.account import Account, ask, places
from phonofs.config import DEFAULT_PROFILE, Secret, Settings
from phonofs.config.load import load, places_of
from phonofs.credentials import Credentials, check_nothing_else_is_used, store
from phonofs.errors import UsageError


@click.command("login")
@click.argument("profile", default=DEFAULT_PROFILE)
@click.option("-o", "options", metavar="OPT,…", multiple=True, help="Options, as with mount.")
def command(profile: str, options: tuple[str, ...]) -> int:
    """Ask for key and secret, check them, and store them.

    They are not echoed, and are stored in the keyring if there is one, else in a file that only you
    can read. If standard input is no terminal, it must have the key and the secret, one per line.
    If another key is configured, or another secret in secret_file, nothing is stored, because a
    mount would use those.
    """
    settings = load(profile, options)
    credentials = asked()
    _check_it_will_be_used(settings, credentials, options)
    regions = ask(settings, credentials, _try)
    place = store(profile, credentials, places(settings).folder)
    click.echo(f"Checked (regions: {', '.join(regions)}) and stored in {place}.")
    return 0


def _check_it_will_be_used(
    settings: Settings, credentials: Credentials, options: Sequence[str]
) -> None:
    """Raise UsageError if a mount would use other credentials, and name their place."""
    try:
        check_nothing_else_is_used(places(settings), credentials)
    except UsageError as error:
        found = places_of(settings.profile, ("key", "secret_file"), options)
        raise UsageError(f"{error} ({'; '.join(found)})" if found else str(error)) from None


def asked() -> Credentials:
    """Read key and secret from the terminal or standard input. Raises UsageError."""
    key, secret = _line("API key"), _line("Secret")
    if not key or not secret:
        raise UsageError("both a key and a secret are needed; nothing was stored")
    return Credentials(key, Secret(secret))


def _line(what: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(what, hide_input=True, default="", show_default=False)).strip()
    return sys.stdin.readline().strip()


async def _try(account: Account) -> list[str]:
    """Get a token and use it to ask for the regions; return them."""
    await account.tokens.token()
    return await account.client.regions()
