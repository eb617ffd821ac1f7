"""Threads that hash the blocks of objects as they come. Owned by the backend; used by entries.

There are no more threads than processors, and each hashes for several objects in turns. A thread
for each object would have to be started while the event loop is busy with receiving, and starting
a thread waits until it runs: 5 to 9 ms then.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

import trio

from phonofs.buffers import page_aligned
from phonofs.cache.blockfile import BlockFile
from phonofs.cache.blocks import BLOCK
from phonofs.cache.checked_read import Outcome, Source, pass_blocks

MOST_THREADS = 4
"""Each takes 2 MiB; three of them keep up with what one event loop receives."""

AT_ONCE = 16
"""Blocks hashed at a time, if so many wait: 2 MiB. Between two calls the thread needs Python's
lock, and waits for it, and then for a processor, while the event loop is busy: with 1 MiB at a
time, a cold file of 32 MiB takes 2 % longer."""

FIRST_S = 0.3
LINGER_S = 0.1
"""How long an object that is hashed waits for its first blocks, and for the next ones."""


class HashJob:
    """The hashing of one object, from one block on, in order. Made by :class:`HashThreads`.

    over  set once everything that was passed on was hashed, after :meth:`end`
    """

    def __init__(self, thread: "_Thread", hashed: Callable[[memoryview], None]) -> None:
        self.over = trio.Event()
        self._thread = thread
        self._hashed = hashed
        self._token = trio.lowlevel.current_trio_token()
        self._passed = 0
        self._ended = False
        self._outcome = Outcome()
        self._error: Exception | None = None

    def pass_on(self, file: BlockFile | None, sources: list[Source]) -> None:
        """Have blocks hashed: those after the last ones, and the file they are in."""
        self._passed += len(sources)
        self._thread.queue.put((self, file, sources))

    def end(self) -> None:
        """Nothing more comes."""
        if not self._ended:
            self._ended = True
            self._thread.queue.put((self, None, []))

    async def rest(self) -> None:
        """Wait until it was ended, or nothing has come for a while."""
        seen, wait_s = -1, FIRST_S
        while seen < self._passed and not self.over.is_set():
            seen = self._passed
            with trio.move_on_after(wait_s):
                await self.over.wait()
            wait_s = LINGER_S

    async def outcome(self) -> Outcome:
        """End it, and wait until no thread uses the blocks any more. Raises MemoryError."""
        self.end()
        with trio.CancelScope(shield=True):
            await self.over.wait()
        self._thread.jobs.discard(self)
        if self._error is not None:
            raise self._error
        return self._outcome

    def work(self, file: BlockFile | None, sources: list[Source], buffer: memoryview) -> None:
        """Hash blocks, in a thread; without any it is over."""
        if not sources:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self.over.set)
        elif self._error is None and not self._outcome.bad:
            try:
                pass_blocks(file, sources, self._hashed, self._outcome, buffer)
            except Exception as error:  # noqa: BLE001 - it belongs to the object, not to the thread
                self._error = error


Piece = tuple[HashJob, BlockFile | None, list[Source]]


class _Thread:
    """A thread, the jobs it has, and the queue of their pieces.

    ``_taken`` has the piece that was taken from the queue and is not to be hashed yet, if any.
    """

    def __init__(self) -> None:
        self.jobs: set[HashJob] = set()
        self.queue: SimpleQueue[Piece | None] = SimpleQueue()
        self._taken: list[Piece | None] = []
        self._buffer = page_aligned(AT_ONCE * BLOCK)
        threading.Thread(target=self._run, name="phonofs hash", daemon=True).start()

    def _run(self) -> None:
        while (piece := self._next()) is not None:
            job, file, sources = piece
            job.work(file, sources, self._buffer)
            del job, file, sources, piece  # or the last object would be kept while none is hashed

    def _next(self) -> Piece | None:
        """Wait for a piece; return it with those that came right behind it, of the same file."""
        piece = self._taken.pop() if self._taken else self.queue.get()
        if piece is None:
            return None
        job, file, sources = piece
        with contextlib.suppress(Empty):
            while sources and len(sources) < AT_ONCE:
                more = self.queue.get_nowait()
                if more is None or more[:2] != (job, file) or not more[2]:
                    self._taken.append(more)
                    break
                sources = sources + more[2]
        return job, file, sources


class HashThreads:
    """The threads; one is started if all others have something to hash."""

    def __init__(self) -> None:
        self._threads: list[_Thread] = []

    def begin(self, hashed: Callable[[memoryview], None]) -> HashJob:
        """Begin to hash one object; ``hashed`` is called in a thread with its bytes.

        Raises RuntimeError if no thread can be started, and MemoryError.
        """
        thread = min(self._threads, key=lambda thread: len(thread.jobs), default=None)
        most = min(MOST_THREADS, len(os.sched_getaffinity(0)))
        if thread is None or (thread.jobs and len(self._threads) < most):
            thread = _Thread()
            self._threads.append(thread)
        job = HashJob(thread, hashed)
        thread.jobs.add(job)
        return job

    def close(self) -> None:
        """End the threads once they have done what they have."""
        for thread in self._threads:
            thread.queue.put(None)
        self._threads.clear()
