"""Tells the kernel what changed, so that it may keep all else for long.

A notification can wait for a request in flight on the same folder or pages, which only the
event loop can answer: so all of them are made in a thread, never from a handler or the loop.
"""

import errno
import logging
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, cast

import pyfuse3
import trio

from phonofs.catalogue.catalogue import ChangeSet

log = logging.getLogger(__name__)

MOST_STORED = 4 << 20
"""Bytes waiting to be stored; what comes on top is refused, and read when it is asked for."""

MOST_AT_ONCE = 32
"""Notifications handed to a thread together."""


class Stored(NamedTuple):
    """Bytes of a file for the kernel's page cache."""

    ino: int
    offset: int
    data: bytes

    def pass_on(self) -> None:
        """In a thread."""
        with _on_its_own():
            pyfuse3.notify_store(cast(Any, self.ino), self.offset, self.data)


class TreeChanged(NamedTuple):
    """Changes of the tree."""

    changes: ChangeSet

    def pass_on(self) -> None:
        """In a thread."""
        _pass_on(self.changes)


class Forgotten(NamedTuple):
    """Names and inodes of which the kernel keeps nothing."""

    entries: Sequence[tuple[int, str]]
    inodes: Collection[int]

    def pass_on(self) -> None:
        """In a thread."""
        for parent, name in self.entries:
            _invalidate_entry(parent, name)
        for ino in self.inodes:
            _invalidate_inode(ino, attr_only=False)


_Work = Stored | TreeChanged | Forgotten


class KernelCache:
    """A queue of changes and pages, and the task that passes them on. Owns the queue.

    Invariant: they reach the kernel in the order they came, so that pages of a content given
    before a change are forgotten with it. ``_bytes`` is what waits to be stored, ``_open`` counts
    the handles of each inode. New sizes have
    a queue of their own: a read waits until the kernel knows (``_untold``), and to forget pages
    may itself wait for a read.
    """

    def __init__(self) -> None:
        self._bytes = 0
        self._open = Counter[int]()
        self._sizes_in, self._sizes = trio.open_memory_channel[int](math.inf)
        self._untold: dict[int, trio.Event] = {}
        self._being_told: dict[int, trio.Event] = {}
        self._send, self._receive = trio.open_memory_channel[_Work](math.inf)

    def tell(self, changes: ChangeSet) -> None:
        """Queue changes; returns at once."""
        if changes:
            self._send.send_nowait(TreeChanged(changes))

    def opened(self, ino: int) -> None:
        """Note that a file or folder was opened: the kernel may have pages of it in use."""
        self._open[ino] += 1

    def released(self, ino: int) -> None:
        """Note that a file or folder was released."""
        self._open[ino] -= 1
        if self._open[ino] <= 0:
            del self._open[ino]

    def forget(self, entries: Sequence[tuple[int, str]]) -> None:
        """Have the kernel drop names with all that is below them, and attributes and pages of
        what is open; returns at once.
        """
        self._send.send_nowait(Forgotten(entries, list(self._open)))

    def tell_size(self, ino: int) -> None:
        """Queue that a file has another size: its attributes are forgotten, its pages are not.

        The kernel drops the pages itself once it learns a size that it did not expect.
        """
        if ino not in self._untold:
            self._untold[ino] = trio.Event()
            self._sizes_in.send_nowait(ino)

    async def told(self, ino: int) -> None:
        """Wait until the kernel was told of every new size of this file so far."""
        while (event := self._untold.get(ino, self._being_told.get(ino))) is not None:
            await event.wait()

    def store(self, ino: int, offset: int, data: bytes) -> bool:
        """Queue bytes of a file for the kernel's page cache; False where it is behind."""
        if self._bytes >= MOST_STORED:
            return False
        self._bytes += len(data)
        self._send.send_nowait(Stored(ino, offset, data))
        return True

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The task that passes them on; never ends."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_sizes)
            task_status.started()
            await self._work()

    async def _tell_sizes(self) -> None:
        async for ino in self._sizes:
            event = self._being_told[ino] = self._untold.pop(ino)  # a newer one is told once more
            try:
                await trio.to_thread.run_sync(_forget_size, ino, abandon_on_cancel=True)
            finally:
                del self._being_told[ino]
                event.set()

    async def _work(self) -> None:
        async for work in self._receive:
            batch = [work]
            with suppress(trio.WouldBlock):  # a hop to a thread costs more than most of this
                while len(batch) < MOST_AT_ONCE:
                    batch.append(self._receive.receive_nowait())
            try:
                await trio.to_thread.run_sync(_work_off, batch, abandon_on_cancel=True)
            finally:
                self._bytes -= sum(len(work.data) for work in batch if isinstance(work, Stored))


def _forget_size(ino: int) -> None:
    """In a thread."""
    with _on_its_own():
        _invalidate_inode(ino, attr_only=True)


def _work_off(batch: Sequence[_Work]) -> None:
    for work in batch:
        work.pass_on()


def _pass_on(changes: ChangeSet) -> None:
    for change in changes.objects:
        for parent, name in change.entries:
            _invalidate_entry(parent, name)
        if change.content or change.kind == "removed":
            _invalidate_inode(change.ino, attr_only=False)
        elif change.kind == "changed":
            _invalidate_inode(change.ino, attr_only=True)
    for ino, names in changes.directories.items():
        for name in names:
            _invalidate_entry(ino, name)
        _invalidate_inode(ino, attr_only=True)


NOTHING_TO_FORGET = frozenset({errno.ENOENT, errno.ENOSYS, errno.ENOTCONN, errno.EBADF})
"""The kernel does not know the name or inode; or, before INIT and after the end, nothing."""


def _invalidate_entry(parent: int, name: str) -> None:
    with _on_its_own():
        # UTF-8, as readdir has it, whatever encoding the locale has for file names
        pyfuse3.invalidate_entry(cast(Any, parent), cast(Any, name.encode()))


def _invalidate_inode(ino: int, *, attr_only: bool) -> None:
    with _on_its_own():
        pyfuse3.invalidate_inode(cast(Any, ino), attr_only)


@contextmanager
def _on_its_own() -> Iterator[None]:
    """Around one notification: whatever it fails of, the others must reach the kernel."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOTHING_TO_FORGET:
            log.warning("the kernel did not take a notification: %s", error.strerror)
    except Exception:
        log.exception("a notification failed through a fault of phonofs")
