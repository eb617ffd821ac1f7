"""Tells the kernel what changed, so that it may keep all else for long.

A notification can wait for a request in flight on the same folder or pages, which only the
event loop can answer: so all of them are made in a thread, never from a handler or the loop.
"""

import errno
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast

import pyfuse3
import trio

from phonofs.catalogue.store import Change

log = logging.getLogger(__name__)

MOST_STORES = 32
"""Blocks waiting to be stored: 4 MiB; what comes on top is dropped and read when asked for."""


class KernelNotifier:
    """A queue of changes and pages, and the task that passes them on. Owns the queue.

    Invariant: they reach the kernel in the order they came, so that pages of a content given
    before a change are forgotten with it.
    """

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Callable[[], None]](math.inf)

    def tell(self, changes: Sequence[Change]) -> None:
        """Queue changes; returns at once."""
        if changes:
            self._send.send_nowait(partial(_pass_on, changes))

    def store(self, ino: int, offset: int, data: bytes) -> None:
        """Queue bytes of a file for the kernel's page cache; dropped where it is behind."""
        if self._receive.statistics().current_buffer_used < MOST_STORES:
            self._send.send_nowait(partial(_store, ino, offset, data))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The task that passes them on; never ends."""
        task_status.started()
        async for work in self._receive:
            batch = [work]
            with suppress(trio.WouldBlock):  # a hop to a thread costs more than most of this
                while len(batch) < MOST_STORES:
                    batch.append(self._receive.receive_nowait())
            await trio.to_thread.run_sync(_work_off, batch, abandon_on_cancel=True)


def _work_off(batch: Sequence[Callable[[], None]]) -> None:
    for work in batch:
        try:
            work()
        except OSError as error:  # the others must reach the kernel all the same
            log.warning("the kernel did not take a notification: %s", error.strerror)


def _store(ino: int, offset: int, data: bytes) -> None:
    with _unless_unknown():
        pyfuse3.notify_store(cast(Any, ino), offset, data)


def _pass_on(changes: Sequence[Change]) -> None:
    folders: set[int] = set()
    for change in changes:
        for parent, name in change.entries:
            _invalidate_entry(parent, name)
        folders.update(change.folders)
        if change.content or change.kind == "removed":
            _invalidate_inode(change.ino, attr_only=False)
        elif change.kind == "changed":
            _invalidate_inode(change.ino, attr_only=True)
    for ino in folders:
        _invalidate_inode(ino, attr_only=True)


NOTHING_TO_FORGET = frozenset({errno.ENOENT, errno.ENOSYS, errno.ENOTCONN, errno.EBADF})
"""The kernel does not know the name or inode; or, before INIT and after the end, nothing."""


def _invalidate_entry(parent: int, name: str) -> None:
    with _unless_unknown():
        pyfuse3.invalidate_entry(cast(Any, parent), cast(Any, os.fsencode(name)))


def _invalidate_inode(ino: int, *, attr_only: bool) -> None:
    with _unless_unknown():
        pyfuse3.invalidate_inode(cast(Any, ino), attr_only)


@contextmanager
def _unless_unknown() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NOTHING_TO_FORGET:
            raise
