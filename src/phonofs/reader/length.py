"""How long a content is: what states it, what proves it, and what is withheld until then.

A record, a header and the end of a connection *state* a length. It is *proved* by the checksum
of the whole, or by two complete responses that state the same length, one of them to a request
without a range. Usually the record and the responses agree, and nothing more is requested. If
they differ, or if the record states 0 without the checksum of an empty content:

- with a checksum, up to ``CHECKED_FIRST`` bytes: the verification withholds all bytes until the
  whole has its checksum;
- with a multipart checksum: it is tried with parts of the usual sizes, and a match proves it;
- otherwise the whole is requested once more, without a range, and counted. Until then no byte
  near either end is given, and the file system keeps the length of the record.

An end of body that the response itself does not show (RFC 9112, 8) proves nothing.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from phonofs.cache.entry import CacheEntry
from phonofs.checksum import multipart_sizes, of_nothing
from phonofs.errors import (
    Corrupt,
    Malformed,
    ServiceError,
    Unavailable,
)
from phonofs.model import Record
from phonofs.reader.context import ReaderContext
from phonofs.reader.limits import CHECKED_FIRST, SLACK, SMALL, backoff_s
from phonofs.service.content import Body

log = logging.getLogger(__name__)


def is_empty(record: Record) -> bool:
    """Whether the record proves that the content is empty: it has the checksum of no bytes."""
    return of_nothing(record.checksum)


class Measured(Protocol):
    """What is needed of an open object to find out its length, and what it is told of that."""

    @property
    def failure(self) -> ServiceError | None: ...  # noqa: D102
    @property
    def used(self) -> bool: ...  # noqa: D102
    @property
    def sure(self) -> bool: ...  # noqa: D102
    @property
    def open_ended(self) -> bool: ...  # noqa: D102

    def measure(self, total: int) -> None:
        """A response states the length."""

    def length_proved(self) -> None:
        """The length as it is known now is right."""

    def restore(self) -> None:
        """The length that was stated is wrong: begin again with that of the record."""

    def try_failed(self, error: ServiceError) -> None:
        """One request failed; there may be another one."""

    def fail(self, error: ServiceError) -> None:
        """The length cannot be found out."""

    def task_ended(self) -> None:
        """The task is over."""


class Length:
    """What is known of the length of one content.

    stated   the length that the responses so far state; they agree, or it is another version
    counted  the bytes of a whole response that was received to its end
    running  whether a task is finding it out
    """

    def __init__(
        self, record: Record, entry: CacheEntry, context: ReaderContext, content: Measured
    ) -> None:
        self._record = record
        self._entry = entry
        self._context = context
        self._content = content
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
        """Whether the record states 0, no response stated a length, and no checksum proves it."""
        return (
            self._record.size == 0 == self._entry.size
            and self.stated is None
            and not self._content.sure
            and not is_empty(self._record)
        )

    @property
    def doubtful(self) -> bool:
        """Whether the responses state another length than the record, and nothing proves it yet."""
        size = self._entry.size
        return size not in (self._record.size, self.counted) and not self._content.sure

    @property
    def provable_by_parts(self) -> bool:
        """Whether a multipart checksum may prove the whole, which costs no second fetch."""
        size = self._entry.size
        small = size <= (SMALL if self._entry.in_memory else CHECKED_FIRST)
        untried = self._parts_tried != size and not self._content.open_ended
        return (
            not self.unknown
            and small
            and untried
            and bool(multipart_sizes(self._record.checksum, size))
        )

    def withholds(self, stop: int) -> bool:
        """Whether bytes up to ``stop`` must not be given before the length is proved."""
        size, said = self._entry.size, self._record.size
        if size == said:
            return size == 0 and self.unknown
        return stop > min(said, size) - SLACK and self.doubtful

    def state(self, total: int) -> None:
        """A response states the length."""
        self.stated = total

    def restart(self) -> None:
        """Forget what the responses stated, but not that a whole one had the record's length."""
        self.stated = None
        if self.counted != self._record.size:
            self.counted = None

    async def settle(self, deadline: float) -> None:
        """Wait until something was found out; the caller looks again afterwards.

        If :attr:`provable_by_parts`, all bytes must be there. Raises why it failed.
        """
        if not self.running:
            self._error = None
            self._over = trio.Event()
            self._patience = deadline
            self._context.spawn(self._run, self._next_work())
            self.running = True
        self._patience = max(self._patience, deadline)
        over = self._over
        await over.wait()
        if self._error is not None:
            raise self._error.with_traceback(None)

    def _next_work(self) -> Callable[[], Awaitable[None]]:
        if self.unknown:
            return self._ask
        return self._try_parts if self.provable_by_parts else self._count

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await self._insist(work)
        except ServiceError as error:
            self._error = error
        except Exception as error:
            log.exception("object %s: a fault of phonofs while reading", self._record.id)
            self._error = error
        finally:
            self.running = False
            self._over.set()
            self._content.task_ended()

    async def _insist(self, work: Callable[[], Awaitable[None]]) -> None:
        """Retry while a read waits, the file is open, and another try may succeed."""
        content, failures = self._content, 0
        while content.failure is None:
            try:
                await work()
                return
            except (Unavailable, Malformed) as error:
                failures += 1
                content.try_failed(error)
                pause_s = backoff_s(error, failures, self._context.draw())
                if pause_s is None or not content.used:
                    raise
                if self._patience < trio.current_time() + pause_s:
                    raise
            await trio.sleep(pause_s)

    async def _ask(self) -> None:
        """Request the first bytes, to see which length the response states."""
        service, record = self._context.service, self._record
        async with service.content(record, 0, SMALL, urgent=True) as body:
            total = body.total
            if total is None and body.stop is None:
                total = await self._counted(body)
        if total is None:  # a range without a total
            async with service.whole_content(record, urgent=True) as body:
                total = await self._counted(body)
        if total is None:
            raise Malformed(f"object {record.id}: no answer says how long it is")
        self._content.measure(total)

    async def _try_parts(self) -> None:
        self._parts_tried = self._entry.size
        if await self._entry.check_parts():
            self._content.length_proved()

    async def _count(self) -> None:
        """Receive the whole, without a range, and compare its length."""
        content, record, size = self._content, self._record, self._entry.size
        async with self._context.service.whole_content(record, urgent=True) as body:
            count = await self._counted(body)
        if content.failure is not None or self._entry.size != size or content.sure:
            return
        said = f"object {record.id}: its record says {record.size} bytes, the service {size}"
        if count is None:
            content.fail(Corrupt(f"{said}, and the response did not show that it was complete"))
        elif count == size:
            self.counted = count
            content.length_proved()
        elif count == record.size and not self._disproved:
            log.warning("%s, and the whole has %d", said, count)
            self._disproved, self.counted = True, count
            content.restore()
        else:
            content.fail(Corrupt(f"{said}, and the whole has {count}"))

    async def _counted(self, body: Body) -> int | None:
        """Count the bytes of a whole body; None if its end does not show.

        Raises Unavailable once nobody has the file open any more.
        """
        count = 0
        async for chunk in body:
            count += len(chunk)
            if not self._content.used:
                raise Unavailable("nobody waits for it any more")
        if body.start:
            return None
        if body.total is not None:
            return count if count == body.total else None
        return count if body.framed else None
