"""Creates, opens, counts and removes the files of the cache directory.

Each object has one file, named after its key, in one of 256 shard directories below ``content/``.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from phonofs.buffers import page_aligned
from phonofs.cache import index_file
from phonofs.cache.blockfile import SCRATCH, BlockFile, EncryptedBlockFile
from phonofs.cache.blocks import BLOCK, page_ceil, page_floor
from phonofs.cache.codec import AesGcmCodec
from phonofs.cache.directory import claim, closed_on_error
from phonofs.cache.removal import DIRECTORY_FLAGS, bytes_on_disk, remove_tree

_NO_FILE = frozenset({errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO})
"""The errors of opening nothing, or a link, a directory or a pipe in the place of a file."""

PROBE = "probe"

USUAL = 1 << 18
"""Bytes of a usual file. Removing a file takes the longer the larger it is."""

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # opening a planted pipe must not wait


class FileStore:
    """The files below ``content/``: ``3f/…``, named after the hex digits of the keys.

    Borrows the directory's descriptor. Methods raise OSError if the disk fails. ``key_id`` is that
    of the codec, 0 for plain bytes.
    """

    def __init__(
        self, directory_fd: int, *, in_ram: bool, codec: AesGcmCodec | None = None
    ) -> None:
        self.key_id = codec.key_id if codec else 0
        self._codec = codec
        self._content = directory_fd
        self._in_ram = in_ram
        self._scratch = page_aligned(2 * SCRATCH)

    def create(self, key: bytes) -> BlockFile:
        """Return a new, empty file; what was left under its name is removed."""
        with self._shard(key, make=True) as shard:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(key.hex()[2:], dir_fd=shard)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS
            fd = os.open(key.hex()[2:], flags, 0o600, dir_fd=shard)
        return self._block_file(fd, key)

    def open(self, key: bytes) -> BlockFile | None:
        """Return the file of an object; on a read-only disk it can only be read.

        Returns None if it does not exist or is not a regular file.
        """
        try:
            with self._shard(key) as shard:
                fd = _open_file(key.hex()[2:], shard)
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            return None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return None
        with contextlib.suppress(OSError):  # the kernel's own read-ahead suffices
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return self._block_file(fd, key)

    def remove(self, key: bytes) -> None:
        """Remove the file of an object, if it exists."""
        for fd in self.detach(key):
            os.close(fd)

    def detach(self, key: bytes) -> list[int]:
        """Remove the name of an object's file, if it exists; quick even for a large file.

        The file takes space until the returned descriptor of it is closed, in a thread. A kill
        closes it too.
        """
        with contextlib.suppress(FileNotFoundError), self._shard(key) as shard:
            fd = os.open(key.hex()[2:], os.O_PATH | _FLAGS, dir_fd=shard)
            with closed_on_error(fd):
                os.unlink(key.hex()[2:], dir_fd=shard)
            return [fd]
        return []

    def remove_names(self, shard_name: str, names: Iterable[str]) -> None:
        """Remove files of any name in a shard; call it in a thread."""
        with contextlib.suppress(FileNotFoundError), self._directory(shard_name) as shard:
            for name in names:
                for _ in remove_tree(name[len(shard_name) :], shard):
                    pass

    def remove_all(self, most: int) -> bool:
        """Remove up to ``most`` files, or ``most * USUAL`` bytes; return whether none is left."""
        files = size = 0
        for removed in empty_content(self._content):
            files, size = files + 1, size + removed
            if files >= most or size >= most * USUAL:
                return False
        return True

    def names(self, shard_name: str) -> dict[str, int]:
        """Return the bytes on disk of each file in a shard, by hex name; call it in a thread."""
        found: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError), self._directory(shard_name) as shard:
            for name in os.listdir(shard):
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=shard, follow_symlinks=False)
                    found[shard_name + name] = bytes_on_disk(status)
        return found

    def span(self, first: int, last: int, size: int) -> tuple[int, int]:
        """Return the range of the file that blocks ``[first, last)`` of an object take.

        ``size`` is the length of the object in bytes; its last block may be short.
        """
        stride, overhead = BLOCK, 0
        if self._codec is not None:
            stride, overhead = self._codec.stride, self._codec.overhead
        length = min(last * BLOCK, size) - (last - 1) * BLOCK
        return first * stride, (last - 1) * stride + length + overhead

    def cost(self, first: int, last: int, size: int) -> int:
        """Return the bytes that blocks ``[first, last)`` take on disk, in whole pages."""
        start, stop = self.span(first, last, size)
        return page_ceil(stop) - page_floor(start)

    def charged(self, key: bytes) -> int | None:
        """Return the bytes that the file of an object takes on disk; None if there is no file."""
        with contextlib.suppress(FileNotFoundError), self._shard(key) as shard:
            return bytes_on_disk(os.stat(key.hex()[2:], dir_fd=shard, follow_symlinks=False))
        return None

    def free_bytes(self) -> int:
        """Return the free bytes of the file system; 0 if that cannot be read."""
        try:
            found = os.fstatvfs(self._content)
        except OSError:
            return 0
        return found.f_bavail * found.f_frsize

    def probe(self) -> None:
        """Write a page and remove it again, to find out whether the disk can be written."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | _FLAGS
        fd = os.open(PROBE, flags, 0o600, dir_fd=self._content)
        try:
            os.write(fd, bytes(4096))
            os.fsync(fd)
        finally:
            os.close(fd)
            os.unlink(PROBE, dir_fd=self._content)

    def _block_file(self, fd: int, key: bytes) -> BlockFile:
        if self._codec is None:
            return BlockFile(fd, self._scratch, in_ram=self._in_ram)
        return EncryptedBlockFile(
            fd, self._scratch, in_ram=self._in_ram, codec=self._codec, name=key
        )

    def _shard(self, key: bytes, *, make: bool = False) -> AbstractContextManager[int]:
        return self._directory(key.hex()[:2], make=make)

    @contextlib.contextmanager
    def _directory(self, name: str, *, make: bool = False) -> Iterator[int]:
        """Open a directory below ``content/``; with ``make``, create it if it does not exist."""
        try:
            fd = os.open(name, DIRECTORY_FLAGS, dir_fd=self._content)
        except FileNotFoundError:
            if not make:
                raise
            os.mkdir(name, 0o700, dir_fd=self._content)
            fd = os.open(name, DIRECTORY_FLAGS, dir_fd=self._content)
        try:
            yield fd
        finally:
            os.close(fd)


def is_shard(name: str) -> bool:
    """Return whether a name in ``content/`` is that of one of the 256 shard directories."""
    return len(name) == 2 and set(name) <= set("0123456789abcdef")


def empty_content(directory: int) -> Iterator[int]:
    """Remove the files of all objects below ``content/``, whether the index knows them or not.

    Yields the bytes on disk of each. Raises OSError if something cannot be removed.
    """
    for name in os.listdir(directory):
        if is_shard(name) or name == PROBE:
            yield from remove_tree(name, directory)


def remove_content(directory: Path) -> tuple[int, int]:
    """Remove all content from a cache directory that no process uses.

    Returns the number of removed files, and the bytes that they took on disk. Needs neither the
    index nor the key of an encrypted cache. Raises UsageError if the directory is in use or is not
    a cache, and OSError if something cannot be removed.
    """
    content = claim(directory)
    try:
        index_file.remove(content)
        sizes = list(empty_content(content))
    finally:
        os.close(content)
    return len(sizes), sum(sizes)


def _open_file(name: str, shard: int) -> int:
    try:
        return os.open(name, os.O_RDWR | _FLAGS, dir_fd=shard)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return os.open(name, os.O_RDONLY | _FLAGS, dir_fd=shard)  # writing to it fails
