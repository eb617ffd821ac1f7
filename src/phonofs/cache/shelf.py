"""The files of content: the only code that reads or writes content, on disk or in memory.

Of an encrypted cache :mod:`phonofs.cache.sealed` has the contents: nothing else sees how bytes
lie in a file.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from phonofs.buffers import page_aligned

SCRATCH = 1 << 20
"""The longest read answered at once: the largest the kernel asks for."""

USUAL = 1 << 18
"""Bytes of a usual file: to remove a large one takes the longer the more it has."""

LENT_FROM = 1 << 15
"""Less is copied: that takes a microsecond or two."""

Lent = bytes | memoryview
"""Bytes to be used up before anything else is done: a view holds until the next ones are lent."""

_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # linux/falloc.h

_NO_FILE = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO})
"""What opening says of a link, a folder and a pipe in the place of a file."""

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a planted pipe must not hold us up

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate64 if hasattr(_libc, "fallocate64") else _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Stamp(NamedTuple):
    """What changes when a file is touched by anyone; the change time cannot be set back."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


UNKNOWN = Stamp(-1, -1, -1, -1)
"""Of a file that could not be asked: it is not like any, so its blocks are checked again."""


class Content:
    """One open file of content. Owner: the holding that opened it; closed exactly once.

    ``in_ram``: reading never waits for a device, so it is never refused at once.
    ``scratch`` is a buffer shared by all contents of one shelf, twice SCRATCH; only the event loop
    uses it, the first half while it reads, the second for what it lends.
    """

    __slots__ = ("_in_ram", "_scratch", "fd", "writable")

    def __init__(self, fd: int, scratch: memoryview, *, in_ram: bool, writable: bool) -> None:
        self.fd = fd
        self.writable = writable
        self._scratch = scratch
        self._in_ram = in_ram

    @staticmethod
    def spread(start: int, stop: int) -> tuple[int, int]:
        """The bytes of the file that ``[start, stop)`` of the content may take."""
        return start, stop

    def read(self, offset: int, n: int) -> bytes:
        """Up to ``n`` bytes, waiting for the device; fewer only where the file ends."""
        return os.pread(self.fd, n, offset)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer``, waiting for the device; fewer bytes only where the file ends."""
        return os.preadv(self.fd, [buffer], offset)

    def read_now(self, offset: int, n: int) -> bytes | None:
        """Exactly ``n`` bytes, or None where that would wait, fail, or find fewer."""
        try:
            if self._in_ram:
                data = os.pread(self.fd, n, offset)
                return data if len(data) == n else None
            if n > SCRATCH:
                return None
            buffer = self._scratch[:n]
            got = os.preadv(self.fd, [buffer], offset, os.RWF_NOWAIT)
        except OSError:  # EAGAIN: not in the page cache; EOPNOTSUPP: nobody can tell; EIO
            return None
        return buffer.tobytes() if got == n else None

    def lend_now(self, offset: int, n: int) -> Lent | None:
        """The same without a copy of what is long: only the one who asks next may overwrite it."""
        if self._in_ram or not LENT_FROM <= n <= SCRATCH:
            return self.read_now(offset, n)
        view = self._scratch[SCRATCH : SCRATCH + n]
        try:
            got = os.preadv(self.fd, [view], offset, os.RWF_NOWAIT)
        except OSError:  # as above
            return None
        return view if got == n else None

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data``. OSError where the disk does not take it."""
        written = os.pwrite(self.fd, data, offset)
        while written < len(data):
            rest = memoryview(data)[written:]
            step = os.pwrite(self.fd, rest, offset + written)
            if step == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            written += step

    def punch(self, start: int, stop: int) -> bool:
        """Give the pages in ``[start, stop)`` back; False where the file system cannot."""
        done = _fallocate(self.fd, _PUNCH_HOLE | _KEEP_SIZE, start, stop - start)
        return int(done) == 0

    def truncate(self, size: int) -> None:
        """Cut the file."""
        os.ftruncate(self.fd, size)

    def forget(self, first: int, last: int) -> None:
        """Nothing counts any more of what was written to the blocks ``[first, last)``."""

    def finish(self) -> None:
        """Have all that was written in the file. OSError where the disk does not take it."""

    def unfinished(self) -> list[tuple[int, int]]:
        """The bytes that were written but are not in the file."""
        return []

    def stamp(self) -> Stamp | None:
        """What the file looks like now; None where the disk does not say."""
        try:
            now = os.fstat(self.fd)
        except OSError:
            return None
        return Stamp(now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)

    def close(self) -> None:
        """Let the descriptor go."""
        os.close(self.fd)


class Make(Protocol):
    """Makes a content of an open file."""

    def __call__(self, fd: int, scratch: memoryview, *, in_ram: bool, writable: bool) -> Content:
        """The content, which owns ``fd`` from now on."""


Wrap = Callable[[bytes], Make]


class Memory:
    """Makes contents that live in memory only: nothing of them reaches a disk but swap."""

    def __init__(self) -> None:
        self._scratch = page_aligned(2 * SCRATCH)

    def open(self) -> Content:
        """A new, empty one. OSError without memory or descriptors."""
        fd = os.memfd_create("phonofs", os.MFD_CLOEXEC)
        return Content(fd, self._scratch, in_ram=True, writable=True)


class Shelf:
    """The files below ``content/``: ``3f/…``, one an object, its name the key's hex digits.

    Owner of the folder's descriptor only as a borrower: the claim closes it. ``wrap`` makes a
    content of a descriptor and the object's key, another than the plain one.
    """

    def __init__(self, folder_fd: int, *, in_ram: bool, wrap: Wrap | None = None) -> None:
        self._folder = folder_fd
        self._wrap = wrap
        self._in_ram = in_ram
        self._scratch = page_aligned(2 * SCRATCH)

    def create(self, key: bytes) -> Content:
        """A new, empty file; one left behind under that name is emptied."""
        drawer = self._drawer(key, make=True)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | _FLAGS
            fd = os.open(key.hex()[2:], flags, 0o600, dir_fd=drawer)
        finally:
            os.close(drawer)
        return self._content(fd, key, writable=True)

    def open(self, key: bytes) -> Content:
        """The file of an object. FileNotFoundError where it is gone, or is not a file.

        It is opened for reading only where the disk turned read-only.
        """
        try:
            drawer = self._drawer(key, make=False)
            try:
                fd, writable = _open_file(key.hex()[2:], drawer)
            finally:
                os.close(drawer)
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            raise FileNotFoundError(error.errno, "no file") from error
        content = self._content(fd, key, writable=writable)
        with contextlib.suppress(OSError):  # the kernel reads ahead better than we could ask it to
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return content

    def remove(self, key: bytes) -> None:
        """Remove the file of an object, if it is there."""
        try:
            drawer = self._drawer(key, make=False)
        except FileNotFoundError:
            return
        try:
            os.unlink(key.hex()[2:], dir_fd=drawer)
        except FileNotFoundError:
            pass
        finally:
            os.close(drawer)

    def set_aside(self, key: bytes) -> None:
        """Move the file of an object to ``gone/``: quick, where removing a large one is not."""
        gone = self._subfolder("gone", make=True)
        try:
            drawer = self._drawer(key, make=False)
            try:
                os.rename(key.hex()[2:], key.hex(), src_dir_fd=drawer, dst_dir_fd=gone)
            finally:
                os.close(drawer)
        except FileNotFoundError:
            pass
        finally:
            os.close(gone)

    def set_name_aside(self, drawer_name: str, name: str) -> int:
        """The same for what has any name in one of the 256 folders; the bytes it takes on disk."""
        gone = self._subfolder("gone", make=True)
        try:
            drawer = self._subfolder(drawer_name, make=False)
            try:
                inside = name[len(drawer_name) :]
                found = os.stat(inside, dir_fd=drawer, follow_symlinks=False)
                os.rename(inside, _unique(name), src_dir_fd=drawer, dst_dir_fd=gone)
            finally:
                os.close(drawer)
        finally:
            os.close(gone)
        return found.st_blocks * 512

    def set_all_aside(self, spare: Collection[bytes] = ()) -> None:
        """Move every file to ``gone/`` but those of these keys. Quick: whole folders are moved."""
        spared: dict[str, set[str]] = {}
        for key in spare:
            spared.setdefault(key.hex()[:2], set()).add(key.hex()[2:])
        gone = self._subfolder("gone", make=True)
        try:
            for drawer in filter(is_drawer, os.listdir(self._folder)):
                if drawer not in spared:
                    target = _unique(drawer)
                    os.rename(drawer, target, src_dir_fd=self._folder, dst_dir_fd=gone)
                    continue
                above = self._subfolder(drawer, make=False)
                try:
                    for name in set(os.listdir(above)) - spared[drawer]:
                        target = _unique(drawer + name)
                        os.rename(name, target, src_dir_fd=above, dst_dir_fd=gone)
                finally:
                    os.close(above)
        finally:
            os.close(gone)

    def empty_gone(self, most: int) -> bool:
        """Remove up to ``most`` files from ``gone/``; True where it is empty now. In a thread."""
        try:
            gone = self._subfolder("gone", make=False)
        except FileNotFoundError:
            return True
        try:
            return empty_folder(gone, Removed(), most)
        finally:
            os.close(gone)

    def clear_gone(self) -> Removed:
        """Remove all that lies in ``gone/``."""
        removed = Removed()
        gone = self._subfolder("gone", make=True)
        try:
            empty_folder(gone, removed, sys.maxsize)
        finally:
            os.close(gone)
        return removed

    def names(self, drawer_name: str) -> dict[str, int]:
        """What lies in one of the 256 folders: whole hex names, and bytes on disk; in a thread."""
        try:
            drawer = self._subfolder(drawer_name, make=False)
        except FileNotFoundError:
            return {}
        found: dict[str, int] = {}
        try:
            for name in os.listdir(drawer):
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=drawer, follow_symlinks=False)
                    found[drawer_name + name] = status.st_blocks * 512
        finally:
            os.close(drawer)
        return found

    def charged(self, key: bytes) -> int | None:
        """The bytes the file takes on disk; None where there is no file."""
        try:
            drawer = self._drawer(key, make=False)
        except FileNotFoundError:
            return None
        try:
            found = os.stat(key.hex()[2:], dir_fd=drawer, follow_symlinks=False)
        except FileNotFoundError:
            return None
        finally:
            os.close(drawer)
        return found.st_blocks * 512

    def free_bytes(self) -> int:
        """What the disk has left for us; 0 where it does not say."""
        try:
            found = os.fstatvfs(self._folder)
        except OSError:
            return 0
        return found.f_bavail * found.f_frsize

    def probe(self) -> None:
        """Write a page and remove it again; OSError where the disk does not take it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | _FLAGS
        fd = os.open("probe", flags, 0o600, dir_fd=self._folder)
        try:
            os.write(fd, bytes(4096))
            os.fsync(fd)
        finally:
            os.close(fd)
            os.unlink("probe", dir_fd=self._folder)

    def _content(self, fd: int, key: bytes, *, writable: bool) -> Content:
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise FileNotFoundError(errno.EINVAL, "not a file")
        except OSError:
            os.close(fd)
            raise
        make = Content if self._wrap is None else self._wrap(key)
        return make(fd, self._scratch, in_ram=self._in_ram, writable=writable)

    def _drawer(self, key: bytes, *, make: bool) -> int:
        return self._subfolder(key.hex()[:2], make=make)

    def _subfolder(self, name: str, *, make: bool) -> int:
        try:
            return os.open(name, _FOLDER_FLAGS, dir_fd=self._folder)
        except FileNotFoundError:
            if not make:
                raise
        os.mkdir(name, 0o700, dir_fd=self._folder)
        return os.open(name, _FOLDER_FLAGS, dir_fd=self._folder)


@dataclass(slots=True)
class Removed:
    """What was removed: how many files, and the bytes they took on disk."""

    files: int = 0
    bytes: int = 0


def is_drawer(name: str) -> bool:
    """Whether a name in ``content/`` is that of one of the 256 folders."""
    return len(name) == 2 and set(name) <= set("0123456789abcdef")


def empty_content(folder: int) -> Removed:
    """Remove the content of every object below ``content/``, whatever an index says of it.

    OSError where something cannot be removed.
    """
    removed = Removed()
    for name in os.listdir(folder):
        if is_drawer(name) or name in ("gone", "probe"):
            _remove_entry(name, folder, removed, sys.maxsize)
    return removed


def empty_folder(folder: int, removed: Removed, most: int) -> bool:
    """Remove what lies in an open folder until ``removed`` counts ``most`` files, or as many bytes
    as so many files of a usual size have; True where nothing is left. OSError where something
    cannot be removed.
    """
    for name in os.listdir(folder):
        full = removed.files >= most or removed.bytes >= most * USUAL
        if full or not _remove_entry(name, folder, removed, most):
            return False
    return True


def _remove_entry(name: str, above: int, removed: Removed, most: int) -> bool:
    """A file, or a folder with all that is in it: links are removed and never followed."""
    try:
        found = os.stat(name, dir_fd=above, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=above)
            removed.files += 1
            removed.bytes += found.st_blocks * 512
            return True
        folder = os.open(name, _FOLDER_FLAGS, dir_fd=above)
        try:
            empty = empty_folder(folder, removed, most)
        finally:
            os.close(folder)
        if empty:
            os.rmdir(name, dir_fd=above)
    except FileNotFoundError:  # somebody else removed it
        return True
    return empty


def _unique(name: str) -> str:
    """A name that nothing in ``gone/`` has: a folder cannot be moved onto another one."""
    return f"{name[:200]}-{os.urandom(8).hex()}"


def _open_file(name: str, drawer: int) -> tuple[int, bool]:
    try:
        return os.open(name, os.O_RDWR | _FLAGS, dir_fd=drawer), True
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return os.open(name, os.O_RDONLY | _FLAGS, dir_fd=drawer), False
