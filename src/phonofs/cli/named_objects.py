"""The objects that the paths of a command line name: files, folders, and what lies in views.

Used by the commands ``manifest`` and ``export``.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from pathlib import Path

import msgspec

from phonofs.attributes import PATH_ATTRIBUTE
from phonofs.cli.search_source import MountSource, Source, below, checked
from phonofs.cli.selection import files_of
from phonofs.errors import UsageError
from phonofs.fuse.mountinfo import mount_of
from phonofs.search.answer import Found
from phonofs.search.condition import Condition
from phonofs.search.facets import facets_of
from phonofs.tree.layout import Directory, descend


def mount_named(paths: Sequence[str]) -> str | None:
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


def path_below(source: Source, typed: str) -> str:
    """Return a path of the command line below the source's top. Raises UsageError."""
    return _chosen(source, typed).path


def days_named(source: Source, typed: str, condition: Condition) -> Condition | None:
    """Return the condition for objects of a folder of the command line; None if that is no folder
    of the date tree, or has no day that is asked for. Raises UsageError if it is not of the source.
    """
    folder = _chosen(source, typed).folder
    return both(condition, folder) if folder is not None else None


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


def named(
    source: Source,
    paths: Sequence[str],
    condition: Condition,
    *,
    command: str,
    as_typed: bool = False,
) -> Iterator[tuple[str, Found]]:
    """Yield what the paths name, in their order, each with the path to show for it.

    That begins with the source's top or, if it is to be ``as_typed``, with a relative path. Without
    paths, everything is named. ``command`` is what a message calls the search. Raises UsageError.
    """
    if not paths:
        for some in source.find(condition, command, records=True):
            yield from ((source.top + result.path, result) for result in some)
    chosen = [each for path in paths for each in _meant(source, _chosen(source, path))]
    for are_folders, group in groupby(chosen, lambda each: each.folder is not None):
        if are_folders:
            for each in group:
                yield from _of_folder(source, each, condition, command, as_typed=as_typed)
        else:
            yield from _of_files(source, [*group], condition, as_typed=as_typed)


def _of_folder(
    source: Source, chosen: _Chosen, condition: Condition, command: str, *, as_typed: bool
) -> Iterator[tuple[str, Found]]:
    assert chosen.folder is not None
    within = both(condition, chosen.folder)
    if within is None:
        return
    typed = as_typed and not chosen.typed.startswith("/")
    for some in source.find(within, f"{command} {chosen.typed}", records=True):
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
