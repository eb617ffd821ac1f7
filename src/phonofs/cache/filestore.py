"""Creates, opens, counts and removes the files of the cache directory.

Each object has one file, named after its key, in one of 256 shard directories below ``content/``.
Evicted files are first moved to ``trash/``, which is quick, and removed from there in a thread:
their bytes stay charged until then.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager

from phonofs.buffers import page_aligned
from phonofs.cache.blockfile import SCRATCH, BlockFile, EncryptedBlockFile
from phonofs.cache.codec import AesGcmCodec, PlainCodec
from phonofs.cache.removal import DIRECTORY_FLAGS, bytes_on_disk, remove_below, remove_tree

_NO_FILE = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO})
"""The errors of opening a link, a directory or a pipe in the place of a file."""

TRASH, PROBE = "trash", "probe"

USUAL = 1 << 18
"""Bytes of a usual file. Removing a file takes the longer the larger it is."""

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # opening a planted pipe must not wait


class FileStore:
    """The files below ``content/``: ``3f/…``, named after the hex digits of the keys.

    Borrows the directory's descriptor; the claim owns and closes it. Methods raise OSError if the
    disk fails.
    """

    def __init__(
        self, directory_fd: int, *, in_ram: bool, codec: AesGcmCodec | None = None
    ) -> None:
        self.codec: PlainCodec = codec or PlainCodec()
        self._aes = codec
        self._content = directory_fd
        self._in_ram = in_ram
        self._scratch = page_aligned(2 * SCRATCH)

    def create(self, key: bytes) -> BlockFile:
        """Return a new, empty file; one that was left under its name is emptied."""
        with self._shard(key, make=True) as shard:
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | _FLAGS
            fd = os.open(key.hex()[2:], flags, 0o600, dir_fd=shard)
        return self._block_file(fd, key, writable=True)

    def open(self, key: bytes) -> BlockFile:
        """Return the file of an object; on a read-only disk it can only be read.

        Raises FileNotFoundError if it does not exist or is not a regular file.
        """
        try:
            with self._shard(key) as shard:
                fd, writable = _open_file(key.hex()[2:], shard)
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            raise FileNotFoundError(error.errno, "no file") from error
        file = self._block_file(fd, key, writable=writable)
        with contextlib.suppress(OSError):  # the kernel's own read-ahead suffices
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return file

    def remove(self, key: bytes) -> None:
        """Remove the file of an object, if it exists."""
        with contextlib.suppress(FileNotFoundError), self._shard(key) as shard:
            os.unlink(key.hex()[2:], dir_fd=shard)

    def move_to_trash(self, key: bytes) -> None:
        """Move the file of an object to ``trash/``, which is quick even for a large file."""
        missing = contextlib.suppress(FileNotFoundError)
        with self._directory(TRASH, make=True) as trash, missing, self._shard(key) as shard:
            os.rename(key.hex()[2:], key.hex(), src_dir_fd=shard, dst_dir_fd=trash)

    def move_name_to_trash(self, shard_name: str, name: str) -> int:
        """Move a file of any name in a shard to ``trash/``; return the bytes it takes on disk."""
        inside = name[len(shard_name) :]
        with self._directory(TRASH, make=True) as trash, self._directory(shard_name) as shard:
            found = os.stat(inside, dir_fd=shard, follow_symlinks=False)
            os.rename(inside, _unique(name), src_dir_fd=shard, dst_dir_fd=trash)
        return bytes_on_disk(found)

    def move_all_to_trash(self, spare: Collection[bytes] = ()) -> None:
        """Move all files to ``trash/`` except those of the ``spare`` keys; most as whole shards."""
        spared: dict[str, set[str]] = {}
        for key in spare:
            spared.setdefault(key.hex()[:2], set()).add(key.hex()[2:])
        with self._directory(TRASH, make=True) as trash:
            for name in filter(is_shard, os.listdir(self._content)):
                if name not in spared:
                    os.rename(name, _unique(name), src_dir_fd=self._content, dst_dir_fd=trash)
                    continue
                with self._directory(name) as shard:
                    for inside in set(os.listdir(shard)) - spared[name]:
                        target = _unique(name + inside)
                        os.rename(inside, target, src_dir_fd=shard, dst_dir_fd=trash)

    def empty_trash(self, most: int) -> bool:
        """Remove up to ``most`` files, or ``most * USUAL`` bytes, from ``trash/``.

        Returns whether it is empty now. Call it in a thread.
        """
        files = size = 0
        with contextlib.suppress(FileNotFoundError), self._directory(TRASH) as trash:
            for removed in remove_below(trash):
                files, size = files + 1, size + removed
                if files >= most or size >= most * USUAL:
                    return not os.listdir(trash)
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

    def _block_file(self, fd: int, key: bytes, *, writable: bool) -> BlockFile:
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise FileNotFoundError(errno.EINVAL, "not a file")
        except OSError:
            os.close(fd)
            raise
        if self._aes is None:
            return BlockFile(fd, self._scratch, in_ram=self._in_ram, writable=writable)
        return EncryptedBlockFile(
            fd, self._scratch, in_ram=self._in_ram, writable=writable, codec=self._aes, name=key
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


def empty_content(directory: int) -> tuple[int, int]:
    """Remove the files of all objects below ``content/``, whether the index knows them or not.

    Returns their number, and the bytes that they took on disk. Raises OSError if something cannot
    be removed.
    """
    names = [n for n in os.listdir(directory) if is_shard(n) or n in (TRASH, PROBE)]
    sizes = [size for name in names for size in remove_tree(name, directory)]
    return len(sizes), sum(sizes)


def _unique(name: str) -> str:
    """Return a name that nothing in ``trash/`` has, because a directory cannot replace another."""
    return f"{name[:200]}-{os.urandom(8).hex()}"


def _open_file(name: str, shard: int) -> tuple[int, bool]:
    try:
        return os.open(name, os.O_RDWR | _FLAGS, dir_fd=shard), True
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return os.open(name, os.O_RDONLY | _FLAGS, dir_fd=shard), False
