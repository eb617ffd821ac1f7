"""Has pages made ready, by a process of their own where that pays.

Python runs on one processor; a walk through a year, or a day of 10,000, is work for two. The
process is begun when much is to come and ended when there was nothing for a while. Where there
is none (yet, any more, or only one processor), a page is made ready here: slower, never
otherwise.
"""

import fcntl
import logging
import math
import os
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

import msgspec
import trio

from phonofs.catalogue.placement import Placement
from phonofs.catalogue.prepared_page import PreparedPage, prepare
from phonofs.catalogue.types import View
from phonofs.discovery.page_worker_main import LENGTH, Job, message

log = logging.getLogger(__name__)

MANY = 500
"""Records to come that are worth a process: it takes 150 ms to begin, and 24 MB."""

IDLE_S = 20.0
"""How long it stays when there is nothing to do."""

PATIENCE_S = 15.0
"""How long a page may take; then it is stuck: a page takes 3 ms, and 30 may be before it."""

REST_S = 60.0
"""After it broke, it is not begun again for so long."""

LARGEST = 1 << 20
"""Bytes of a page that it is given: ten times the usual page."""

_PIPE_BYTES = 1 << 20


class PageWorker:
    """Makes pages ready here."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._placing = Placement(view)

    def expect(self, records: int) -> None:
        """So many records are about to come."""

    async def prepared(self, body: bytes, region: str, index: int) -> PreparedPage | None:
        """See :func:`prepared_page.prepare`; raises what it does."""
        return prepare(body, region, index, self._placing)


class _Wait:
    """A page that somebody waits for. Over without an answer: the process broke."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.answered = False
        self.prepared: PreparedPage | None = None


class HelpedPageWorker(PageWorker):
    """Owns the process while there is one, and the pages that it has not answered, in order."""

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._wanted = trio.Event()
        self._waiting: deque[_Wait] = deque()
        self._jobs: trio.MemorySendChannel[bytes] | None = None
        self._scope: trio.CancelScope | None = None
        self._idle = trio.CancelScope()
        self._not_before_s = -math.inf
        self.pid: int | None = None

    def expect(self, records: int) -> None:
        """Begin the process, if that many are worth it and it can be had."""
        if records >= MANY and self.pid is None and trio.current_time() >= self._not_before_s:
            self._wanted.set()

    async def prepared(self, body: bytes, region: str, index: int) -> PreparedPage | None:
        """As above, by the process if it is there."""
        if self._jobs is not None and len(body) <= LARGEST:
            wait = _Wait()
            self._waiting.append(wait)
            self._used()
            self._jobs.send_nowait(message(Job(body, region, index)))
            with trio.move_on_after(PATIENCE_S):
                await wait.over.wait()
            if wait.answered:
                return wait.prepared
            if self._scope is not None:
                self._scope.cancel()
        return await super().prepared(body, region, index)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Have the process whenever it is wanted, until cancelled."""
        task_status.started()
        while sys.executable and len(os.sched_getaffinity(0)) > 1:
            await self._wanted.wait()
            try:
                with trio.CancelScope() as self._scope:
                    await self._have()
                if self._scope.cancelled_caught:
                    log.warning("the process that reads pages was stuck; it was ended")
            except* (OSError, trio.BrokenResourceError, msgspec.MsgspecError) as group:
                log.warning("the process that reads pages broke: %s", group.exceptions[0])
            finally:
                self._ended()

    def _ended(self) -> None:
        """Whoever waits does it alone."""
        self._wanted = trio.Event()
        self._jobs = self._scope = self.pid = None
        self._idle = trio.CancelScope()
        while self._waiting:
            self._waiting.popleft().over.set()

    async def _have(self) -> None:
        """The process from its beginning to its end."""
        self._not_before_s = trio.current_time() + REST_S  # unless it ends well
        process = await trio.lowlevel.open_process(
            [sys.executable, "-P", "-m", "phonofs.discovery.page_worker_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_without_settings(os.environ),
            start_new_session=True,
        )
        self.pid = process.pid
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            _widen(process)
            send, receive = trio.open_memory_channel[bytes](math.inf)
            send.send_nowait(message(self._view))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_write, process.stdin, receive)
                nursery.start_soon(self._read, process.stdout, send)
                await self._until_idle()
                self._not_before_s = -math.inf
                nursery.cancel_scope.cancel()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await trio.aclose_forcefully(stream)

    async def _until_idle(self) -> None:
        with self._idle:
            self._used()
            await trio.sleep_forever()

    def _used(self) -> None:
        self._idle.deadline = trio.current_time() + IDLE_S

    async def _read(
        self, stream: trio.abc.ReceiveStream, jobs: trio.MemorySendChannel[bytes]
    ) -> None:
        """Give each answer to who waits for it; the first one says that the process is ready."""
        decoder = msgspec.msgpack.Decoder(PreparedPage | None)
        buffer = bytearray()
        while True:
            while len(buffer) < LENGTH.size or len(buffer) < _stop(buffer):
                some = await stream.receive_some(1 << 17)
                if not some:
                    raise trio.BrokenResourceError("it ended")
                buffer += some
            stop = _stop(buffer)
            prepared = decoder.decode(buffer[LENGTH.size : stop])
            del buffer[:stop]
            if self._jobs is None:
                self._jobs = jobs
            elif self._waiting:
                wait = self._waiting.popleft()
                wait.prepared, wait.answered = prepared, True
                wait.over.set()


async def _write(stream: trio.abc.SendStream, jobs: trio.MemoryReceiveChannel[bytes]) -> None:
    async for job in jobs:
        await stream.send_all(job)


def _stop(buffer: bytearray) -> int:
    """Where the message ends that begins a buffer."""
    size: int = LENGTH.unpack_from(buffer)[0]
    return LENGTH.size + size


def _widen(process: trio.Process) -> None:
    """Have whole pages fit into the pipes; an ordinary user may have only so many such."""
    for stream in (process.stdin, process.stdout):
        if isinstance(stream, trio.lowlevel.FdStream):
            with suppress(OSError):
                fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What a process needs that is told nothing of the account: no key, no secret."""
    return {name: value for name, value in environment.items() if "PHONOFS" not in name}
