"""``phonofs manifest``: prints a line for each object of days, months or files."""

import os
import sys
from calendar import monthrange
from collections.abc import Sequence
from pathlib import Path

import click

from phonofs.cli.find import say_what_was_looked_at
from phonofs.cli.named_objects import days_named, mount_named, named
from phonofs.cli.search_source import Source, source_of
from phonofs.errors import UsageError
from phonofs.manifest.columns import Listed
from phonofs.manifest.formats import FORMS
from phonofs.search.condition import Condition
from phonofs.search.options import condition_of
from phonofs.units import format_count


@click.command("manifest")
@click.argument("paths", nargs=-1, metavar="[PATH]…")
@click.option("--csv", "form", flag_value="csv", default=True, help="Comma-separated values.")
@click.option("--jsonl", "form", flag_value="jsonl", help="The records, as JSON lines.")
@click.option("--md5", "form", flag_value="md5", help="Checksums, for md5sum -c.")
@click.option("--m3u8", "form", flag_value="m3u8", help="A playlist of the recordings.")
@click.option("--parquet", metavar="DIR", help="A Parquet file a month, in this folder.")
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
    parquet: str | None,
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

    With --parquet the files have whole months, so --since, --until and PATH name months or years.
    They are replaced only if everything could be looked at.
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
        if parquet is not None:
            if form != "csv":
                raise UsageError(f"--parquet and --{form} are different outputs; choose one")
            if files0_from is not None or len(paths) > 1:
                raise UsageError("--parquet lists whole months: name one folder, or none")
            return _write_parquet(source, paths, condition, Path(parquet))
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


def _write_parquet(source: Source, paths: Sequence[str], condition: Condition, folder: Path) -> int:
    """Write the files of whole months; none if anything could not be looked at."""
    # Without this import, the other forms start 200 ms sooner.
    from phonofs.manifest.parquet import parquet_folder

    months = _whole_months(source, paths, condition)
    with parquet_folder(folder) as files:
        for path, result in named(source, paths, condition, command="manifest"):
            if result.record is not None:
                files.add(Listed(path, result.record, source.zone, source.profile))
        status = say_what_was_looked_at(source.answer)
        if status:
            click.echo(f"phonofs: {folder} is as it was: nothing was written", err=True)
            return status
        count = files.finish(months.since, months.until)
    click.echo(f"{format_count(count, 'month')} written to {folder}", err=True)
    return 0


def _whole_months(source: Source, paths: Sequence[str], condition: Condition) -> Condition:
    """Return which days are listed. Raises UsageError if those are not whole months."""
    days = days_named(source, paths[0], condition) if paths else condition
    if (
        days is None
        or days.region
        or (days.since and days.since.day != 1)
        or (days.until and days.until.day != monthrange(days.until.year, days.until.month)[1])
    ):
        raise UsageError("--parquet lists whole months: name months or years, of all regions")
    return days


def _paths_from(file: str) -> list[str]:
    """Return the paths in a file, or on standard input, each ended by NUL. Raises UsageError."""
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    return [os.fsdecode(path) for path in content.split(b"\0") if path]
