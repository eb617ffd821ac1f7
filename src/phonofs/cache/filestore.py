"""The files of the cache directory: making, opening, counting and removing them.

One file an object, in one of 256 shard directories below ``content/``, named after the object's
key. What is evicted is moved to ``trash/`` first, which is quick, and removed from there in a
thread: its bytes stay charged until then.
"""

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Collection
from dataclasses import dataclass

from phonofs.buffers import page_aligned
from phonofs.cache.blockfile import SCRATCH, BlockFile, EncryptedBlockFile
from phonofs.cache.codec import AesGcmCodec, PlainCodec

_NO_FILE = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO})
"""What opening a link, a directory or a pipe in place of a file fails with."""

USUAL = 1 << 18
"""Bytes of a usual file: to remove a large one takes the longer the more it has."""

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a planted pipe must not hold us up


@dataclass(slots=True)
class Removed:
    """What was removed: how many files, and the bytes they took on disk."""

    files: int = 0
    bytes: int = 0


class FileStore:
    """The files below ``content/``: ``3f/…``, their names the hex digits of the keys.

    Borrows the directory descriptor; the claim owns and closes it.
    """

    def __init__(
        self, directory_fd: int, *, in_ram: bool, codec: AesGcmCodec | None = None
    ) -> None:
        self.codec: PlainCodec = codec or PlainCodec()
        self._aes = codec
        self._directory = directory_fd
        self._in_ram = in_ram
        self._scratch = page_aligned(2 * SCRATCH)

    def create(self, key: bytes) -> BlockFile:
        """Return a new, empty file; one left behind under that name is emptied."""
        shard = self._shard(key, make=True)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | _FLAGS
            fd = os.open(key.hex()[2:], flags, 0o600, dir_fd=shard)
        finally:
            os.close(shard)
        return self._block_file(fd, key, writable=True)

    def open(self, key: bytes) -> BlockFile:
        """Return the file of an object. FileNotFoundError if it is gone or not a file.

        It is opened for reading only if the disk has turned read-only.
        """
        try:
            shard = self._shard(key, make=False)
            try:
                fd, writable = _open_file(key.hex()[2:], shard)
            finally:
                os.close(shard)
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            raise FileNotFoundError(error.errno, "no file") from error
        file = self._block_file(fd, key, writable=writable)
        with contextlib.suppress(OSError):  # the kernel reads ahead better than we could ask it to
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return file

    def remove(self, key: bytes) -> None:
        """Remove the file of an object, if it is there."""
        try:
            shard = self._shard(key, make=False)
        except FileNotFoundError:
            return
        try:
            os.unlink(key.hex()[2:], dir_fd=shard)
        except FileNotFoundError:
            pass
        finally:
            os.close(shard)

    def move_to_trash(self, key: bytes) -> None:
        """Move the file of an object to ``trash/``: quick, where removing a large one is not."""
        trash = self._subdirectory("trash", make=True)
        try:
            shard = self._shard(key, make=False)
            try:
                os.rename(key.hex()[2:], key.hex(), src_dir_fd=shard, dst_dir_fd=trash)
            finally:
                os.close(shard)
        except FileNotFoundError:
            pass
        finally:
            os.close(trash)

    def move_name_to_trash(self, shard_name: str, name: str) -> int:
        """Move what has any name in a shard to ``trash/``; the bytes it takes on disk."""
        trash = self._subdirectory("trash", make=True)
        try:
            shard = self._subdirectory(shard_name, make=False)
            try:
                inside = name[len(shard_name) :]
                found = os.stat(inside, dir_fd=shard, follow_symlinks=False)
                os.rename(inside, _unique(name), src_dir_fd=shard, dst_dir_fd=trash)
            finally:
                os.close(shard)
        finally:
            os.close(trash)
        return found.st_blocks * 512

    def move_all_to_trash(self, spare: Collection[bytes] = ()) -> None:
        """Move every file to ``trash/`` but those of these keys; quick, in whole directories."""
        spared: dict[str, set[str]] = {}
        for key in spare:
            spared.setdefault(key.hex()[:2], set()).add(key.hex()[2:])
        trash = self._subdirectory("trash", make=True)
        try:
            for shard in filter(is_shard, os.listdir(self._directory)):
                if shard not in spared:
                    target = _unique(shard)
                    os.rename(shard, target, src_dir_fd=self._directory, dst_dir_fd=trash)
                    continue
                above = self._subdirectory(shard, make=False)
                try:
                    for name in set(os.listdir(above)) - spared[shard]:
                        target = _unique(shard + name)
                        os.rename(name, target, src_dir_fd=above, dst_dir_fd=trash)
                finally:
                    os.close(above)
        finally:
            os.close(trash)

    def empty_trash(self, most: int) -> bool:
        """Remove up to ``most`` files from ``trash/``; True where it is empty now. In a thread."""
        try:
            trash = self._subdirectory("trash", make=False)
        except FileNotFoundError:
            return True
        try:
            return empty_directory(trash, Removed(), most)
        finally:
            os.close(trash)

    def clear_trash(self) -> Removed:
        """Remove all that lies in ``trash/``."""
        removed = Removed()
        trash = self._subdirectory("trash", make=True)
        try:
            empty_directory(trash, removed, sys.maxsize)
        finally:
            os.close(trash)
        return removed

    def names(self, shard_name: str) -> dict[str, int]:
        """What lies in a shard directory: whole hex names, and bytes on disk; in a thread."""
        try:
            shard = self._subdirectory(shard_name, make=False)
        except FileNotFoundError:
            return {}
        found: dict[str, int] = {}
        try:
            for name in os.listdir(shard):
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=shard, follow_symlinks=False)
                    found[shard_name + name] = status.st_blocks * 512
        finally:
            os.close(shard)
        return found

    def charged(self, key: bytes) -> int | None:
        """The bytes the file takes on disk; None where there is no file."""
        try:
            shard = self._shard(key, make=False)
        except FileNotFoundError:
            return None
        try:
            found = os.stat(key.hex()[2:], dir_fd=shard, follow_symlinks=False)
        except FileNotFoundError:
            return None
        finally:
            os.close(shard)
        return found.st_blocks * 512

    def free_bytes(self) -> int:
        """What the disk has left for us; 0 where it does not say."""
        try:
            found = os.fstatvfs(self._directory)
        except OSError:
            return 0
        return found.f_bavail * found.f_frsize

    def probe(self) -> None:
        """Write a page and remove it again; OSError where the disk does not take it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | _FLAGS
        fd = os.open("probe", flags, 0o600, dir_fd=self._directory)
        try:
            os.write(fd, bytes(4096))
            os.fsync(fd)
        finally:
            os.close(fd)
            os.unlink("probe", dir_fd=self._directory)

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

    def _shard(self, key: bytes, *, make: bool) -> int:
        return self._subdirectory(key.hex()[:2], make=make)

    def _subdirectory(self, name: str, *, make: bool) -> int:
        try:
            return os.open(name, _DIRECTORY_FLAGS, dir_fd=self._directory)
        except FileNotFoundError:
            if not make:
                raise
        os.mkdir(name, 0o700, dir_fd=self._directory)
        return os.open(name, _DIRECTORY_FLAGS, dir_fd=self._directory)


def is_shard(name: str) -> bool:
    """Whether a name in ``content/`` is that of one of the 256 shard directories."""
    return len(name) == 2 and set(name) <= set("0123456789abcdef")


def empty_content(directory: int) -> Removed:
    """Remove the content of every object below ``content/``, whatever an index says of it.

    OSError where something cannot be removed.
    """
    removed = Removed()
    for name in os.listdir(directory):
        if is_shard(name) or name in ("trash", "probe"):
            _remove_entry(name, directory, removed, sys.maxsize)
    return removed


def empty_directory(directory: int, removed: Removed, most: int) -> bool:
    """Remove what lies in an open directory until ``removed`` counts ``most`` files, or as many
    bytes as so many files of a usual size have; True where nothing is left. OSError where something
    cannot be removed.
    """
    for name in os.listdir(directory):
        full = removed.files >= most or removed.bytes >= most * USUAL
        if full or not _remove_entry(name, directory, removed, most):
            return False
    return True


def _remove_entry(name: str, above: int, removed: Removed, most: int) -> bool:
    """A file, or a directory with all that is in it: links are removed and never followed."""
    try:
        found = os.stat(name, dir_fd=above, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=above)
            removed.files += 1
            removed.bytes += found.st_blocks * 512
            return True
        directory = os.open(name, _DIRECTORY_FLAGS, dir_fd=above)
        try:
            empty = empty_directory(directory, removed, most)
        finally:
            os.close(directory)
        if empty:
            os.rmdir(name, dir_fd=above)
    except FileNotFoundError:  # somebody else removed it
        return True
    return empty


def _unique(name: str) -> str:
    """A name that nothing in ``trash/`` has: a folder cannot be moved onto another one."""
    return f"{name[:200]}-{os.urandom(8).hex()}"


def _open_file(name: str, shard: int) -> tuple[int, bool]:
    try:
        return os.open(name, os.O_RDWR | _FLAGS, dir_fd=shard), True
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return os.open(name, os.O_RDONLY | _FLAGS, dir_fd=shard), False
