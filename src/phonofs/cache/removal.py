"""Removes files and directories, and counts what they take on disk. Follows no links.

All functions may run in a thread.
"""

import os
import stat
from collections.abc import Iterator

SECTOR = 512  # bytes; the unit of st_blocks (stat(2))
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def bytes_on_disk(status: os.stat_result) -> int:
    """Return the bytes that a file takes on disk."""
    return status.st_blocks * SECTOR


def size_of(name: str, directory: int | None = None) -> int:
    """Return the bytes that a file, or all files below a directory, take on disk.

    What cannot be read counts as 0.
    """
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            return bytes_on_disk(status)
        inside = os.open(name, DIRECTORY_FLAGS, dir_fd=directory)
    except OSError:
        return 0
    try:
        return sum(size_of(below, inside) for below in os.listdir(inside))
    except OSError:
        return 0
    finally:
        os.close(inside)


def remove_tree(name: str, directory: int | None = None) -> Iterator[int]:
    """Remove a file, or a directory with all that is in it; yield the bytes of each file.

    What somebody else removes meanwhile is skipped. Raises OSError for the first file or directory
    that cannot be removed.
    """
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=directory)
            yield bytes_on_disk(status)
            return
        inside = os.open(name, DIRECTORY_FLAGS, dir_fd=directory)
        try:
            for below in os.listdir(inside):
                yield from remove_tree(below, inside)
        finally:
            os.close(inside)
        os.rmdir(name, dir_fd=directory)
    except FileNotFoundError:
        pass
