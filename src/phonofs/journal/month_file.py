"""The file of a month: appends lines, with space reserved ahead, and reads its last line.

Nothing here waits for anything but the disk. Used by ``writer.py``.
"""

import ctypes
import errno
import os
from pathlib import Path

RESERVE_BYTES = 16 << 20
"""Space that is reserved ahead: 30,000 opens, so that a full disk is known while there is room."""

FALLOC_FL_KEEP_SIZE = 1  # linux/falloc.h
NO_RESERVE = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""What a file system answers that cannot reserve space, as NFS 3 and ZFS."""

TAIL_BYTES = 65536  # read at a time when looking for the last line


class MonthFile:
    """A file that is open for appending.

    path   where it is
    month  ``YYYY-MM``
    size   its length in bytes
    """

    def __init__(self, path: Path) -> None:
        """Open it; create it if it is not there. Raises OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self.path = path
        self.month = path.stem
        self._descriptor = os.open(path, flags, 0o600)
        self.size = os.fstat(self._descriptor).st_size
        self._reserved = self.size

    @property
    def reserve_bytes(self) -> int:
        """Bytes that can still be written whatever else fills the disk."""
        return max(0, self._reserved - self.size)

    def append(self, data: bytes) -> None:
        """Append bytes with one write, all of them or, as far as the disk lets us, none.

        Raises OSError.
        """
        written = os.write(self._descriptor, data)
        if written < len(data):
            # On a file that may only be appended to (chattr +a), they stay, as a torn line.
            os.ftruncate(self._descriptor, self.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.size += written

    def reserve(self) -> None:
        """Reserve space ahead once half of it is used up. Raises OSError if the disk is full."""
        if self.reserve_bytes > RESERVE_BYTES // 2:
            return
        size = self.size  # which may grow meanwhile
        try:
            _reserve(self._descriptor, size, RESERVE_BYTES)
        except OSError as error:
            if error.errno not in NO_RESERVE:
                raise
            return
        self._reserved = size + RESERVE_BYTES

    def last_line(self) -> tuple[bytes, bool]:
        """Return the last line without its line end, and whether it has one. Raises OSError."""
        start, tail = self.size, b""
        while start > 0 and b"\n" not in tail[:-1]:
            start = max(0, start - TAIL_BYTES)
            tail = os.pread(self._descriptor, self.size - start, start)
        return tail.removesuffix(b"\n").rpartition(b"\n")[2], tail.endswith(b"\n")

    def sync(self) -> None:
        """Wait until all of it is on disk. Raises OSError."""
        os.fdatasync(self._descriptor)

    def give_back(self) -> None:
        """Give the reserved space back, if the file system lets us."""
        try:
            os.ftruncate(self._descriptor, self.size)  # frees what lies behind the end of a file
        except OSError:  # as on a file that may only be appended to
            return
        self._reserved = self.size

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)


def _reserve(descriptor: int, offset: int, length: int) -> None:
    """Allocate disk blocks without changing the file's size (fallocate(2)). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "fallocate64", None) or libc.fallocate
    where = ctypes.c_int64(offset), ctypes.c_int64(length)
    if call(descriptor, FALLOC_FL_KEEP_SIZE, *where) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
