"""Keeps pure work from holding up the event loop. Used by the modules of this package."""

from collections.abc import Callable
from typing import TypeVar

import trio

AT_ONCE = 1000
"""Objects or files that are worked on at a stretch: 2 to 5 ms."""

_T = TypeVar("_T")


async def worked_out(work: Callable[[], _T], count: int) -> _T:
    """Return the result of pure work on so many objects or files; of many, in a thread."""
    if count <= AT_ONCE:
        return work()
    return await trio.to_thread.run_sync(work)
