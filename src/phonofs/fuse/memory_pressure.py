"""Keeps the mount alive if memory is short: a reserve, and workers of pyfuse3 that start again.

If a worker cannot allocate the buffer for the next request (1 MiB), it raises ENOMEM. That would
end the loop, every handler in flight and the mount. The worker has not taken a request from the
kernel then, so it can start again a little later (pyfuse3 3.5, ``_session_loop``; libfuse 3.14,
fuse_session_receive_buf_int).
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
"""Address space only: no page of it is ever touched. It must suffice for what is in progress: 16
connections of 1 MiB, a block for each read, one or two thread stacks of 8 MiB."""

PAUSE_S = 0.5
"""Pause before a worker starts again. Each failed attempt leaves one more worker waiting, which
takes a few KB, so there must not be many a second."""

Loop = Callable[..., Awaitable[None]]


class MemoryReserve:
    """Owns the reserve. It is given up at the first sign of a shortage, so that the handlers in
    flight can finish. While it is given up, workers start one at a time.
    """

    def __init__(self) -> None:
        self._reserve: mmap.mmap | None = None
        self._turn = trio.Lock()
        self._refill()

    def give_up(self) -> None:
        """Give up the reserve, because an allocation failed."""
        if self._reserve is not None:
            self._reserve.close()
            self._reserve = None

    def _refill(self) -> bool:
        """Take the reserve again if as much stays free beside it; return whether it is there."""
        if self._reserve is None:
            with contextlib.suppress(OSError, MemoryError):
                mmap.mmap(-1, 2 * RESERVE_BYTES).close()
                self._reserve = mmap.mmap(-1, RESERVE_BYTES)
        return self._reserve is not None

    def outlasting(self, loop: Loop) -> Loop:
        """Return a worker that starts ``loop`` again if that fails for lack of memory."""

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
                    self.give_up()

        return worker


def outlast(reserve: MemoryReserve) -> None:
    """Make pyfuse3's workers outlast a shortage, if this pyfuse3 has them under that name."""
    loop = getattr(pyfuse3, "_session_loop", None)
    if loop is not None:
        pyfuse3._session_loop = reserve.outlasting(loop)  # type: ignore[attr-defined]
