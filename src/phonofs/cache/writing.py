"""Putting the bytes of an object into the cache: to disk, or where that fails to memory."""

import errno
import logging

from phonofs.cache.holding import Holding
from phonofs.cache.shelf import Content
from phonofs.cache.stock import Stock
from phonofs.ranges import Ranges

log = logging.getLogger(__name__)

Data = bytes | bytearray | memoryview


def write(stock: Stock, offset: int, data: Data) -> None:
    """Keep bytes of the object; see :meth:`phonofs.cache.blob.Blob.write`.

    One system call and some bookkeeping: no hash, no SQLite but for the very first bytes.
    """
    stop = offset + len(data)
    if stop > stock.size:
        data, stop = memoryview(data)[: max(0, stock.size - offset)], stock.size
    if offset >= stop or stock.forgotten or stock.verified:
        return
    if _to_disk(stock, offset, stop, data) or _to_memory(stock, offset, stop, data):
        stock.gained(offset, stop)
        stock.host.counters.written_bytes += stop - offset
    else:
        stock.host.counters.refused_bytes += stop - offset


def keep(stock: Stock, ranges: Ranges) -> None:
    """Of what lies in memory, only ``ranges`` is still wanted; the rest is given back."""
    memory = stock.memory
    if memory is None:
        return
    for held in memory.held:
        for start, stop in ranges.missing(*held):
            stock.drop(start, stop)
            stock.host.take_memory(-memory.drop(start, stop))


def _to_disk(stock: Stock, offset: int, stop: int, data: Data) -> bool:
    if stock.in_memory:
        return False
    disk = stock.disk if stock.declared else None
    if disk is None or disk.content is None:
        disk = _declared_disk(stock)
    if disk is None or not _write_charged(stock, disk, offset, stop, data):
        stock.in_memory = True
        return False
    disk.held.add(offset, stop)
    stock.changed(stop - offset)
    return True


def _write_charged(stock: Stock, disk: Holding, offset: int, stop: int, data: Data) -> bool:
    cost = disk.cost(offset, stop)
    if cost:
        if not stock.host.take(cost):
            log.debug("no room in the cache for %s: it is read through memory", stock.identity.id)
            return False
        disk.charge_for(offset, stop, cost)  # also where it fails: a part may be written
    try:
        assert disk.content is not None
        disk.content.write(offset, data)
    except OSError as error:
        if error.errno != errno.EBADMSG:  # one damaged block says nothing of the disk
            stock.host.trouble(error)
        return False
    return True


def _declared_disk(stock: Stock) -> Holding | None:
    """The open file, after its row is there; None where the disk is not to be used.

    That of a small new content is in memory, and is made with its row a moment later.
    """
    if stock.disk is None and (place := stock.host.place_late(stock)) is not None:
        stock.disk, stock.declared = Holding(place), True
        return stock.disk
    if not stock.host.declare(stock.identity, stock.size):
        return None
    if stock.disk is None:
        stock.disk = _held(stock.host.create_file(stock.identity))
    elif not stock.open_disk():
        return None
    disk = stock.disk
    stock.declared = disk is not None and disk.content is not None and disk.content.writable
    return disk if stock.declared else None


def _to_memory(stock: Stock, offset: int, stop: int, data: Data) -> bool:
    memory = stock.memory or _new_memory(stock)
    if memory is None or memory.content is None:
        return False
    cost = memory.cost(offset, stop)
    memory.charge_for(offset, stop, cost)
    stock.host.take_memory(cost)
    try:
        memory.content.write(offset, data)
    except OSError as error:
        stock.host.no_memory(error)
        return False
    memory.held.add(offset, stop)
    if stock.disk is not None:
        stock.disk.held.remove(offset, stop)
    return True


def _new_memory(stock: Stock) -> Holding | None:
    stock.memory = _held(stock.host.open_memory())
    return stock.memory


def _held(content: Content | None) -> Holding | None:
    """An empty holding of a place, if there is one; closed where there is no memory for it."""
    try:
        return Holding(content) if content is not None else None
    except MemoryError:
        if content is not None:
            content.close()
        raise
