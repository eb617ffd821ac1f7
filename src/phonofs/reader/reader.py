"""Reading files: what the file system calls.

Runs on the event loop. ``open``, ``read_now`` and ``release`` are plain and cannot wait; ``read``
waits for nothing but the bytes it was asked for, and never longer than the read deadline. The
fetching belongs to ``run``'s nursery.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from math import inf
from random import SystemRandom
from typing import Any

import trio

from phonofs.cache.cache import Cache
from phonofs.errors import Gone, Unavailable
from phonofs.model import Record
from phonofs.reader.background_limit import BackgroundLimit
from phonofs.reader.context import Key, ReaderContext, content_key
from phonofs.reader.directory_readahead import HOLD_S, DirectoryReadahead, PrefetchedFiles, Siblings
from phonofs.reader.limits import LINGER_S, MIB, MOST_LINGERING, Limits
from phonofs.reader.memory import Memory
from phonofs.reader.open_object import Handle, OpenObject
from phonofs.service.client import Client


def _nobody(ino: int, n: int, *, by_inode: bool = False) -> Sequence[tuple[int, Record]]:
    return ()


class Reader:
    """Gives the bytes of open files; owns the streams.

    streams    one per content that is open, lingers, or is brought ahead. Invariant: the blob
               of each is pinned in the cache until the stream leaves
    failed     those that can give nothing more, until they are closed
    lingering  streams nobody has open, and when they end, oldest first

    ``on_size(ino, size)`` is called where the real length differs from the known one;
    ``on_wrong(ino)`` where bytes given so far turned out false: the kernel must forget them.
    Both are called on the event loop, outside of any handler of that inode's reads or inside.
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
        self._streams: dict[Key, OpenObject] = {}
        self._failed: set[OpenObject] = set()
        self._lingering: dict[OpenObject, float] = {}
        self._nursery: trio.Nursery | None = None
        self._stirred = trio.Event()
        self._due = inf
        self._context = ReaderContext(
            service=service, limits=limits,
            background_limit=BackgroundLimit(limits.background_limit),
            draw=draw or SystemRandom().random,
            spawn=self._spawn,
            on_size=on_size,
            on_wrong=on_wrong,
            sharers=self._sharers, memory=Memory(limits.memory_bytes),
        )  # fmt: skip
        ahead = min(64 * MIB, limits.cache_bytes // 4) or limits.memory_bytes // 2
        self._neighbours = DirectoryReadahead(
            siblings, most_files=2 * limits.background_limit, most_bytes=ahead
        )
        self._prefetched = PrefetchedFiles(self._stream, self._idle, ahead)

    # life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch, and close what lingered long enough, until cancelled.

        Then nothing is fetched any more, and the blobs of all but open files are given back.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                while True:
                    self._stirred = trio.Event()
                    self._due = self._expire(trio.current_time())
                    with trio.move_on_at(self._due):
                        await self._stirred.wait()
        finally:
            self._nursery = None
            self._lingering.clear()
            self._prefetched.expire(inf)
            for stream in [*self._streams.values(), *self._failed]:
                self._idle(stream)  # those that are open stay, for when it runs again

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

        ``pid`` is the process that opens it, where that is known. Neighbours go by the order of
        files, whichever processes read them (``xargs -P``); it only makes them come sooner.
        """
        stream = self._stream(record, ino)
        try:
            handle = Handle(stream, ino, pid)
            stream.handles.add(handle)
        except BaseException:
            self._idle(stream)
            raise
        self._prefetched.drop(stream)
        self._lingering.pop(stream, None)
        return handle

    def read_now(self, handle: Handle, offset: int, size: int) -> bytes | None:
        """The bytes that are there and need no waiting, else None: then ask :meth:`read`."""
        data = self.lend_now(handle, offset, size)
        return bytes(data) if data is not None else None

    def lend_now(self, handle: Handle, offset: int, size: int) -> bytes | memoryview | None:
        """The same; a view holds until the next call, whosever file that is for."""
        stream = handle.stream
        stop = min(offset + size, stream.size)
        if offset >= stop:
            return None if stream.withholds(offset + size) else b""
        if handle.window.note(offset, stop):
            handle.kick_at = 0
        if stream.withholds(offset + size) or handle.wrong is not None:
            return None
        data = stream.blob.lend_now(offset, stop - offset)
        if data is None:
            return None
        self._context.counts.hits += 1
        self._given(handle, offset, len(data))
        return data

    def peek(self, handle: Handle, offset: int, size: int) -> bytes | None:
        """Bytes beyond doubt that are there, for the kernel's page cache; not counted as read.

        None where they are not, where one would wait, or while the content is not checked.
        """
        stream = handle.stream
        stop = min(offset + size, stream.size)
        if offset >= stop or stream.withholds(offset + size) or handle.wrong is not None:
            return None
        if not stream.verification.sure:
            return None
        return stream.blob.read_now(offset, stop - offset)

    async def read(self, handle: Handle, offset: int, size: int) -> bytes:
        """Exactly ``min(size, handle.size - offset)`` bytes, or an error.

        Raises errors of the service; :class:`Unavailable` at the read deadline; ``Corrupt``
        where the content, or what this handle was given before, is wrong.
        """
        deadline = trio.current_time() + self._limits.read_deadline_s
        ticket = object()
        self._context.counts.waiters += 1
        try:
            with trio.move_on_at(deadline):
                return await self._read(handle, offset, size, deadline, ticket)
        finally:
            self._context.counts.waiters -= 1
            handle.stream.needs.pop(ticket, None)
        raise self._late(handle, offset)

    async def _read(
        self, handle: Handle, offset: int, size: int, deadline: float, ticket: object
    ) -> bytes:
        stream = handle.stream
        waited = False
        handle.window.note(offset, max(offset, min(offset + size, stream.size)))
        while True:
            self._usable(handle)
            stop = min(offset + size, stream.size)
            stream.needs[ticket] = offset, max(offset, stop)
            if stream.verification.gated:
                await stream.await_verified(handle, deadline)
            elif stream.length.withholds(offset + size):
                await stream.await_length(handle, deadline)
            elif offset >= stop and not stream.open_end(stop):
                return b""
            elif (coming := stream.cover(handle, offset, stop)) is not None:
                waited = True
                if offset == 0 and stop == stream.size and not handle.finished:
                    self._context.beside(stream.record, self._set_out, handle)
                await coming[0].until(coming[1], deadline)
            elif (download := stream.open_end(stop)) is not None:
                await download.over.wait()
            elif (data := await self._from_blob(stream, offset, stop)) is not None:
                self._count(waited)
                self._given(handle, offset, len(data))
                return data

    @staticmethod
    def _usable(handle: Handle) -> None:
        error = handle.wrong or handle.stream.failure
        if error is not None:
            raise error.with_traceback(None)

    async def _from_blob(self, stream: OpenObject, offset: int, stop: int) -> bytes | None:
        data = stream.blob.read_now(offset, stop - offset)
        if data is not None:
            return data
        failures = stream.verification.failures
        data = await stream.blob.read(offset, stop - offset)
        changed = failures != stream.verification.failures or stream.withholds(stop)
        return None if changed else data

    def _given(self, handle: Handle, offset: int, count: int) -> None:
        """Bookkeeping of what is being given. Lends nothing itself."""
        stream = handle.stream
        stop = offset + count
        self._context.counts.served_bytes += count
        self._context.memory.read(stream)
        if not stream.verification.sure:
            handle.seen.add(offset, stop)
            stream.verification.note_given()
        if handle.window.next >= handle.kick_at:
            self._context.beside(stream.record, stream.extend, handle)
        if (
            stop >= stream.size
            and not handle.finished
            and handle.window.sequential_bytes >= stream.size
        ):
            handle.finished = True
            self._context.beside(stream.record, self._look_ahead, handle)

    def _count(self, waited: bool) -> None:
        if waited:
            self._context.counts.misses += 1
        else:
            self._context.counts.hits += 1

    def _late(self, handle: Handle, offset: int) -> Unavailable:
        stream = handle.stream
        late = Unavailable(
            f"object {stream.record.id}: bytes at {offset} did not come within "
            f"{self._limits.read_deadline_s:g} s"
        )
        late.__cause__ = stream.trouble
        return late

    def release(self, handle: Handle) -> None:
        """Close a file; once more does nothing. What nobody waits for ends after a while."""
        stream = handle.stream
        if handle in stream.handles:
            stream.handles.discard(handle)
            self._idle(stream)

    def withdraw(self, region: str, object_id: str, *, but: str = "") -> None:
        """The service took an object away, or changed it: who has it open gets no more of it.

        Content with the fingerprint ``but`` is the new one, and goes on.
        """
        for key, stream in list(self._streams.items()):
            if key[:2] == (region, object_id) and key[2] != but:
                stream.fail(Gone(f"object {object_id} was taken away or changed"))
                self._prefetched.drop(stream)
                self._lingering.pop(stream, None)
                self._idle(stream)

    # ahead

    def listed(self, pid: int, firsts: Collection[int]) -> None:
        """A process listed a folder; ``firsts`` are the inodes of its first file in either order.

        Where it reads that file to its end, it is on its way through all of them.
        """
        self._neighbours.listed(pid, firsts, trio.current_time())

    def _set_out(self, handle: Handle) -> None:
        """All of a file is asked for at once, so it will be read to its end."""
        now = trio.current_time()
        record = handle.stream.record
        self._bring_ahead(self._neighbours.begun(handle.ino, record, now, pid=handle.pid), now)

    def _look_ahead(self, handle: Handle) -> None:
        now = trio.current_time()
        stream = handle.stream
        files = self._neighbours.finished(
            handle.ino, stream.record, now, pid=handle.pid, cached=not stream.answered
        )
        self._bring_ahead(files, now)

    def _bring_ahead(self, files: Sequence[tuple[int, Record]], now: float) -> None:
        for ino, other in files:
            if content_key(other) not in self._streams and self._prefetched.bring(other, ino, now):
                self._context.counts.ahead_files += 1
        if files:
            self._stir(now + HOLD_S)

    # streams

    def _stream(self, record: Record, ino: int) -> OpenObject:
        key = content_key(record)
        stream = self._streams.get(key)
        if stream is not None and stream.failure is None:
            return stream
        if stream is not None:
            self._failed.add(stream)
        blob = self._cache.blob(record)
        try:
            stream = OpenObject(record, ino, blob, self._context, self._close_if_idle)
        except BaseException:
            self._cache.release(blob)
            raise
        self._streams[key] = stream
        try:
            if stream.size != record.size:
                self._context.tell(self._context.on_size, ino, stream.size)
            if stream.blob.complete and stream.size > 0:
                stream.verification.completed()
        except BaseException:
            self._idle(stream)
            raise
        return stream

    def _sharers(self) -> int:
        return sum(len(stream.handles) for stream in self._streams.values() if stream.downloads)

    def _idle(self, stream: OpenObject) -> None:
        """Nobody has it open any more: it lingers, if there is anything to lose by that."""
        if stream.used:
            return
        kept = stream.blob.complete and not stream.blob.in_memory
        if stream.failure is None and not kept and self._nursery is not None:
            stream.unqueue()
            self._lingering[stream] = trio.current_time() + LINGER_S
            self._thin_out()
            self._stir(self._lingering.get(stream, inf))
        self._close_if_idle(stream)

    def _thin_out(self) -> None:
        """Of too many that linger, or too much in memory, the oldest go at once."""
        held = [stream.blob.present.total() for stream in self._lingering if stream.blob.in_memory]
        excess = sum(held) - self._limits.memory_bytes
        while len(self._lingering) > MOST_LINGERING or excess > 0:
            oldest = next(iter(self._lingering))
            excess -= oldest.blob.present.total() if oldest.blob.in_memory else 0
            self._end(oldest)

    def _stir(self, due: float) -> None:
        """Something has to end at ``due``: see to it that :meth:`run` does not sleep longer."""
        if due < self._due:
            self._stirred.set()

    def _expire(self, now: float) -> float:
        """End what lingered long enough; when the next is due."""
        for stream in [stream for stream, until in self._lingering.items() if until <= now]:
            self._end(stream)
        due = self._prefetched.expire(now)
        return min([due, *self._lingering.values()])

    def _end(self, stream: OpenObject) -> None:
        self._lingering.pop(stream, None)
        stream.quit()
        self._close_if_idle(stream)

    def _close_if_idle(self, stream: OpenObject) -> None:
        if not (stream.used or stream.busy or stream in self._lingering):
            self._drop(stream)

    def _drop(self, stream: OpenObject) -> None:
        key = content_key(stream.record)
        if self._streams.get(key) is stream:
            del self._streams[key]
        elif stream in self._failed:
            self._failed.remove(stream)
        else:
            return
        self._context.memory.leave(stream)
        self._cache.release(stream.blob)

    # status

    def busy(self) -> bool:
        """Whether anything is on its way or waited for."""
        return self._context.counts.waiters > 0 or any(
            stream.busy for stream in self._streams.values()
        )

    def statistics(self) -> dict[str, Any]:
        """Counts since the start (:class:`Counts`) and gauges of now; all but rates in units."""
        streams = [*self._streams.values(), *self._failed]
        return {
            **asdict(self._context.counts),
            **self._context.background_limit.statistics(),
            **self._prefetched.statistics(),
            "verify": self._limits.verify,
            "differing": dict(self._context.differing),
            "streams": len(streams),
            "handles": sum(len(stream.handles) for stream in streams),
            "parts": sum(len(stream.downloads) for stream in streams),
            "lingering": len(self._lingering),
        }
