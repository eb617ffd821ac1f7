"""Reads blocks for an entry in a thread: from its file, checked by CRC, or from its buffers.

A plan is made on the event loop and run in a thread; the entry applies its outcome on the event
loop.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from crc32c import crc32c

from phonofs.buffers import page_aligned
from phonofs.cache.blockfile import BlockFile

log = logging.getLogger(__name__)

STEP = 8
"""Blocks read from the file in one call: 1 MiB."""


class Source(NamedTuple):
    """Where to read block ``number``, the bytes ``[start, stop)`` of the object.

    ``place`` is the buffer with its bytes, or the open file. ``crc`` is the checksum of a block in
    the file.
    """

    number: int
    start: int
    stop: int
    place: BlockFile | memoryview | None
    crc: int | None


@dataclass(slots=True)
class Outcome:
    """The bytes that were read, which blocks passed their CRC, which did not, and the error.

    ``data`` is usable only if ``bad`` is empty. It is empty if the bytes were hashed.
    """

    data: bytes = b""
    good: list[int] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    failure: OSError | None = None


class ReadPlan:
    """Blocks to read, in order; their bytes are collected, or passed to ``hashed``."""

    def __init__(
        self, sources: list[Source], hashed: Callable[[memoryview], None] | None = None
    ) -> None:
        self._sources = sources
        self._hashed = hashed

    def run(self) -> Outcome:
        """Read and check all blocks; call it in a thread. Raises MemoryError."""
        outcome, parts = Outcome(), []
        at = 0
        while at < len(self._sources):
            run = self._run_at(at)
            data = self._read(run, outcome)
            if self._hashed is None:
                parts.append(bytes(data))
            elif not outcome.bad:
                self._hashed(data)
            at += len(run)
        outcome.data = b"".join(parts)
        return outcome

    def _run_at(self, at: int) -> list[Source]:
        """Return the sources from ``at`` on that one call reads: adjacent blocks of one file."""
        first = self._sources[at]
        if isinstance(first.place, memoryview):
            return [first]
        end = at + 1
        while end < min(at + STEP, len(self._sources)) and not isinstance(
            self._sources[end].place, memoryview
        ):
            end += 1
        return self._sources[at:end]

    def _read(self, run: list[Source], outcome: Outcome) -> memoryview:
        first, last = run[0], run[-1]
        if isinstance(first.place, memoryview):
            return first.place
        buffer = page_aligned(last.stop - first.start)
        got = self._fill(first, buffer, Outcome())
        for source in run:
            block = buffer[source.start - first.start : source.stop - first.start]
            whole = source.stop - first.start <= got
            if not whole:  # read it alone: one bad block must not cost the others
                whole = self._fill(source, block, outcome) == len(block)
            right = whole and crc32c(block) == source.crc
            (outcome.good if right else outcome.bad).append(source.number)
        return buffer

    def _fill(self, source: Source, buffer: memoryview, outcome: Outcome) -> int:
        if not isinstance(source.place, BlockFile):
            return 0
        try:
            return source.place.read_into(source.start, buffer)
        except OSError as error:
            log.warning("the disk of the cache fails: %s", error.strerror)
            outcome.failure = outcome.failure or error
            return 0
