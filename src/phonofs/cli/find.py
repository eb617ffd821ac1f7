"""``phonofs find``: prints the paths of the objects that match."""

import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from phonofs.cli.report import EXIT_IN_PART
from phonofs.cli.search_options import search_options
from phonofs.cli.search_source import MountSource, Source, source_of
from phonofs.errors import UsageError
from phonofs.search.answer import Answer, Found
from phonofs.search.options import condition_of
from phonofs.units import format_count, printable


@click.command("find")
@click.argument("words", nargs=-1, metavar="")
@search_options
@click.option("--mount", metavar="PATH", help="Search this mount.")
@click.option("--profile", metavar="NAME", help="Search the account of this profile.")
@click.option("-0", "zeros", is_flag=True, help="End each path with NUL, for xargs -0.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print records, with their paths, as JSON lines."
)
@click.option(
    "--link", metavar="DIR", help="Fill a folder with links to the files, and print none."
)
@click.option("--offline", is_flag=True, help="Look at what is known, and ask the service nothing.")
@click.option("--explain", is_flag=True, help="Say how the search is understood and answered.")
@click.option("-o", "options", metavar="OPT,…", multiple=True, help="As with mount.")
def command(
    words: Sequence[str],
    mount: str | None,
    profile: str | None,
    zeros: bool,
    as_json: bool,
    link: str | None,
    offline: bool,
    explain: bool,
    options: Sequence[str],
    **asked: Any,
) -> int:
    """Print the paths of the objects that match all of the options.

    Your running mount answers from what it knows, and asks the service for the rest; without one,
    the catalogue on disk answers. What could not be looked at is said on standard error, and the
    exit status is 4. Names are compared as file names show them, without case.
    """
    if words:
        raise UsageError(
            f"{words[0]!r}: words are not looked for in transcripts yet; see `phonofs find --help`"
        )
    if as_json + zeros + (link is not None) > 1:
        raise UsageError("-0, --json and --link are different outputs; choose one")
    condition = condition_of(**asked)
    what = _typed(asked) or "this search"
    with source_of(mount, profile, options, offline=offline) as source:
        found = source.find(condition, what, records=as_json)
        if link is not None:
            count = _link(source, link, found)
            click.echo(f"{format_count(count, 'file')} linked in {link}")
        elif as_json:
            _print_records(source, found)
        else:
            _print_paths(source.top, found, b"\0" if zeros else b"\n")
        if explain:
            click.echo(f"searched for {what}: {_explained(source.answer)}", err=True)
        return say_what_was_looked_at(source.answer)


def _typed(asked: Mapping[str, Any]) -> str:
    """Return the options that say what is searched for, as a user would type them."""
    words = []
    for name, value in asked.items():
        option = f"--{name.rstrip('s') if isinstance(value, tuple) else name}"
        for each in value if isinstance(value, tuple) else [value]:
            words += [f"{option} {shlex.quote(printable(each))}"] if each is not None else []
    return " ".join(words)


def _print_paths(top: str, found: Iterable[list[Found]], end: bytes) -> None:
    before = os.fsencode(top)
    for some in found:
        sys.stdout.buffer.write(b"".join(before + each.path.encode() + end for each in some))
    sys.stdout.buffer.flush()


def _print_records(source: Source, found: Iterable[list[Found]]) -> None:
    # Without these imports, a search that prints paths starts 20 ms sooner.
    from phonofs.manifest.columns import Listed
    from phonofs.manifest.formats import JsonLines

    form = JsonLines()
    for some in found:
        for path, record in some:
            if record is not None:
                listed = Listed(source.top + path, record, source.zone, source.profile)
                sys.stdout.buffer.write(form.line(listed).encode())
    sys.stdout.buffer.flush()


def _link(source: Source, link: str, found: Iterable[list[Found]]) -> int:
    if not isinstance(source, MountSource):
        raise UsageError("--link needs a mount: nothing is mounted that links could lead to")
    from phonofs.cli.links import LinkFolder  # as above

    folder = LinkFolder(link, source.point)
    return sum(folder.add(source.top + path for path, _ in some) for some in found)


def _explained(answer: Answer) -> str:
    if answer.asked:
        return f"the service was asked with {answer.narrow}, and what it returned was checked"
    return "answered from the catalogue; the service was not asked with a filter"


def say_what_was_looked_at(answer: Answer) -> int:
    """Print on stderr what a search looked at, and what it could not; return the exit status."""
    if looked := answer.looked_at():
        click.echo(printable(looked), err=True)
    for sentence in answer.missing:
        click.echo(f"phonofs: {printable(sentence)}", err=True)
    return EXIT_IN_PART if answer.missing else 0
