"""Reads files: the interface for the file system.

Runs on the event loop. ``open``, ``read_now`` and ``release`` are synchronous; ``read`` waits for
nothing but the bytes it was asked for, and never longer than the read deadline. Downloads run in
the nursery of ``run``, not in that of the caller.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from math import inf
from random import SystemRandom
from typing import Any

import trio

from phonofs.cache.blockfile import View
from phonofs.cache.cache import Cache
from phonofs.cache.stored_blocks import StoredRange
from phonofs.errors import Gone, Unavailable
from phonofs.model import Record
from phonofs.reader.context import Key, ReaderContext, content_key
from phonofs.reader.directory_readahead import HOLD_S, DirectoryReadahead, PrefetchedFiles, Siblings
from phonofs.reader.limits import LINGER_S, MIB, MOST_LINGERING, Limits
from phonofs.reader.memory import Memory
from phonofs.reader.open_object import Handle, OpenObject
from phonofs.service.client import Client

NO_SCAN = -1
"""The pid of a reader whose files are not read in the order of a directory: nothing is fetched
ahead for it."""


def _nobody(
    ino: int, n: int, *, by_inode: bool = False, pid: int = 0
) -> Sequence[tuple[int, Record]]:
    return ()


class Reader:
    """Gives the bytes of open files; owns the open objects.

    contents   one per content that is open, lingers, or is prefetched. Invariant: the cache entry
               of each is pinned until the open object is dropped
    failed     those that can give nothing more, until they are closed
    lingering  contents nobody has open, and when they are dropped, oldest first

    ``on_size(ino, size)`` is called if the real length differs from the known one;
    ``on_wrong(ino)`` if bytes given so far turned out to be wrong: the kernel must forget them.
    Both are called on the event loop, possibly inside a read of that inode.
    """

    def __init__(
        self,
        service: Client,
        cache: Cache,
        limits: Limits | None = None,
        *,
        siblings: Siblings = _nobody,
        on_size: Callable[[int, int], None] = lambda ino, size: None,
        on_wrong: Callable[[int], None] = lambda ino: None,
        draw: Callable[[], float] | None = None,
    ) -> None:
        self._cache = cache
        self._limits = limits = limits or Limits()
        self._contents: dict[Key, OpenObject] = {}
        self._failed: set[OpenObject] = set()
        self._lingering: dict[OpenObject, float] = {}
        self._nursery: trio.Nursery | None = None
        self._wake = trio.Event()
        self._due = inf
        self._context = ReaderContext(
            service=service, limits=limits,
            draw=draw or SystemRandom().random,
            spawn=self._spawn,
            on_size=on_size,
            on_wrong=on_wrong,
            memory=Memory(limits.memory_bytes),
        )  # fmt: skip
        ahead = min(64 * MIB, limits.cache_bytes // 4) or limits.memory_bytes // 2
        self._directory_readahead = DirectoryReadahead(
            siblings, most_files=2 * limits.background, most_bytes=ahead
        )
        self._prefetched = PrefetchedFiles(self._content, self._idle, ahead)

    # life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run downloads, and drop what lingered long enough, until cancelled.

        Then nothing is downloaded any more, and the cache entries of all but open files are
        released.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                while True:
                    self._wake = trio.Event()
                    self._due = self._expire(trio.current_time())
                    with trio.move_on_at(self._due):
                        await self._wake.wait()
        finally:
            self._nursery = None
            self._lingering.clear()
            self._prefetched.expire(inf)
            for content in [*self._contents.values(), *self._failed]:
                self._idle(content)  # those that are open stay, for when it runs again

    def _spawn(self, task: Callable[..., Any], *args: object) -> None:
        if self._nursery is None:
            raise Unavailable("phonofs is not reading now")
        try:
            self._nursery.start_soon(task, *args)
        except RuntimeError as error:  # its last task has just ended
            raise Unavailable("phonofs is not reading now") from error

    # files

    def open(self, record: Record, ino: int, *, pid: int = 0) -> Handle:
        """Open a file. Nothing is asked of the service before the first read.

        ``pid`` is the process that opens it, if that is known, or NO_SCAN. Directory read-ahead
        goes by the order of files, whichever processes read them (``xargs -P``); a pid only lets
        it begin sooner.
        """
        content = self._content(record, ino)
        try:
            handle = content.open(ino, pid)
        except BaseException:
            self._idle(content)
            raise
        self._prefetched.drop(content)
        self._lingering.pop(content, None)
        return handle

    def read_now(self, handle: Handle, offset: int, size: int) -> bytes | None:
        """Return the bytes if that needs no waiting, else None: then call :meth:`read`."""
        data = self.lend_now(handle, offset, size)
        return bytes(data) if data is not None else None

    def lend_now(self, handle: Handle, offset: int, size: int) -> View | None:
        """Like :meth:`read_now`, but a view is valid only until the next call for any file."""
        content = handle.content
        if not size or offset >= content.size:
            return None if content.withholds(offset, offset + size) else b""
        n = self._lendable(handle, offset, size)
        data = content.entry.lend_now(offset, n) if n else None
        if data is not None:
            self._lent(handle, offset, n)
        return data

    def lend_stored(self, handle: Handle, offset: int, size: int) -> StoredRange | None:
        """Like :meth:`lend_now`, of bytes that can be sent from the file; None at its end, too."""
        n = self._lendable(handle, offset, size) if offset < handle.content.size else 0
        stored = handle.content.entry.lend_stored(offset, n) if n else None
        if stored is not None:
            self._lent(handle, offset, n)
        return stored

    @staticmethod
    def _lendable(handle: Handle, offset: int, size: int) -> int:
        """Note a read before the end; return how many bytes to look for now, 0 if none may be."""
        content = handle.content
        stop = min(offset + size, content.size)
        handle.note_read(offset, stop)
        if content.withholds(offset, offset + size) or handle.wrong is not None:
            return 0
        return stop - offset

    def _lent(self, handle: Handle, offset: int, count: int) -> None:
        self._context.counts.hits += 1
        self._given(handle, offset, count)

    def peek(self, handle: Handle, offset: int, size: int) -> bytes | None:
        """Return verified bytes for the kernel's page cache; not counted as a read.

        None if they are not there, if that needs waiting, or while the content is not verified.
        """
        content = handle.content
        stop = min(offset + size, content.size)
        if offset >= stop or content.withholds(offset, offset + size) or handle.wrong is not None:
            return None
        if not content.verification.sure:
            return None
        return content.entry.read_now(offset, stop - offset)

    async def read(self, handle: Handle, offset: int, size: int) -> bytes:
        """Return exactly ``min(size, handle.size - offset)`` bytes.

        Raises errors of the service; :class:`Unavailable` at the read deadline; ``Corrupt``
        if the content, or what this handle was given before, is wrong.
        """
        return bytes(await self.lend(handle, offset, size))

    async def lend(self, handle: Handle, offset: int, size: int) -> View:
        """Like :meth:`read`, but a view is valid only until the caller waits for anything."""
        deadline = trio.current_time() + self._limits.read_deadline_s
        ticket = object()
        self._context.counts.waiters += 1
        try:
            with trio.move_on_at(deadline):
                return await self._read(handle, offset, size, deadline, ticket)
        finally:
            self._context.counts.waiters -= 1
            handle.content.unneed(ticket)
        raise self._late(handle, offset)

    async def _read(
        self, handle: Handle, offset: int, size: int, deadline: float, ticket: object
    ) -> View:
        content = handle.content
        waited = False
        handle.window.note(offset, max(offset, min(offset + size, content.size)))
        while True:
            self._usable(handle)
            stop = min(offset + size, content.size)
            content.need(ticket, offset, max(offset, stop))
            if content.verification.withholds(offset, offset + size):
                await content.await_verified(handle, deadline)
            elif content.length.withholds(offset + size):
                await content.await_length(handle, deadline)
            elif offset >= stop and not content.open_end(stop):
                return b""
            elif (coming := content.cover(handle, offset, stop)) is not None:
                waited = True
                if offset == 0 and stop == content.size and not handle.finished:
                    self._context.best_effort(content.record, self._all_requested, handle)
                await coming[0].until(coming[1], deadline)
            elif (download := content.open_end(stop)) is not None:
                await download.over.wait()
            elif (data := await self._from_entry(content, offset, stop)) is not None:
                self._count(waited)
                self._given(handle, offset, len(data))
                return data

    @staticmethod
    def _usable(handle: Handle) -> None:
        error = handle.wrong or handle.content.failure
        if error is not None:
            raise error.with_traceback(None)

    async def _from_entry(self, content: OpenObject, offset: int, stop: int) -> View | None:
        lent = content.entry.lend_now(offset, stop - offset)
        if lent is not None:
            return lent
        failures = content.verification.failures
        data = await content.entry.read(offset, stop - offset)
        changed = failures != content.verification.failures or content.withholds(offset, stop)
        return None if changed else data

    def _given(self, handle: Handle, offset: int, count: int) -> None:
        """Account for bytes that are being given, and read ahead."""
        content = handle.content
        self._context.counts.served_bytes += count
        handle.note_given(count)
        content.give(handle, offset, offset + count)
        if handle.finish(offset + count):
            self._context.best_effort(content.record, self._file_finished, handle)

    @property
    def misses(self) -> int:
        """How many reads have waited for a download and got their bytes."""
        return self._context.counts.misses

    def _count(self, waited: bool) -> None:
        if waited:
            self._context.counts.misses += 1
        else:
            self._context.counts.hits += 1

    def _late(self, handle: Handle, offset: int) -> Unavailable:
        content = handle.content
        late = Unavailable(
            f"object {content.record.id}: bytes at {offset} did not come within "
            f"{self._limits.read_deadline_s:g} s"
        )
        late.__cause__ = content.trouble
        return late

    def release(self, handle: Handle) -> None:
        """Close a file; closing it again does nothing. Its downloads end after a while."""
        content = handle.content
        if content.close(handle):
            self._idle(content)

    def withdraw(self, region: str, object_id: str, *, but: str = "") -> None:
        """The service removed or changed an object: its open handles get no more bytes.

        The content with the fingerprint ``but`` is the new one, and stays.
        """
        for key, content in list(self._contents.items()):
            if key[:2] == (region, object_id) and key[2] != but:
                content.fail(Gone(f"object {object_id} was taken away or changed"))
                self._prefetched.drop(content)
                self._lingering.pop(content, None)
                self._idle(content)

    # ahead

    def listed(self, pid: int, firsts: Collection[int]) -> None:
        """A process listed a folder; ``firsts`` are its first files, by name and by inode.

        If it reads one of them to its end, it will probably read all files of the folder.
        """
        self._directory_readahead.listed(pid, firsts, trio.current_time())

    def _all_requested(self, handle: Handle) -> None:
        """All of a file is asked for at once, so it will be read to its end: prefetch the next."""
        if handle.pid == NO_SCAN:
            return
        now = trio.current_time()
        record = handle.content.record
        files = self._directory_readahead.begun(handle.ino, record, now, pid=handle.pid)
        self._prefetch(files, now)

    def _file_finished(self, handle: Handle) -> None:
        if handle.pid == NO_SCAN:
            return
        now = trio.current_time()
        content = handle.content
        files = self._directory_readahead.finished(
            handle.ino, content.record, now, pid=handle.pid, cached=not content.answered
        )
        if files:  # opening them may read from the cache, into the buffer that is lent just now
            self._spawn(self._prefetch_after, content.record, files, now)

    async def _prefetch_after(
        self, record: Record, files: Sequence[tuple[int, Record]], now: float
    ) -> None:
        """Prefetch files once the read that finished the one of ``record`` was answered."""
        self._context.best_effort(record, self._prefetch, files, now)

    def _prefetch(self, files: Sequence[tuple[int, Record]], now: float) -> None:
        for ino, other in files:
            if content_key(other) not in self._contents and self._prefetched.bring(other, ino, now):
                self._context.counts.ahead_files += 1
        if files:
            self._wake_by(now + HOLD_S)

    async def bring(self, record: Record, ino: int) -> None:
        """Download a file that nobody reads, once, with requests that go after all others.

        It is then in the cache, or in memory for a while. Raises errors of the service.
        """
        content = self._content(record, ino)
        content.hold()
        try:
            content.prefetch(content.size, last=True)
            for download in list(content.downloads):
                await download.over.wait()
                if download.error is not None:
                    raise download.error.with_traceback(None)
        finally:
            content.unhold()
            self._idle(content)

    # contents

    def _content(self, record: Record, ino: int) -> OpenObject:
        key = content_key(record)
        content = self._contents.get(key)
        if content is not None and content.failure is None:
            return content
        if content is not None:
            self._failed.add(content)
        entry = self._cache.entry(record)
        content = entry.attachment if isinstance(entry.attachment, OpenObject) else None
        if content is None or not content.reopen(record, ino):
            try:
                content = OpenObject(record, ino, entry, self._context, self._close_if_idle)
            except BaseException:
                self._cache.release(entry)
                raise
        self._contents[key] = content
        try:
            if content.size != record.size:
                self._context.notify(self._context.on_size, ino, content.size)
            if content.entry.complete and content.size > 0:
                content.verification.completed()
        except BaseException:
            self._idle(content)
            raise
        return content

    def _idle(self, content: OpenObject) -> None:
        """If nobody has it open any more, it lingers, unless all of it is on disk anyway."""
        if content.used:
            return
        kept = content.entry.complete and not content.entry.in_memory
        if content.failure is None and not kept and self._nursery is not None:
            content.unqueue()
            self._lingering[content] = trio.current_time() + LINGER_S
            self._limit_lingering()
            self._wake_by(self._lingering.get(content, inf))
        self._close_if_idle(content)

    def _limit_lingering(self) -> None:
        """If too many linger, or too much memory is held, drop the oldest."""
        held = [
            content.entry.present.total() for content in self._lingering if content.entry.in_memory
        ]
        excess = sum(held) - self._limits.memory_bytes
        while len(self._lingering) > MOST_LINGERING or excess > 0:
            oldest = next(iter(self._lingering))
            excess -= oldest.entry.present.total() if oldest.entry.in_memory else 0
            self._end(oldest)

    def _wake_by(self, due: float) -> None:
        """Something expires at ``due``: :meth:`run` must not sleep longer."""
        if due < self._due:
            self._wake.set()

    def _expire(self, now: float) -> float:
        """Drop what lingered long enough; return when the next one is due."""
        for content in [content for content, until in self._lingering.items() if until <= now]:
            self._end(content)
        due = self._prefetched.expire(now)
        return min([due, *self._lingering.values()])

    def _end(self, content: OpenObject) -> None:
        self._lingering.pop(content, None)
        content.quit()
        self._close_if_idle(content)

    def _close_if_idle(self, content: OpenObject) -> None:
        if not (content.used or content.busy or content in self._lingering):
            self._drop(content)

    def _drop(self, content: OpenObject) -> None:
        key = content_key(content.record)
        if self._contents.get(key) is content:
            del self._contents[key]
        elif content in self._failed:
            self._failed.remove(content)
        else:
            return
        self._context.memory.leave(content)
        if content.is_as_new:  # it need not be made anew then
            content.entry.attach(content)
        self._cache.release(content.entry)

    # status

    def busy(self) -> bool:
        """Whether anything is being downloaded or waited for."""
        return self._context.counts.waiters > 0 or any(
            content.busy for content in self._contents.values()
        )

    def statistics(self) -> dict[str, Any]:
        """Counts since the start (:class:`Counts`) and gauges of the present."""
        contents = [*self._contents.values(), *self._failed]
        downloads = [download for content in contents for download in content.downloads]
        ahead = [download.answered for download in downloads if not download.priority]
        return {
            **asdict(self._context.counts),
            **self._prefetched.statistics(),
            "verify": self._limits.verify,
            "differing": dict(self._context.differing),
            "streams": len(contents),
            "handles": sum(len(content.handles) for content in contents),
            "parts": len(downloads),
            "ahead": sum(ahead),
            "ahead_queued": len(ahead) - sum(ahead),
            "lingering": len(self._lingering),
        }
