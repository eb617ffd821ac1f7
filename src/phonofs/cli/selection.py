"""Finds the files of a mount that a command line names as files, directories and globs."""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from phonofs.attributes import PREFIX
from phonofs.checksum import of_nothing
from phonofs.errors import UsageError
from phonofs.fuse.mountinfo import mount_of
from phonofs.views.places import VIEW_BIT


@dataclass(frozen=True, slots=True)
class Chosen:
    """One file of a mount, read from its attributes. ``cached`` and ``size`` are in bytes.

    ``unsized``: its record says that its size is 0, but its checksum is not that of no bytes.
    """

    path: Path
    size: int
    cached: int
    id: str
    region: str
    archived: bool
    unsized: bool = False

    @property
    def missing(self) -> int:
        """How many bytes are not in the cache."""
        return max(self.size - self.cached, 0)


def one_mount(paths: Iterable[str]) -> str:
    """Return the mount point that contains all paths. Raises UsageError if there are several."""
    points = {mount_of(path).point for path in paths}
    if len(points) != 1:
        raise UsageError(f"all paths must be in one mount, not in {', '.join(sorted(points))}")
    return points.pop()


def chosen(paths: Iterable[str]) -> Iterator[Chosen]:
    """Yield the files, in order, each object once; texts of the views are none.

    Raises UsageError for a path that does not exist.
    """
    seen: set[int] = set()
    for text in paths:
        for path in _expanded(text):
            ino = _inode(path)
            if ino not in seen and ino < VIEW_BIT:
                seen.add(ino)
                yield _look(path)


def _expanded(text: str) -> Iterator[Path]:
    found = [text] if os.path.lexists(text) else sorted(glob.glob(text, recursive=True))
    if not found:
        raise UsageError(f"{text} does not exist")
    for each in found:
        path = Path(each)
        yield from files_of(path)


def files_of(path: Path) -> Iterator[Path]:
    """Yield all files below a directory, in order, or the path itself if it is none.

    Raises UsageError if a directory cannot be listed.
    """
    if not path.is_dir():
        yield path
        return

    def fail(error: OSError) -> None:
        raise UsageError(f"{error.filename} cannot be listed: {error.strerror}")

    for parent, folders, names in os.walk(path, onerror=fail):
        folders.sort()
        for name in sorted(names):
            yield Path(parent, name)


def _inode(path: Path) -> int:
    """Return the inode number of a name; that of a link, so that it is not followed."""
    try:
        return path.lstat().st_ino
    except OSError as error:
        raise UsageError(f"{path} cannot be looked at: {error.strerror}") from None


def _look(path: Path) -> Chosen:
    try:
        size = path.stat().st_size
        return Chosen(
            path,
            size,
            int(_attribute(path, "cached")),
            _attribute(path, "id"),
            _attribute(path, "region"),
            _attribute(path, "state") == "ARCHIVED",
            size == 0 and not of_nothing(_attribute(path, "checksum")),
        )
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _attribute(path: Path, name: str) -> str:
    return os.getxattr(path, PREFIX + name).decode(errors="replace")
