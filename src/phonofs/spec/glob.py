"""Patterns without ``**``: only the directories that match are listed."""

import re
from collections.abc import Iterator, Sequence
from glob import has_magic
from typing import Protocol

from fsspec.utils import glob_translate

from phonofs.spec.entries import ABSENT, Info, basename, directory


class Tree(Protocol):
    """What is searched."""

    def ls(self, path: str) -> list[Info]:
        """List a directory; of a file, the file."""

    def info(self, path: str) -> Info:
        """Return what is known of a path."""


def matching(
    tree: Tree, parts: Sequence[str], *, only_directories: bool, above: str = ""
) -> Iterator[Info]:
    """Yield what matches a pattern below a directory, part by part of the pattern.

    A name that has brackets itself matches as it stands. Raises what fails.
    """
    part, rest = parts[0], parts[1:]
    wanted = re.compile(glob_translate(part))
    for info in _candidates(tree, above, part, is_last=not rest):
        name, is_directory = basename(info), info["type"] == "directory"
        if name != part and not wanted.match(name):
            continue
        if rest and is_directory:
            yield from matching(tree, rest, only_directories=only_directories, above=info["name"])
        elif not rest and (is_directory or not only_directories):
            yield info


def _candidates(tree: Tree, above: str, part: str, *, is_last: bool) -> list[Info]:
    path = f"{above}/{part}" if above else part
    if not has_magic(part) and not is_last:
        return [directory(path)]  # what is below it will show whether it is there
    try:
        if has_magic(part):
            return [info for info in tree.ls(above) if info["name"] != above]
        return [tree.info(path)]
    except ABSENT:
        return []
