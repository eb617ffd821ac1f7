"""What a thread reads for an entry: blocks of its file, checked by CRC, and copies of buffers.

Made on the event loop, run in a thread, its outcome taken over on the event loop.
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
"""Blocks read from the file at once: 1 MiB."""


class Source(NamedTuple):
    """Where block ``number``, the bytes ``[start, stop)`` of the object, is read.

    ``place`` is its bytes, or the open file; ``crc`` is that of a block in the file.
    """

    number: int
    start: int
    stop: int
    place: BlockFile | memoryview | None
    crc: int | None


@dataclass(slots=True)
class Outcome:
    """What was found: the bytes, which blocks were right, which were not, and why.

    ``data`` is only of use if ``bad`` is empty; it is empty if the bytes were hashed.
    """

    data: bytes = b""
    good: list[int] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    failure: OSError | None = None


class ReadPlan:
    """Blocks to read, in order; their bytes are collected, or given to ``hashed``."""

    def __init__(
        self, sources: list[Source], hashed: Callable[[memoryview], None] | None = None
    ) -> None:
        self._sources = sources
        self._hashed = hashed

    def run(self) -> Outcome:
        """Read and check everything; in a thread. Raises MemoryError."""
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
        """The sources from ``at`` on that are read at once: adjacent blocks of one file."""
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
            if not whole:  # tried singly: one bad block must not cost the others
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
