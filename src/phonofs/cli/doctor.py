"""``phonofs doctor``: checks everything that a mount needs, and says what to do."""

from collections.abc import Iterable

import click

from phonofs.cli.account import Account, ask, credentials_of
from phonofs.cli.checks import Finding, attempt, check_machine, check_service, check_settings
from phonofs.config import DEFAULT_PROFILE, Settings
from phonofs.config.load import load
from phonofs.credentials import Credentials
from phonofs.errors import PhonofsError
from phonofs.units import printable


@click.command("doctor")
@click.argument("profile", default=DEFAULT_PROFILE)
@click.option("-o", "options", metavar="OPT,…", multiple=True, help="Options, as with mount.")
def command(profile: str, options: tuple[str, ...]) -> int:
    """Check everything that a mount needs; say how to fix it.

    Checks FUSE, settings, credentials, token, regions, delivery of content, cache folder and clock.
    """
    found = show(check_machine())
    try:
        settings = load(profile, options)
        credentials = credentials_of(settings)
    except PhonofsError as error:
        found += show([Finding("settings", str(error), error)])
        return exit_status_of(found)
    found += show(check_settings(settings))
    found += show([Finding("credentials", "a key and a secret were found")])
    found += _ask_service(settings, credentials)
    return exit_status_of(found)


def _ask_service(settings: Settings, credentials: Credentials) -> list[Finding]:
    found: list[Finding] = []

    async def work(account: Account) -> None:
        async for finding in check_service(settings, account):
            found.extend(show([finding]))

    def run() -> str:
        ask(settings, credentials, work)
        return ""

    outcome = attempt("service", run)
    return found + (show([outcome]) if outcome.error else [])


def show(findings: Iterable[Finding]) -> list[Finding]:
    """Print a line for each finding as it arrives: ok, or what is wrong and what to do."""
    shown = []
    for finding in findings:
        mark = click.style("ok  ", fg="green") if finding.error is None else "FAIL"
        mark = mark if finding.error is None else click.style(mark, fg="red", bold=True)
        click.echo(f"{mark}  {finding.name:<16}  {printable(finding.text)}")
        shown.append(finding)
    return shown


def exit_status_of(findings: Iterable[Finding]) -> int:
    """Return 0 if everything is fine, else the exit status of the first failed check."""
    return next((finding.error.exit_status for finding in findings if finding.error), 0)
