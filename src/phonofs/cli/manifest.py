"""``phonofs manifest``: prints a line for each object of days, months or files."""

import os
import sys
from calendar import monthrange
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from pathlib import Path

import click
import msgspec

from phonofs.attributes import PATH_ATTRIBUTE
from phonofs.cli.find import say_what_was_looked_at
from phonofs.cli.search_source import MountSource, Source, below, checked, source_of
from phonofs.cli.selection import files_of
from phonofs.errors import UsageError
from phonofs.fuse.mountinfo import mount_of
from phonofs.manifest.columns import Listed
from phonofs.manifest.formats import FORMS
from phonofs.search.answer import Found
from phonofs.search.condition import Condition
from phonofs.search.facets import facets_of
from phonofs.search.options import condition_of
from phonofs.tree.layout import Directory, descend
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
        mount = _mount_named(paths)
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
        for path, result in _results(source, paths, condition, as_typed=form == "md5"):
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
        for path, result in _results(source, paths, condition, as_typed=False):
            if result.record is not None:
                files.add(Listed(path, result.record, source.zone, source.profile))
        status = say_what_was_looked_at(source.answer)
        if status:
            click.echo(f"phonofs: {folder} is as it was: nothing was written", err=True)
            return status
        try:
            count = files.finish(months.since, months.until)
        except OSError as error:
            raise UsageError(f"{folder} cannot be written to: {error.strerror}") from None
    click.echo(f"{format_count(count, 'month')} written to {folder}", err=True)
    return 0


def _whole_months(source: Source, paths: Sequence[str], condition: Condition) -> Condition:
    """Return which days are listed. Raises UsageError if those are not whole months."""
    folder = _chosen(source, paths[0]).folder if paths else Condition()
    days = both(condition, folder) if folder is not None else None
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


def _mount_named(paths: Sequence[str]) -> str | None:
    """Return the mount that the first path lies in; None if it is relative and lies in none."""
    try:
        return mount_of(paths[0]).point if paths else None
    except UsageError:
        if paths[0].startswith("/"):
            raise
        return None


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A path of the command line: as typed, below the source's top, and the folder it may be."""

    typed: str
    path: str
    folder: Condition | None


def _chosen(source: Source, typed: str) -> _Chosen:
    """Return what a path means. Raises UsageError if it is not of the source."""
    path = typed.strip("/")
    if isinstance(source, MountSource):
        try:
            path = below(source.point, typed)
        except UsageError:
            if not _begins_with_a_year(typed):
                raise
    elif not _begins_with_a_year(typed):
        raise UsageError(f"{typed} is not in a phonofs mount; without one, paths begin with a year")
    return _Chosen(typed, checked(path), folder_of(path))


def _meant(source: Source, chosen: _Chosen) -> Iterator[_Chosen]:
    """Yield what a path stands for: itself or, if it lies in a view, the objects there, each once.

    Raises UsageError if a folder of a view cannot be listed.
    """
    tree = chosen.folder is not None or _begins_with_a_year(chosen.path)
    if tree or not isinstance(source, MountSource):
        yield chosen
        return
    found: set[str] = set()
    for file in files_of(Path(chosen.typed)):
        with suppress(OSError):  # what a view makes is no object of the date tree
            path = os.fsdecode(os.getxattr(file, PATH_ATTRIBUTE))
            if path not in found:
                found.add(path)
                yield _Chosen(str(file), path, None)
    if not found:
        yield chosen


def _begins_with_a_year(path: str) -> bool:
    """Return whether a relative path begins with a year, or a region and a year."""
    return not path.startswith("/") and any(name.isdecimal() for name in path.split("/")[:2])


def folder_of(path: str) -> Condition | None:
    """Return the days of a folder by its path ``[REGION/][YEAR[/YEAR-MONTH[/DAY]]]``, or None."""
    names = path.split("/") if path else []
    region = names.pop(0) if names and not names[0].isdecimal() else ""
    of = descend(Directory(0), names)
    if of is None or ("." in region and not names):
        return None
    if not of.year:
        return Condition(region=region)
    return Condition(region=region, since=of.first_day, until=of.stop_day - timedelta(days=1))


def _results(
    source: Source, paths: Sequence[str], condition: Condition, *, as_typed: bool
) -> Iterator[tuple[str, Found]]:
    """Yield what the paths name, in their order, each with the path to show for it.

    That begins with the source's top or, if it is to be ``as_typed``, with a relative path.
    """
    if not paths:
        for some in source.find(condition, "manifest", records=True):
            yield from ((source.top + result.path, result) for result in some)
    chosen = [each for path in paths for each in _meant(source, _chosen(source, path))]
    for are_folders, group in groupby(chosen, lambda each: each.folder is not None):
        if are_folders:
            for each in group:
                yield from _of_folder(source, each, condition, as_typed=as_typed)
        else:
            yield from _of_files(source, [*group], condition, as_typed=as_typed)


def _of_folder(
    source: Source, chosen: _Chosen, condition: Condition, *, as_typed: bool
) -> Iterator[tuple[str, Found]]:
    assert chosen.folder is not None
    within = both(condition, chosen.folder)
    if within is None:
        return
    typed = as_typed and not chosen.typed.startswith("/")
    for some in source.find(within, f"manifest {chosen.typed}", records=True):
        for result in some:
            rest = result.path.removeprefix(chosen.path).lstrip("/")
            shown = f"{chosen.typed.rstrip('/')}/{rest}" if typed else source.top + result.path
            yield shown, result


def _of_files(
    source: Source, files: Sequence[_Chosen], condition: Condition, *, as_typed: bool
) -> Iterator[tuple[str, Found]]:
    shown = defaultdict[str, list[str]](list)
    for each in reversed(files):
        is_typed = as_typed and not each.typed.startswith("/")
        shown[each.path].append(each.typed if is_typed else source.top + each.path)
    for some in source.files([each.path for each in files]):
        for result in some:
            path = shown[result.path].pop()
            day = folder_of(result.path.rpartition("/")[0]) or Condition()
            is_within = both(condition, day) is not None
            if result.record and is_within and condition.accepts(facets_of(result.record)):
                yield path, result


def both(condition: Condition, folder: Condition) -> Condition | None:
    """Return the condition for objects of a folder; None if it has no day that is asked for."""
    since = max(filter(None, (condition.since, folder.since)), default=None)
    until = min(filter(None, (condition.until, folder.until)), default=None)
    if since and until and since > until:
        return None
    return msgspec.structs.replace(condition, region=folder.region, since=since, until=until)
