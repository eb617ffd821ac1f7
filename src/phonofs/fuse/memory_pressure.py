"""Has the mount outlast a want of memory: a reserve, and pyfuse3's workers begun again.

A worker that gets no buffer for the next request, 1 MiB, raises ENOMEM, and that would end the
loop, every handler in flight and the mount. Nothing was taken from the kernel then, so it begins
again a little later (pyfuse3 3.5, ``_session_loop``; libfuse 3.14, fuse_session_receive_buf_int).
"""

import contextlib
import errno
import functools
import mmap
from collections.abc import Awaitable, Callable
from typing import Any

import pyfuse3
import trio

RESERVE_BYTES = 32 << 20
"""Address space alone, no page of it is ever touched. It has to do for what is under way: 16
connections of 1 MiB, a block for each read, a thread's stack or two of 8 MiB."""

PAUSE_S = 0.5
"""Every try in vain leaves one more worker waiting, a few KB: it must not be many a second."""

Loop = Callable[..., Awaitable[None]]


class MemoryReserve:
    """Owns the reserve: given up at the first sign of a shortage, so that what is under way ends
    well; while it is gone, workers begin one at a time.
    """

    def __init__(self) -> None:
        self._reserve: mmap.mmap | None = None
        self._turn = trio.Lock()
        self._refill()

    def begun(self) -> None:
        """Something got no memory."""
        if self._reserve is not None:
            self._reserve.close()
            self._reserve = None

    def _refill(self) -> bool:
        """Whether the reserve is there, or could be had again, with as much to spare."""
        if self._reserve is None:
            with contextlib.suppress(OSError, MemoryError):
                mmap.mmap(-1, 2 * RESERVE_BYTES).close()
                self._reserve = mmap.mmap(-1, RESERVE_BYTES)
        return self._reserve is not None

    def outlasting(self, loop: Loop) -> Loop:
        """The same worker, begun again where there was no memory."""

        @functools.wraps(loop)
        async def worker(*args: Any) -> None:
            while True:
                if not self._refill():
                    async with self._turn:
                        await trio.sleep(PAUSE_S)
                try:
                    return await loop(*args)
                except OSError as error:
                    if error.errno != errno.ENOMEM:
                        raise
                    self.begun()

        return worker


def outlast(shortage: MemoryReserve) -> None:
    """Have the workers of this process do so; another pyfuse3 may not have them by that name."""
    loop = getattr(pyfuse3, "_session_loop", None)
    if loop is not None:
        pyfuse3._session_loop = shortage.outlasting(loop)  # type: ignore[attr-defined]
