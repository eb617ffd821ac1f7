"""The folder that an export writes into: writes and removes files below it, and nowhere else.

Every folder is opened relative to the one above, without following links, so that no link in the
destination leads out of it. A file is written into a staging folder, synced, and renamed into
place. Used by ``run``, ``ledger`` and ``lists``; any thread may write a staged file.
"""

import ctypes
import errno
import fcntl
import itertools
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cachetools import LRUCache

from phonofs.errors import UsageError

WORK = ".phonofs-export"
"""The folder for what an unfinished export needs; a finished one has none."""

MARK = "export.json"
"""The file by which an export is recognised."""

FORMAT = "phonofs-export"
"""The first member of that file."""

STAGING = "new"

MODE, FOLDER_MODE = 0o600, 0o700
"""Calls are personal data: only the owner may read the copy, until the owner decides otherwise."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HARMLESS = frozenset({"lost+found"})  # a new file system has it

_libc = ctypes.CDLL(None, use_errno=True)


class _Folders(LRUCache[str, int]):
    """Open folders by their path; one that is forgotten is closed."""

    def popitem(self) -> tuple[str, int]:
        path, descriptor = super().popitem()
        os.close(descriptor)
        return path, descriptor


class Destination:
    """An open destination.

    path  as it was given, for messages

    A thread that copies may outlast it. So what threads call holds ``_closing`` and does nothing
    once it is closed: its descriptors may be those of other folders by then.
    """

    def __init__(self, path: str, top: int) -> None:
        """Take over the descriptor of the folder."""
        self.path = path
        self._top = top
        self._folders = _Folders(64)
        self._numbers = itertools.count()
        self._closing = threading.Lock()
        self._is_closed = False
        self._work = self._folder(top, WORK)
        self._staging = self._folder(self._work, STAGING)
        for name in os.listdir(self._staging):  # an export that was killed left it
            os.unlink(name, dir_fd=self._staging)

    def close(self) -> None:
        """Close all descriptors."""
        with self._closing:
            self._is_closed = True
            while self._folders:
                self._folders.popitem()
            for descriptor in (self._staging, self._work, self._top):
                os.close(descriptor)

    # staged files

    def stage(self) -> tuple[str, int]:
        """Create an empty file in the staging folder; return its name and a descriptor.

        Raises OSError, also if it is closed.
        """
        with self._closing:
            if self._is_closed:
                raise OSError(errno.EBADF, "the export has ended")
            name = str(next(self._numbers))
            return name, os.open(name, _NEW, MODE, dir_fd=self._staging)

    def drop(self, staged: str) -> None:
        """Remove a staged file that is not to be kept. If it is closed, the next export does so."""
        with self._closing, suppress(OSError):
            if not self._is_closed:
                os.unlink(staged, dir_fd=self._staging)

    def place(self, staged: str, path: str) -> None:
        """Rename a staged file to its path. Raises OSError, also if a folder has that name."""
        folder, name = self._split(path, make=True)
        os.rename(staged, name, src_dir_fd=self._staging, dst_dir_fd=folder)

    def sync(self) -> None:
        """Sync everything written so far, in one go. Raises OSError.

        That bytes could not be written is an error of syncfs(2) since Linux 5.8.
        """
        if _libc.syncfs(self._top) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def write(self, path: str, chunks: Iterable[bytes]) -> None:
        """Write a whole file: staged, synced and renamed. Raises OSError."""
        with self.writing(path) as file:
            file.writelines(chunks)

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        """Stage a file to write to; sync and rename it if the block ends. Raises OSError."""
        staged, descriptor = self.stage()
        try:
            with open(descriptor, "wb", buffering=1 << 18) as file:
                yield file
                file.flush()
                os.fsync(descriptor)
            self.place(staged, path)
        except BaseException:
            self.drop(staged)
            raise

    # files in place

    def status(self, path: str) -> os.stat_result | None:
        """Return the status of a regular file; None if there is none at this path."""
        try:
            folder, name = self._split(path, make=False)
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return None
        return found if stat.S_ISREG(found.st_mode) else None

    def reading(self, path: str) -> BinaryIO:
        """Open a file for reading. Raises OSError, also if it is a link."""
        folder, name = self._split(path, make=False)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        return open(os.open(name, flags, dir_fd=folder), "rb")

    def remove(self, path: str) -> None:
        """Remove a regular file or link, and the folders that are empty then. Raises OSError."""
        folder, name = self._split(path, make=False)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        parts = path.split("/")[:-1]
        while parts:
            gone = "/".join(parts)
            if (descriptor := self._folders.pop(gone, None)) is not None:
                os.close(descriptor)
            above = self._opened("/".join(parts[:-1]), make=False)
            try:
                os.rmdir(parts.pop(), dir_fd=above)
            except OSError:
                return  # not empty

    def working_file(self, name: str, flags: int) -> int:
        """Open a file of the working folder. Raises OSError."""
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, MODE, dir_fd=self._work)

    def replace_working_file(self, staged: str, name: str) -> None:
        """Rename a staged file into the working folder. Raises OSError."""
        os.rename(staged, name, src_dir_fd=self._staging, dst_dir_fd=self._work)

    def finish(self) -> None:
        """Sync, and remove the working folder. Raises OSError."""
        self.sync()
        for name in os.listdir(self._staging):
            self.drop(name)
        os.rmdir(STAGING, dir_fd=self._work)
        for name in os.listdir(self._work):
            os.unlink(name, dir_fd=self._work)
        os.rmdir(WORK, dir_fd=self._top)
        os.fsync(self._top)

    def free_bytes(self) -> int:
        """Return how many bytes may be written."""
        found = os.fstatvfs(self._top)
        return found.f_bavail * found.f_frsize

    # folders

    def _split(self, path: str, *, make: bool) -> tuple[int, str]:
        """Return the folder of a path, open, and the name in it. Raises OSError."""
        folder, slash, name = path.rpartition("/")
        if slash and not folder:
            raise OSError(errno.EINVAL, f"{path!r} is not below a folder")
        return self._opened(folder, make=make), _checked(name)

    def _opened(self, path: str, *, make: bool) -> int:
        if not path:
            return self._top
        if (known := self._folders.get(path)) is not None:
            return known
        above, _, name = path.rpartition("/")
        parent = self._opened(above, make=make)
        if make:
            opened = self._folder(parent, _checked(name))
        else:
            opened = os.open(_checked(name), _FOLDER, dir_fd=parent)
        self._folders[path] = opened
        return opened

    @staticmethod
    def _folder(parent: int, name: str) -> int:
        """Open a folder; make it if it is not there. Raises OSError, also if it is a link."""
        try:
            return os.open(name, _FOLDER, dir_fd=parent)
        except FileNotFoundError:
            os.mkdir(name, FOLDER_MODE, dir_fd=parent)
            return os.open(name, _FOLDER, dir_fd=parent)


def _checked(name: str) -> str:
    """Return a name. Raises OSError if it could lead out of its folder."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise OSError(errno.EINVAL, f"{name!r} is no name of a file")
    return name


@contextmanager
def opened(path: str) -> Iterator[Destination]:
    """Open an empty folder or an export; make the folder if it is not there. Raises UsageError."""
    top = _open_top(path)
    try:
        _lock(path, top)
        names = set(os.listdir(top)) - _HARMLESS
        if names and MARK not in names and names != {WORK}:
            raise UsageError(f"{path} is neither empty nor an export: choose another folder")
        destination = Destination(path, top)
    except BaseException as error:
        os.close(top)
        if isinstance(error, OSError):
            raise UsageError(f"{path} cannot be written to: {error.strerror}") from None
        raise
    try:
        yield destination
    finally:
        destination.close()


def _open_top(path: str) -> int:
    try:
        Path(path).mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{path} is not a folder") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written to: {error.strerror}") from None


def _lock(path: str, top: int) -> None:
    try:
        fcntl.flock(top, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"another export is writing into {path}") from None
    except OSError:
        return  # a file system without locks on folders
