"""Prepares pages for the catalogue in a separate process, if that is worthwhile.

Python runs on one processor; a walk through a year, or a day of 10,000 objects, has work for two.
The process is started when many records are expected, and stopped when it was idle for a while.
If there is no process (not started yet, stopped, or only one processor), the caller prepares the
page: more slowly, with the same result.
"""

import fcntl
import logging
import math
import os
import subprocess
import sys
from collections import deque
from contextlib import suppress

import msgspec
import trio

from phonofs.catalogue.prepared_page import PreparedPage
from phonofs.catalogue.types import TreeOptions
from phonofs.discovery.page_worker_main import LENGTH, message
from phonofs.errors import unwrap

log = logging.getLogger(__name__)

MANY = 500
"""Expected records that justify a process, which takes 150 ms to start and 24 MB of memory."""

BUSY_PAGES = 10
"""So many pages within ``BUSY_S`` justify it too: a walk through many small days."""

BUSY_S = 1.0

IDLE_S = 20.0
"""The process is stopped after being idle for this long."""

PATIENCE_S = 15.0
"""The process counts as stuck after this time: a page takes 3 ms, and 30 may be before it."""

REST_S = 60.0
"""After the process failed, it is not started again for this long."""

LARGEST = 1 << 20
"""The most bytes of a page that the process is given: ten times the usual page."""

_PIPE_BYTES = 1 << 20


class PageWorker:
    """Owns the process, and where the answer to each of its unanswered pages goes, in order.

    pid  of the process; None if there is none
    """

    def __init__(self, options: TreeOptions) -> None:
        self.pid: int | None = None
        self._options = options
        self._wanted = trio.Event()
        self._waiting: deque[trio.MemorySendChannel[PreparedPage | None]] = deque()
        self._jobs: trio.MemorySendChannel[bytes] | None = None
        self._scope = trio.CancelScope()
        self._idle = trio.CancelScope()
        self._not_before_s = -math.inf
        self._counted_from_s = -math.inf
        self._counted = 0

    def expect(self, records: int) -> None:
        """Start the process if this many records justify it and it did not fail lately."""
        if records >= MANY and self.pid is None and trio.current_time() >= self._not_before_s:
            self._wanted.set()

    async def prepared(self, body: bytes, region: str, index: int) -> PreparedPage | None:
        """Have the process prepare a page, the body of a search response.

        ``index`` is the region's index in inode numbers. Return None if there is no process, if
        it fails, or if the page is so odd that something has to be reported.
        """
        if self._jobs is None:
            self._count_one()
            return None
        if len(body) > LARGEST:
            return None
        send, receive = trio.open_memory_channel[PreparedPage | None](1)
        self._waiting.append(send)
        self._used()
        self._jobs.send_nowait(message((body, region, index)))
        with trio.move_on_after(PATIENCE_S) as patience, suppress(trio.EndOfChannel):
            return await receive.receive()
        if patience.cancelled_caught:
            self._scope.cancel()
        return None

    def _count_one(self) -> None:
        """Count a page that the caller has to prepare; start the process for many of them."""
        now_s = trio.current_time()
        if now_s - self._counted_from_s > BUSY_S:
            self._counted_from_s, self._counted = now_s, 0
        self._counted += 1
        if self._counted >= BUSY_PAGES:
            self.expect(MANY)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the process whenever it is wanted, until cancelled."""
        task_status.started()
        while sys.executable and len(os.sched_getaffinity(0)) > 1:
            await self._wanted.wait()
            try:
                with trio.CancelScope() as self._scope:
                    await self._have()
                if self._scope.cancelled_caught:
                    log.warning("the process that reads pages was stuck; it was ended")
            except* (OSError, trio.BrokenResourceError, msgspec.MsgspecError) as group:
                log.warning("the process that reads pages broke: %s", unwrap(group))
            finally:
                self._ended()

    def _ended(self) -> None:
        """Reset the state; the tasks that wait prepare their pages themselves."""
        self._wanted = trio.Event()
        self._jobs = self.pid = None
        self._idle = trio.CancelScope()
        while self._waiting:
            self._waiting.popleft().close()

    async def _have(self) -> None:
        """Start the process, exchange messages until it is idle, and kill it.

        Its environment has none of our settings: it gets no key and no secret.
        """
        self._not_before_s = trio.current_time() + REST_S  # reset below if it does not fail
        process = await trio.lowlevel.open_process(
            [sys.executable, "-P", "-m", "phonofs.discovery.page_worker_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if "PHONOFS" not in name},
            start_new_session=True,
        )
        self.pid = process.pid
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            _widen(process)
            send, receive = trio.open_memory_channel[bytes](math.inf)
            send.send_nowait(message(self._options))
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
        """Give each answer to the task that waits for it; the first says the process is ready."""
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
                self._waiting.popleft().send_nowait(prepared)


async def _write(stream: trio.abc.SendStream, jobs: trio.MemoryReceiveChannel[bytes]) -> None:
    async for job in jobs:
        await stream.send_all(job)


def _stop(buffer: bytearray) -> int:
    """Return the offset where the first message of a buffer ends."""
    size: int = LENGTH.unpack_from(buffer)[0]
    return LENGTH.size + size


def _widen(process: trio.Process) -> None:
    """Enlarge the pipes to hold whole pages, unless the user's limit for pipes is reached."""
    for stream in (process.stdin, process.stdout):
        if isinstance(stream, trio.lowlevel.FdStream):
            with suppress(OSError):
                fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
