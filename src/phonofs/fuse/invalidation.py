"""Tells the kernel what changed, so that it may cache everything else for long.

A notification can wait for a request in flight on the same directory or pages, which only the
event loop can answer. So all notifications are sent from a thread, never from a handler or the
event loop. A thread that waits in the kernel cannot be killed: a process that is killed then would
never end, and its mount would hang. So names of the date tree are told of once the lookups in their
directory are answered: the kernel holds the directory locked until then.
"""

import errno
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, cast

import pyfuse3
import trio

from phonofs.catalogue.catalogue import CREATED, ChangeSet
from phonofs.views.places import VIEW_BIT

log = logging.getLogger(__name__)

MOST_STORED = 4 << 20
"""Bytes that may wait to be stored. More are refused; the kernel reads them when it needs them."""

MOST_AT_ONCE = 32
"""Notifications that one call into a thread sends."""


class Stored(NamedTuple):
    """Bytes of a file for the kernel's page cache."""

    ino: int
    offset: int
    data: bytes

    @property
    def directories(self) -> Collection[int]:
        """The directories of which names are told."""
        return ()

    def pass_on(self) -> None:
        """Send the notification. To be called in a thread."""
        with _on_its_own():
            pyfuse3.notify_store(cast(Any, self.ino), self.offset, self.data)


class TreeChanged(NamedTuple):
    """Changes of the tree."""

    changes: ChangeSet

    @property
    def directories(self) -> Collection[int]:
        """The directories of which names are told."""
        objects = {parent for each in self.changes.objects for parent, _ in each.entries}
        return objects.union(ino for ino, names in self.changes.directories.items() if names)

    def pass_on(self) -> None:
        """Send the notifications. To be called in a thread."""
        _pass_on(self.changes)


class Forgotten(NamedTuple):
    """Names and inodes of which the kernel must drop everything."""

    entries: Sequence[tuple[int, str]]
    inodes: Collection[int]

    @property
    def directories(self) -> Collection[int]:
        """The directories of which names are told."""
        return {parent for parent, _ in self.entries}

    def pass_on(self) -> None:
        """Send the notifications. To be called in a thread."""
        for parent, name in self.entries:
            _invalidate_entry(parent, name)
        for ino in self.inodes:
            _invalidate_inode(ino, attr_only=False)


_Work = Stored | TreeChanged | Forgotten


class KernelCache:
    """A queue of changes and pages, and the task that sends them to the kernel. Owns the queue.

    Invariant: they reach the kernel in the order in which they were queued, so that a change
    also drops the pages that were stored before it. ``_bytes`` counts the bytes that wait to be
    stored, ``_open`` the handles of each inode. New sizes have a queue of their own
    (``_untold``): reads wait until the kernel was told them, while dropping pages may itself
    wait for a read. ``_lookups`` has those that are in flight, by directory. ``changes`` counts how
    often something that was there before has changed or gone: an earlier listing has outdated
    attributes then.
    """

    def __init__(self) -> None:
        self.changes = 0
        self._bytes = 0
        self._open = Counter[int]()
        self._lookups = defaultdict[int, set[trio.Event]](set)
        self._sizes_in, self._sizes = trio.open_memory_channel[int](math.inf)
        self._untold: dict[int, trio.Event] = {}
        self._being_told: dict[int, trio.Event] = {}
        self._send, self._receive = trio.open_memory_channel[_Work](math.inf)

    def tell(self, changes: ChangeSet) -> None:
        """Queue changes; return at once."""
        self.changes += any(change.kind != CREATED for change in changes.objects)
        if changes:
            self._send.send_nowait(TreeChanged(changes))

    @contextmanager
    def looking_up(self, directory: int) -> Iterator[None]:
        """Note that the kernel waits for the answer to a lookup, and has the directory locked."""
        answered, lookups = trio.Event(), self._lookups[directory]
        lookups.add(answered)
        try:
            yield
        finally:
            lookups.remove(answered)
            if not lookups:
                del self._lookups[directory]
            answered.set()

    def opened(self, ino: int) -> None:
        """Note that a file or directory was opened: the kernel may have pages of it in use."""
        self._open[ino] += 1

    def released(self, ino: int) -> None:
        """Note that a file or directory was released."""
        self._open[ino] -= 1
        if self._open[ino] <= 0:
            del self._open[ino]

    def forget(self, entries: Sequence[tuple[int, str]]) -> None:
        """Let the kernel drop names with everything below them, and the attributes and pages of
        everything that is open; return at once.
        """
        self._send.send_nowait(Forgotten(entries, list(self._open)))

    def tell_size(self, ino: int) -> None:
        """Queue a new size of a file: the kernel drops the attributes, of a text the pages too.

        It drops the pages itself when it learns a size that it did not expect, but a moment later:
        a page of the former content would be filled with zeros up to a larger size. Those of other
        files are left to it, since dropping them may wait for a read.
        """
        self.changes += 1
        if ino not in self._untold:
            self._untold[ino] = trio.Event()
            self._sizes_in.send_nowait(ino)

    async def told(self, ino: int) -> None:
        """Wait until the kernel was told every size of this file that was queued so far."""
        while (event := self._untold.get(ino, self._being_told.get(ino))) is not None:
            await event.wait()

    def store(self, ino: int, offset: int, data: bytes) -> bool:
        """Queue bytes of a file for the page cache; return False if too many are waiting."""
        if self._bytes >= MOST_STORED:
            return False
        self._bytes += len(data)
        self._send.send_nowait(Stored(ino, offset, data))
        return True

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send what is queued, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_sizes)
            task_status.started()
            await self._work()

    async def _tell_sizes(self) -> None:
        async for ino in self._sizes:
            some = [ino]
            with suppress(trio.WouldBlock):
                while len(some) < MOST_AT_ONCE:
                    some.append(self._sizes.receive_nowait())
            for each in some:
                self._being_told[each] = self._untold.pop(each)  # a newer size is sent again
            try:
                await trio.to_thread.run_sync(_forget_sizes, some, abandon_on_cancel=True)
            finally:
                for each in some:
                    self._being_told.pop(each).set()

    async def _work(self) -> None:
        async for work in self._receive:
            batch = [work]
            with suppress(trio.WouldBlock):  # a call into a thread costs more than most of these
                while len(batch) < MOST_AT_ONCE:
                    batch.append(self._receive.receive_nowait())
            try:
                await self._lookups_answered(batch)
                await trio.to_thread.run_sync(_work_off, batch, abandon_on_cancel=True)
            finally:
                self._bytes -= sum(len(work.data) for work in batch if isinstance(work, Stored))

    async def _lookups_answered(self, batch: Sequence[_Work]) -> None:
        """Wait for the lookups that are in flight in the directories of a batch; not for later ones
        that overlap with them, which could go on for ever.
        """
        if self._lookups:
            directories = {directory for work in batch for directory in work.directories}
            lookups = [each for some in directories for each in self._lookups.get(some, ())]
            for answered in lookups:
                await answered.wait()


def _forget_sizes(inos: Sequence[int]) -> None:
    """Let the kernel drop the attributes of files, and the pages of texts. Called in a thread."""
    for ino in inos:
        with _on_its_own():
            _invalidate_inode(ino, attr_only=ino < VIEW_BIT)


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
"""The kernel does not know the name or inode, or there is no connection (yet or any more)."""


def _invalidate_entry(parent: int, name: str) -> None:
    with _on_its_own():
        # UTF-8 like in readdir, whatever encoding the locale sets for file names
        pyfuse3.invalidate_entry(cast(Any, parent), cast(Any, name.encode()))


def _invalidate_inode(ino: int, *, attr_only: bool) -> None:
    with _on_its_own():
        pyfuse3.invalidate_inode(cast(Any, ino), attr_only)


@contextmanager
def _on_its_own() -> Iterator[None]:
    """Log any error of one notification, because the others must still reach the kernel."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOTHING_TO_FORGET:
            log.warning("the kernel did not take a notification: %s", error.strerror)
    except Exception:
        log.exception("a notification failed through a fault of phonofs")
