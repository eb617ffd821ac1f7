"""Makes a folder of links to the files that a search found (``phonofs find --link``)."""

import os
from collections.abc import Iterable
from pathlib import Path

from phonofs.errors import UsageError
from phonofs.fuse.mountinfo import absolute
from phonofs.tree.naming import MAX_BYTES
from phonofs.tree.sanitize import cut


class LinkFolder:
    """A folder that holds links into one mount and nothing else. Owns the names used so far."""

    def __init__(self, folder: str, point: str) -> None:
        """Make the folder, or empty it if it holds such links only. Raises UsageError."""
        self._folder = Path(absolute(folder))
        self._names: set[str] = set()
        inside = point.rstrip("/") + "/"
        if f"{self._folder}/".startswith(inside):
            raise UsageError(f"{folder} lies in the mount, which cannot be written")
        try:
            self._folder.mkdir(exist_ok=True)
            entries = list(os.scandir(self._folder))
            for entry in entries:
                if not entry.is_symlink() or not os.readlink(entry).startswith(inside):
                    raise UsageError(
                        f"{folder} holds {entry.name}, which is no link into {point}: name another"
                        " folder"
                    )
            for entry in entries:
                os.unlink(entry)
        except OSError as error:
            raise _failed(error, folder) from None

    def add(self, paths: Iterable[str]) -> int:
        """Add links to files, named by the date of their day and their names; return how many."""
        count = 0
        for path in paths:
            name = self._free_name(path)
            try:
                os.symlink(path, self._folder / name)
            except OSError as error:
                raise _failed(error, str(self._folder)) from None
            count += 1
        return count

    def _free_name(self, path: str) -> str:
        above, _, name = path.rpartition("/")
        wanted = f"{above.rpartition('/')[2]}_{name}"
        stem, dot, ending = wanted.rpartition(".")
        number = 1
        while True:
            mark = f"_{number}" if number > 1 else ""
            kept = cut(stem, MAX_BYTES - len(f"{mark}{dot}{ending}".encode()))
            found = f"{kept}{mark}{dot}{ending}"
            if found not in self._names:
                self._names.add(found)
                return found
            number += 1


def _failed(error: OSError, folder: str) -> UsageError:
    return UsageError(f"{folder} cannot be filled with links: {error.strerror}")
