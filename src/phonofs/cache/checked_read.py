"""Reads blocks for an entry in a thread: from its file, checked by CRC, or from its buffers.

Used by the entry, to read what is there, and to hash blocks while more of them come.
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import NamedTuple

from crc32c import crc32c

from phonofs.buffers import page_aligned
from phonofs.cache.blockfile import BlockFile
from phonofs.cache.blocks import BLOCK

log = logging.getLogger(__name__)

STEP = 8
"""Blocks read from the file in one call: 1 MiB."""


class Source(NamedTuple):
    """Where to read block ``number``, the bytes ``[start, stop)`` of the object.

    ``data`` is its buffer. If there is none, it is in the file and has this ``crc``; None if that
    need not be checked.
    """

    number: int
    start: int
    stop: int
    data: memoryview | None
    crc: int | None


@dataclass(slots=True)
class Outcome:
    """The bytes that were read, which blocks passed their CRC, which did not, and the error.

    ``data`` is usable only if ``bad`` is empty. It is empty if the bytes were hashed; then ``stop``
    is the offset up to which they were, 0 if none was.
    """

    data: bytes = b""
    stop: int = 0
    good: list[int] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    failure: OSError | None = None


def read_blocks(
    file: BlockFile | None, sources: list[Source], hashed: Callable[[memoryview], None] | None
) -> Outcome:
    """Read and check adjacent blocks; call it in a thread. Raises MemoryError.

    Their bytes are returned, or passed to ``hashed``. ``file`` is None if all have a buffer.
    """
    outcome = Outcome()
    parts: list[bytes] = []
    take = hashed if hashed is not None else lambda data: parts.append(bytes(data))
    pass_blocks(file, sources, take, outcome, page_aligned(min(STEP, len(sources)) * BLOCK))
    outcome.data = b"".join(parts)
    return outcome


def pass_blocks(
    file: BlockFile | None,
    sources: list[Source],
    take: Callable[[memoryview], None],
    outcome: Outcome,
    buffer: memoryview,
) -> None:
    """Pass the bytes of adjacent blocks to ``take``, as many at a time as ``buffer`` has space for.

    Views of ``buffer`` are valid only there.
    """
    at = 0
    while at < len(sources):
        run = list(islice(takewhile(_is_in_file, sources[at:]), len(buffer) // BLOCK))
        data = _read(file, run, outcome, buffer) if run and file is not None else sources[at].data
        at += max(1, len(run))
        if data is not None and not outcome.bad:
            take(data)
            outcome.stop = sources[at - 1].stop


def _is_in_file(source: Source) -> bool:
    return source.data is None


def _read(file: BlockFile, run: list[Source], outcome: Outcome, buffer: memoryview) -> memoryview:
    start = run[0].start
    buffer = buffer[: run[-1].stop - start]
    got = 0
    with contextlib.suppress(OSError):
        got = file.read_into(start, buffer)
    for source in run:
        block = buffer[source.start - start : source.stop - start]
        right = source.stop - start <= got and _is_right(source, block)
        right = right or _read_alone(file, source, block, outcome)
        (outcome.good if right else outcome.bad).append(source.number)
    return buffer


def _read_alone(file: BlockFile, source: Source, block: memoryview, outcome: Outcome) -> bool:
    """Read one block again: a block that cannot be read must not cost those after it."""
    try:
        got = file.read_into(source.start, block)
    except OSError as error:
        log.warning("the disk of the cache fails: %s", error.strerror)
        outcome.failure = outcome.failure or error
        return False
    return got == len(block) and _is_right(source, block)


def _is_right(source: Source, block: memoryview) -> bool:
    return source.crc is None or crc32c(block) == source.crc
