"""Whether a range of a file is in the kernel's page cache, so that reading it does not wait.

By cachestat(2), which Linux has since 6.5: exactly the kernels that send a file's pages to a unix
socket without a copy (``MSG_SPLICE_PAGES``). Python and glibc 2.36 have no function for it.
"""

import ctypes
import os

from phonofs.buffers import PAGE

SYSCALL = 451  # cachestat, on all architectures but alpha (asm-generic/unistd.h)

_syscall = ctypes.CDLL(None, use_errno=True).syscall


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Counts(ctypes.Structure):
    """``struct cachestat``; the pages that are being read ahead are in ``cached``, too."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    )


_counts, _byte = _Counts(), bytearray(1)


def is_resident(fd: int, offset: int, size: int) -> bool:
    """Return whether all pages of a range can be read without waiting for the disk.

    False also if the kernel cannot say, or does not let us ask. Not safe for threads.
    """
    asked = _Range(offset, size)
    if _syscall(SYSCALL, fd, ctypes.byref(asked), ctypes.byref(_counts), 0):
        return False
    if _counts.cached < -(-(offset + size) // PAGE) - offset // PAGE:
        return False
    try:  # its last page comes last, if the range is just being read ahead
        return os.preadv(fd, [_byte], offset + size - 1, os.RWF_NOWAIT) == 1
    except OSError:
        return False
