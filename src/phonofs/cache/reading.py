"""Getting the bytes of an object out of the cache, checked where they need to be."""

import logging
from typing import NamedTuple

from phonofs.cache.blocks import BLOCK, bytes_of, crcs_of, touched_blocks
from phonofs.cache.holding import View
from phonofs.cache.shelf import Lent
from phonofs.cache.stock import Stock

log = logging.getLogger(__name__)

CHECK_NOW = 8 * BLOCK
"""Bytes of an earlier run that ``read_now`` checks itself: the most the kernel asks for. 1 MiB
takes 60 µs, and handing it to a thread takes 110."""


class Span(NamedTuple):
    """Bytes to read at once.

    ``crcs`` are those of the blocks they are, or None where they are trusted as they are.
    """

    start: int
    stop: int
    crcs: list[int] | None


class Found(NamedTuple):
    """What a thread found of a span: its bytes, unless they are not there, and the bad blocks.

    ``failed`` is what the disk said where it could not be read.
    """

    data: bytes | None
    bad: list[int]
    failed: OSError | None = None


def read_now(stock: Stock, offset: int, n: int) -> bytes | None:
    """Exactly ``n`` bytes, or None where it would wait, or they are not there."""
    data = lend_now(stock, offset, n)
    return bytes(data) if data is not None else None


def lend_now(stock: Stock, offset: int, n: int) -> Lent | None:
    """The same; a view holds until the next bytes are lent."""
    stop = offset + n
    if not stock.trusted.covers(offset, stop):
        return _checked_now(stock, offset, stop)
    content = stock.place_of(offset, stop)
    if content is None or not stock.trusted.covers(offset, stop):
        return None  # the file had to be opened again, and somebody had touched it
    data = content.lend_now(offset, n)
    if data is not None:
        stock.host.counters.read_bytes += n
    return data


def _checked_now(stock: Stock, offset: int, stop: int) -> Lent | None:
    """Read bytes of an earlier run and check their blocks, where that is quick."""
    first, last = touched_blocks(offset, stop)
    start, end = bytes_of(first, last, stock.size)
    if (
        stock.suspect
        or end - start > CHECK_NOW
        or not stock.present.covers(start, end)
        or not stock.seals.known.covers(first, last)
    ):
        return None
    content = stock.place_of(start, end)
    data = content.lend_now(start, end - start) if content is not None else None
    if data is None:
        return None
    if crcs_of(memoryview(data)) != stock.seals.get(first, last):
        stock.lose(start, end)
        return None
    stock.trusted.add(start, end)
    stock.host.counters.read_bytes += stop - offset
    return data[offset - start : stop - start]


async def read(stock: Stock, offset: int, n: int) -> bytes | None:
    """Exactly ``n`` bytes, in a thread; None where they are not there any more."""
    stop = offset + n
    if not n or not _readable(stock, offset, stop):
        return None if n else b""
    spans = _spans(stock, offset, stop)
    view, epoch = stock.view(spans[0].start, spans[-1].stop), stock.epoch
    with stock.in_use():
        found = await stock.host.in_thread(lambda: [_read_span(view, span) for span in spans])
    if stock.epoch != epoch:
        return None
    for span, what in zip(spans, found, strict=True):
        _believe(stock, span, what)
    if stock.epoch != epoch:
        return None
    stock.host.counters.read_bytes += n
    parts = [what.data for what in found if what.data is not None]
    whole = parts[0] if len(parts) == 1 else b"".join(parts)
    return whole[offset - spans[0].start : stop - spans[0].start]


def _believe(stock: Stock, span: Span, found: Found) -> None:
    """Trust the blocks that were right; lose the others, or all where they cannot be read.

    What cannot be read back is not written there once more: it is fetched through memory.
    """
    if found.failed is not None:
        stock.in_memory = True
        stock.host.trouble(found.failed)
    if found.data is None:  # of a damaged block no byte is there, also none that was not asked for
        stock.lose(*bytes_of(*touched_blocks(span.start, span.stop), stock.size))
    for block in found.bad:
        stock.lose(*bytes_of(block, block + 1, stock.size))
    if found.data is not None and not found.bad:
        stock.trusted.add(span.start, span.stop)


def _readable(stock: Stock, start: int, stop: int) -> bool:
    """Whether all is present, its file open, and what is not trusted has a seal."""
    if not stock.present.covers(start, stop):
        return False
    if stock.disk is not None and stock.disk.content is None:
        stock.open_disk()
    for gap in stock.trusted.missing(start, stop):
        if not stock.seals.known.covers(*touched_blocks(*gap)):
            stock.lose(*gap)
    return stock.present.covers(start, stop)


def _spans(stock: Stock, start: int, stop: int) -> list[Span]:
    """What to read for ``[start, stop)``: runs of whole blocks where they are to be checked."""
    spans: list[Span] = []
    for block in range(*touched_blocks(start, stop)):
        whole = bytes_of(block, block + 1, stock.size)
        inside = max(whole[0], start), min(whole[1], stop)
        last = spans[-1] if spans else Span(0, -1, None)
        if stock.trusted.covers(*inside):
            if last.crcs is None and last.stop == inside[0]:
                spans[-1] = Span(last.start, inside[1], None)
            else:
                spans.append(Span(*inside, None))
        elif last.crcs is not None:
            last.crcs.extend(stock.seals.get(block, block + 1))
            spans[-1] = Span(last.start, whole[1], last.crcs)
        else:
            spans.append(Span(*whole, stock.seals.get(block, block + 1)))
    return spans


def _read_span(view: View, span: Span) -> Found:
    """In a thread."""
    data, failed = _bytes_of(view, span.start, span.stop)
    if data is None and span.crcs is not None and len(span.crcs) > 1:
        return _read_singly(view, span, span.crcs)
    if data is None or span.crcs is None:
        return Found(data, [], failed)
    first = span.start // BLOCK
    crcs = zip(span.crcs, crcs_of(memoryview(data)), strict=True)
    return Found(data, [first + n for n, (want, got) in enumerate(crcs) if want != got])


def _read_singly(view: View, span: Span, wanted: list[int]) -> Found:
    """Find the blocks that are still right in a file that was cut, or cannot be read."""
    good, bad, failures = [], [], []
    for n, crc in enumerate(wanted):
        start = span.start + n * BLOCK
        data, failed = _bytes_of(view, start, min(start + BLOCK, span.stop))
        failures += [failed] if failed is not None else []
        if data is None or crcs_of(memoryview(data)) != [crc]:
            bad.append(start // BLOCK)
        else:
            good.append(data)
    return Found(b"".join(good), bad, failures[0] if failures else None)


def _bytes_of(view: View, start: int, stop: int) -> tuple[bytes | None, OSError | None]:
    """The bytes, or None where they are not there, and what the disk said where it failed."""
    try:
        return view.read(start, stop), None
    except OSError as error:
        log.warning("the disk of the cache fails: %s", error.strerror)
        return None, error
