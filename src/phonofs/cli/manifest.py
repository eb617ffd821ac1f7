"""``phonofs manifest``: prints a line for each object of days, months or files."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from phonofs.cli.find import say_what_was_looked_at
from phonofs.cli.named_objects import mount_named, named
from phonofs.cli.search_source import source_of
from phonofs.errors import UsageError
from phonofs.manifest.columns import Listed
from phonofs.manifest.formats import FORMS
from phonofs.search.options import condition_of


@click.command("manifest")
@click.argument("paths", nargs=-1, metavar="[PATH]…")
@click.option("--csv", "form", flag_value="csv", default=True, help="Comma-separated values.")
@click.option("--jsonl", "form", flag_value="jsonl", help="The records, as JSON lines.")
@click.option("--md5", "form", flag_value="md5", help="Checksums, for md5sum -c.")
@click.option("--m3u8", "form", flag_value="m3u8", help="A playlist of the recordings.")
@click.option("--files0-from", metavar="FILE", help="Take paths from FILE, each ended by NUL.")
@click.option("--type", "types", metavar="T", multiple=True, help="Of this object type only.")
@click.option("--since", metavar="D", help="Of this day or later: 2026-11-17, 2026-11 or 2026.")
@click.option("--until", metavar="D", help="Of this day or earlier.")
@click.option("--mount", metavar="PATH", help="List this mount.")
@click.option("--profile", metavar="NAME", help="List the account of this profile.")
@click.option("--offline", is_flag=True, help="List what is known, and ask the service nothing.")
@click.option("-o", "options", metavar="OPT,…", multiple=True, help="As with mount.")
def command(
    paths: Sequence[str],
    form: str,
    files0_from: str | None,
    types: Sequence[str],
    since: str | None,
    until: str | None,
    mount: str | None,
    profile: str | None,
    offline: bool,
    options: Sequence[str],
) -> int:
    """Print a line for each object of days, months or files.

    Without PATH, of all. PATH is a file or folder of a mount, also of its views, or a path of the
    date tree without the mount point. Standard input is the FILE -. What could not be looked at is
    said on standard error, and the exit status is 4.
    """
    condition = condition_of(types=types, since=since, until=until)
    if files0_from is not None:
        if paths:
            raise UsageError("give paths as arguments or with --files0-from, not both")
        paths = _paths_from(files0_from)
        if not paths:
            return 0
    if mount is None and profile is None:
        mount = mount_named(paths)
    with source_of(mount, profile, options, offline=offline) as source:
        made = FORMS[form]()
        write = sys.stdout.buffer.write
        write(made.head().encode())
        for path, result in named(
            source, paths, condition, command="manifest", as_typed=form == "md5"
        ):
            if result.record is not None:
                listed = Listed(path, result.record, source.zone, source.profile)
                write(made.line(listed).encode(errors="surrogateescape"))
        write(made.tail().encode())
        sys.stdout.buffer.flush()
        return say_what_was_looked_at(source.answer)


def _paths_from(file: str) -> list[str]:
    """Return the paths in a file, or on standard input, each ended by NUL. Raises UsageError."""
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    return [os.fsdecode(path) for path in content.split(b"\0") if path]
