"""Downloads one byte range, resuming after failures at the first missing byte.

The task runs in the reader's nursery, so that it outlives the read that started it.
"""

import logging
from contextlib import AbstractAsyncContextManager
from enum import Enum, auto
from heapq import heapify, heappop, heappush
from typing import Protocol

import trio

from phonofs.errors import (
    Changed,
    Malformed,
    ServiceError,
    Unavailable,
    forget_frames,
)
from phonofs.model import Record
from phonofs.priority import Priority
from phonofs.reader.context import ReaderContext
from phonofs.reader.limits import KIB, RUN_OUT, TURN_S, backoff_s
from phonofs.reader.readahead import Flow
from phonofs.service.content import Body

log = logging.getLogger(__name__)

Chunk = bytes | bytearray | memoryview
"""Bytes of a body; valid only until anything is waited for."""

WORTH = 128 * KIB
"""What the kernel asks for at a time: a download that gets less in a whole deadline is useless."""

AT_ONCE = 256 * KIB
"""A range up to this size that arrives in one piece gives its permit back before it is written."""


class Step(Enum):
    """What a download does after a chunk was written."""

    CONTINUE = auto()
    STOP = auto()
    COUNT_REST = auto()
    """Count what the body has beyond the length of the record."""


class Sink(Protocol):
    """What a download writes to: an open object, which plans the ranges and verifies the bytes."""

    @property
    def record(self) -> Record: ...  # noqa: D102

    def request(self, download: "Download") -> AbstractAsyncContextManager[Body]:
        """Request what the download still lacks."""
        ...

    def accept(self, download: "Download", body: Body) -> None:
        """Check the head of a response; raise if its body cannot be used."""

    def limit(self, download: "Download") -> int:
        """The offset up to which it may receive now; beyond, it waits for a reader."""
        ...

    def patience_s(self, download: "Download") -> float:
        """How long it waits there before it gives its connection up."""
        ...

    def line_limits(self, download: "Download", lead: int) -> None:
        """A reader waits for its bytes, and they come no faster over one connection.

        It brings ``lead`` bytes while another one becomes as fast as it is.
        """

    def write(self, download: "Download", chunk: Chunk) -> Step:
        """Store a chunk and move the download on."""
        ...

    def end_of_body(self, download: "Download", body: Body, surplus: int) -> None:
        """The body ended, with ``surplus`` bytes that were not written."""

    def try_failed(self, error: ServiceError) -> None:
        """One request failed; there may be another one."""

    def continue_with(self, error: Changed) -> bool:
        """Whether to go on although the response has another ETag."""
        ...

    def ended(self, download: "Download", *, done: bool) -> None:
        """The task is over; ``done`` if the download brought everything."""


class Download:
    """A download in progress: the bytes ``[head, stop)`` are still to come, in order.

    start     where it began
    head      the next byte; the sink writes bytes and then moves it
    stop      where the download ends; moves down only, unless it turns out to be ``whole``
    requested the ``stop`` of the present request; ``stop`` may be cut after it was sent
    priority  whether a reader waits for it, or did
    whole     its body began at 0, because the service gives no ranges
    runs_on   it has all that follows, as far as nobody else downloads that, until it is cut
    answered  whether its present request was answered
    paused    whether it waits for a reader to come nearer, or did so until it was given up
    dropped   how many responses it gave up before their end
    error     why it failed
    over      set once it ended
    Waiters are parked by the offset they need, nearest first. Invariant: a waiter needs more than
    ``head`` and no more than ``stop``, and nobody waits for a download that ended.
    """

    __slots__ = (
        "_moved",
        "_parked",
        "_tickets",
        "answered",
        "dropped",
        "ended",
        "error",
        "head",
        "over",
        "paused",
        "priority",
        "requested",
        "runs_on",
        "scope",
        "start",
        "stop",
        "whole",
    )  # fmt: skip

    def __init__(
        self,
        start: int,
        stop: int,
        priority: Priority,
        *,
        whole: bool = False,
        runs_on: bool = False,
    ) -> None:
        self.start = self.head = start
        self.stop = stop
        self.requested = stop
        self.priority = priority
        self.whole = whole
        self.runs_on = runs_on
        self.answered = False
        self.paused = False
        self.dropped = 0
        self.ended = False
        self.error: Exception | None = None
        self.scope = trio.CancelScope()
        self._moved = trio.Event()
        self.over = trio.Event()
        self._parked: list[tuple[int, int, trio.Event, float]] = []
        self._tickets = 0

    @property
    def waiting(self) -> int:
        """How many readers wait for its bytes."""
        return len(self._parked)

    @property
    def need(self) -> int:
        """The furthest offset that a reader waits for; ``head`` if nobody waits."""
        return max((waiter[0] for waiter in self._parked), default=self.head)

    @property
    def patience(self) -> float:
        """The latest deadline among the waiters; minus infinity if nobody waits."""
        return max((deadline for *_, deadline in self._parked), default=float("-inf"))

    # the plan

    def fail(self, error: Exception) -> None:
        """End it with an error, which its waiters get."""
        self.error = error
        self.scope.cancel()

    def cancel(self) -> None:
        """End its task; what came so far is kept."""
        self.scope.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether its task was told to end."""
        return self.scope.cancel_called

    def reader_advanced(self) -> None:
        """A reader came nearer: a paused download looks again."""
        self._moved.set()

    def advance(self, head: int) -> None:
        """Every byte before ``head`` is there: wake the waiters that needed no more."""
        self.head = head
        while self._parked and self._parked[0][0] <= head:
            heappop(self._parked)[2].set()

    def cut(self, stop: int) -> None:
        """End the download earlier; readers that wait for bytes behind ``stop`` plan again."""
        if stop >= self.stop:
            return
        self.stop = max(self.head, stop)
        self.runs_on = False
        beyond = [waiter for waiter in self._parked if waiter[0] > self.stop]
        if beyond:
            self._parked = [waiter for waiter in self._parked if waiter[0] <= self.stop]
            heapify(self._parked)
            for waiter in beyond:
                waiter[2].set()

    def restart(self, head: int, stop: int) -> None:
        """The body began at another offset than requested: all from there is downloaded."""
        self.start, self.head, self.stop, self.whole = head, head, stop, True

    def end(self) -> None:
        """Nothing more comes: wake the remaining waiters."""
        self.ended = True
        for waiter in self._parked:
            waiter[2].set()
        self._parked.clear()
        self._moved.set()
        self.over.set()

    # waiters

    async def until(self, need: int, deadline: float) -> None:
        """Wait until everything before ``need`` has arrived, or the download has ended.

        Raises the error that ended the download before that. ``deadline`` is the caller's own; it
        only says how long retries make sense.
        """
        if not self.ended and self.head < need <= self.stop:
            await self._park(need, deadline)
        if self.error is not None and self.head < need:
            raise self.error.with_traceback(None)

    async def _park(self, need: int, deadline: float) -> None:
        self._tickets += 1
        waiter = (need, self._tickets, trio.Event(), deadline)
        began = self.head
        heappush(self._parked, waiter)
        self._moved.set()
        try:
            await waiter[2].wait()
        finally:
            if not waiter[2].is_set():
                self._parked.remove(waiter)
                heapify(self._parked)
                if trio.current_time() >= deadline:
                    self._waited_in_vain(began)

    def _waited_in_vain(self, began: int) -> None:
        """A waiter's deadline has passed since ``head`` was at ``began``: request the rest anew.

        One connection may stay slow while others are not. What came is kept. A whole download
        would begin again at its first byte, so it goes on if it makes any progress.
        """
        if self.answered and not (self.whole and self.head - began >= WORTH):
            self.scope.cancel()

    # the task

    async def run(self, sink: Sink, context: ReaderContext) -> None:
        """Download the range; ends with it written, with ``error`` set, or cancelled."""
        done = False
        try:
            with self.scope:
                done = await self._bring(sink, context)
        except ServiceError as error:
            self.error = forget_frames(error)
        except Exception as error:
            log.exception("object %s: a fault of phonofs while reading", sink.record.id)
            self.error = forget_frames(error)
        finally:
            sink.ended(self, done=done)

    async def _bring(self, sink: Sink, context: ReaderContext) -> bool:
        failures = 0
        while self.head < self.stop:
            reached = self.head
            try:
                await self._request(sink, context)
                if self.head == reached < self.stop and not self.whole:
                    raise Malformed(f"object {sink.record.id}: the service sent an empty part")
            except (Unavailable, Malformed) as error:
                failures = 1 if self.head > reached else failures + 1
                sink.try_failed(error)
                await self._pause_after(error, failures, context)
            except Changed as error:
                if not sink.continue_with(error):
                    raise
        return True

    async def _pause_after(
        self, error: Unavailable | Malformed, failures: int, context: ReaderContext
    ) -> None:
        """Pause before the next try; raise the error if another try is pointless."""
        pause_s = backoff_s(error, failures, context.draw())
        if pause_s is None or self.patience < trio.current_time() + pause_s:
            raise error
        self.priority.rise()
        await trio.sleep(pause_s)

    async def _request(self, sink: Sink, context: ReaderContext) -> None:
        """Send one request and write its body; returns early if the range was cut."""
        self.answered = self.paused = False
        self.requested = self.stop
        async with sink.request(self) as body:
            await trio.lowlevel.checkpoint_if_cancelled()  # the response may be of a dropped try
            throughput = context.throughput(sink.record.region)
            throughput.answered(trio.current_time() - body.sent_at)
            self.answered = True
            sink.accept(self, body)
            if self.head >= self.stop:
                return  # another download brings it, or nobody needs it
            if not self.whole:
                body.permit.on_want(self.give_up)
            flow = Flow(throughput, trio.current_time())
            try:
                await self._receive(sink, context, body, flow)
            finally:
                body.permit.on_want(None)
                dropped = body.stop is not None and self.head < body.stop
                self.dropped += dropped
                flow.end(unwanted=dropped and self.paused)

    async def _receive(self, sink: Sink, context: ReaderContext, body: Body, flow: Flow) -> None:
        """Write the body, as far as readers want it; cut the range if they want no more of it."""
        began = self.head
        chunks = aiter(body)
        while True:
            room = sink.limit(self) - self.head
            if room <= 0:
                if not await self._reader_comes(sink, body, flow.grace_s):
                    self.cut(self.head)
                    return
                flow.resume(trio.current_time())
                continue
            body.allow(room)
            asked_at = trio.current_time()
            chunk = await anext(chunks, None)
            if chunk is None:
                break
            now = trio.current_time()
            if flow.received(len(chunk), now - asked_at, now) and self._parked:
                sink.line_limits(self, flow.lead)
            if self.head == began and self.stop - began <= len(chunk) <= AT_ONCE:
                chunk = bytes(chunk)
                await _let_others_send()
            wanted = self.stop - self.head
            step = sink.write(self, chunk)
            if step is Step.CONTINUE:
                if now - flow.began_at > TURN_S and body.permit.wanted and not self.whole:
                    self.give_up()
                continue
            if step is Step.COUNT_REST:
                surplus = await _count_rest(body, max(0, len(chunk) - wanted))
                sink.end_of_body(self, body, surplus)
            return
        sink.end_of_body(self, body, 0)

    async def _reader_comes(self, sink: Sink, body: Body, grace_s: float) -> bool:
        """Hold the connection until a reader comes nearer; False if none does in time.

        For ``grace_s`` it counts as busy.
        """
        self._moved = trio.Event()
        self.paused = True
        try:
            with trio.move_on_after(sink.patience_s(self)):
                with trio.move_on_after(grace_s):
                    await self._moved.wait()
                if not self._moved.is_set():
                    body.permit.on_want(self.give_up)  # anew: of paused ones, the first goes first
                    body.permit.pause()
                    await self._moved.wait()
                self.paused = False
        finally:
            body.permit.resume()
        return not self.paused

    def give_up(self) -> None:
        """Another request needs the connection more; whoever reads on asks anew."""
        if self.stop - self.head > RUN_OUT:
            self.cut(self.head)
            self.scope.cancel()


async def _count_rest(body: Body, surplus: int) -> int:
    """Count what comes beyond the record's length of a body that does not state its own.

    If its end does not show, one byte says as much as all of them would.
    """
    chunks = aiter(body)
    while body.framed or not surplus:
        chunk = await anext(chunks, None)
        if chunk is None:
            break
        surplus += len(chunk)
    return surplus


async def _let_others_send() -> None:
    """Let the next request out before what has come is hashed and written.

    Responses come in bursts: writing 14 of them first would delay the next 14 requests as long.
    The first checkpoint wakes the task that got the permit, the second one lets it go first.
    """
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
