"""How long a content is: what says so, what proves it, and what a reader is given meanwhile.

A record, a header and the end of a connection *say* a length. It is *proved* by a checksum over
the whole, or by two answers that came complete, one of them the whole asked for without a range,
and state the same one. The record and the answers agree as a rule, and nothing is asked beyond
that. Where they differ, or the record says 0 of a content that is not nothing:

- up to ``CHECKED_FIRST`` with a checksum: nothing is given before the whole has it (``proof``);
- with a multipart checksum: it is tried with parts of the usual sizes, and a match proves all;
- otherwise the whole is asked for once more, without a range, and counted. Until then nothing
  near either end is given, and nobody is told another length than the record's.

An end that the answer itself does not show (RFC 9112, 8) says nothing at all.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from phonofs.checksum import of_nothing, part_sizes
from phonofs.errors import (
    Corrupt,
    Malformed,
    ServiceError,
    Unavailable,
    Untrusted,
    forget_frames,
)
from phonofs.model import Record
from phonofs.reader.limits import CHECKED_FIRST, MALFORMED_TRIES, SLACK, SMALL, backoff_s

if TYPE_CHECKING:
    from phonofs.reader.interfaces import Body
    from phonofs.reader.open_object import Handle, OpenObject

log = logging.getLogger(__name__)


def is_empty(record: Record) -> bool:
    """Whether the record proves that the content has no byte: it has the checksum of nothing."""
    return of_nothing(record.checksum)


class Length:
    """What is known of the length of one stream's content.

    stated   what the answers so far say, where they say it; they agree, or it is another version
    counted  what a whole answer had that was received to its end
    running  whether it is being asked for
    """

    def __init__(self, stream: "OpenObject") -> None:
        self._stream = stream
        self.stated: int | None = None
        self.counted: int | None = None
        self.running = False
        self._disproved = False
        self._parts_tried = 0
        self._error: Exception | None = None
        self._patience = float("-inf")
        self._over = trio.Event()

    @property
    def unknown(self) -> bool:
        """Whether the record says 0, no answer said anything yet, and no checksum proves it."""
        stream = self._stream
        return (
            stream.record.size == 0 == stream.size
            and self.stated is None
            and not stream.verification.sure
            and not is_empty(stream.record)
        )

    @property
    def doubtful(self) -> bool:
        """Whether the answers say another length than the record, and nothing proves it yet."""
        stream = self._stream
        return (
            stream.size != stream.record.size
            and self.counted != stream.size
            and not stream.verification.sure
        )

    def withholds(self, stop: int) -> bool:
        """Whether bytes up to ``stop`` are not to be given before the length is settled."""
        size, said = self._stream.size, self._stream.record.size
        if size == said:
            return size == 0 and self.unknown
        return stop > min(said, size) - SLACK and self.doubtful

    def state(self, total: int) -> None:
        """An answer says how long the content is."""
        self.stated = total

    def restart(self) -> None:
        """Forget what the answers said, but not that a whole one had the record's length."""
        self.stated = None
        if self.counted != self._stream.record.size:
            self.counted = None

    async def settle(self, handle: "Handle", deadline: float) -> None:
        """Wait until something was found out; the caller looks again afterwards.

        Raises why it could not be.
        """
        stream, work = self._stream, self._ask if self.unknown else self._count
        if not self.running:
            if not self.unknown and self._may_have_parts():
                on_its_way = stream.cover(handle, 0, stream.size)
                if on_its_way is not None:
                    await on_its_way[0].until(on_its_way[1], deadline)
                    return
                work = self._try_parts
            self._error = None
            self._over = trio.Event()
            self._patience = deadline
            stream.context.spawn(self._run, work)
            self.running = True
        self._patience = max(self._patience, deadline)
        over = self._over
        await over.wait()
        if self._error is not None:
            raise self._error.with_traceback(None)

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        stream = self._stream
        try:
            await self._insist(work)
        except ServiceError as error:
            self._error = error
        except Exception as error:
            log.exception("object %s: a fault of phonofs while reading", stream.record.id)
            self._error = error
        finally:
            self.running = False
            self._over.set()
            stream.task_ended()

    async def _insist(self, work: Callable[[], Awaitable[None]]) -> None:
        """Try again while a reader waits, the file is open, and a new try may succeed."""
        stream, failures = self._stream, 0
        while stream.failure is None:
            try:
                await work()
                return
            except (Unavailable, Malformed) as error:
                failures += 1
                stream.trouble = forget_frames(error)
                stream.context.counts.failures += 1
                pause_s = backoff_s(failures, stream.context.draw())
                if isinstance(error, Unavailable):
                    pause_s = max(pause_s, error.retry_after_s or 0.0)
                malformed = isinstance(error, Malformed) and failures >= MALFORMED_TRIES
                late = self._patience < trio.current_time() + pause_s
                unused = not stream.used
                if malformed or late or unused or isinstance(error, Untrusted):
                    raise
            await trio.sleep(pause_s)

    async def _ask(self) -> None:
        """Ask for the first bytes, to see which length the answer states."""
        stream = self._stream
        service, record = stream.context.service, stream.record
        async with service.content(record, 0, SMALL, urgent=True) as body:
            total = body.total
            if total is None and body.stop is None:
                total = await self._counted(body)
        if total is None:  # a part of nobody says how much
            async with service.whole_content(record, urgent=True) as body:
                total = await self._counted(body)
        if total is None:
            raise Malformed(f"object {stream.record.id}: no answer says how long it is")
        stream.measure(total)

    def _may_have_parts(self) -> bool:
        """Whether the whole may be proved by a multipart checksum: that costs no second fetch."""
        stream = self._stream
        small = stream.size <= (SMALL if stream.blob.in_memory else CHECKED_FIRST)
        untried = self._parts_tried != stream.size and not stream.loose
        return small and untried and bool(part_sizes(stream.record.checksum, stream.size))

    async def _try_parts(self) -> None:
        stream, self._parts_tried = self._stream, self._stream.size
        if await stream.blob.check_parts():
            stream.settled()

    async def _count(self) -> None:
        """Receive the whole, asked for without a range, and compare its length."""
        stream = self._stream
        record, size = stream.record, stream.size
        async with stream.context.service.whole_content(record, urgent=True) as body:
            count = await self._counted(body)
        if stream.failure is not None or stream.size != size or stream.verification.sure:
            return
        said = f"object {record.id}: its record says {record.size} bytes, the service {size}"
        if count is None:
            stream.fail(Corrupt(f"{said}, and the whole did not say that it was all"))
        elif count == size:
            self.counted = count
            stream.settled()
        elif count == record.size and not self._disproved:
            log.warning("%s, and the whole has %d", said, count)
            self._disproved, self.counted = True, count
            stream.restore()
        else:
            stream.fail(Corrupt(f"{said}, and the whole has {count}"))

    async def _counted(self, body: "Body") -> int | None:
        """The bytes of a whole body, received to its end; None where its end does not show.

        Raises Unavailable once nobody has the file open any more.
        """
        count = 0
        async for chunk in body:
            count += len(chunk)
            if not self._stream.used:
                raise Unavailable("nobody waits for it any more")
        if body.start:
            return None
        if body.total is not None:
            return count if count == body.total else None
        return count if body.framed else None
