"""Checking the whole of an object against its checksum, and sealing its blocks."""

import logging
from functools import partial

import trio

from phonofs.cache.blocks import BLOCK, bytes_of, touched_blocks
from phonofs.cache.digest import Hash, PartsHash, expected, hash_stretch, part_sizes
from phonofs.cache.holding import View
from phonofs.cache.stock import Stock

log = logging.getLogger(__name__)

HASH_NOW = BLOCK
"""Bytes hashed on the event loop: 200 µs, what handing them to a thread costs with its wait."""

HASH_STEP = 32 << 20
"""Bytes hashed per visit to a thread: a check can be cancelled and gone on with in between."""

SEAL_STEP = HASH_STEP // BLOCK
"""Blocks sealed per visit to a thread."""


class Check:
    """The check of one object: one at a time, in steps, gone on with by the next who asks."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock
        self._turn = trio.Lock()

    async def in_parts(self) -> bool:
        """Whether the content has its multipart checksum, with parts of some usual size.

        See :meth:`phonofs.cache.blob.Blob.check_parts`.
        """
        stock = self._stock
        checksum = stock.identity.checksum
        async with self._turn:
            stock.hashed = Hash(parts=[PartsHash(n) for n in part_sizes(checksum, stock.size)])
            while stock.complete and not stock.verified and stock.hashed.parts:
                if stock.hashed.position < stock.size:
                    if not await self._hash_on(stock.size):
                        return False
                elif any(parts.matches(checksum) for parts in stock.hashed.parts):
                    self._passed()
                else:
                    stock.hashed = Hash()
        return stock.verified

    async def whole(self) -> bool:
        """Whether the content is right; see :meth:`phonofs.cache.blob.Blob.check`."""
        stock = self._stock
        if stock.verified:
            return True
        async with self._turn:
            want = expected(stock.identity.checksum)
            while not stock.verified:
                if not stock.complete:
                    return False
                if want is None and not stock.suspect:
                    self._passed()
                elif stock.hashed.position < stock.size:
                    if not await self._hash_on(stock.size):
                        return False
                elif want is None or want.matches(stock.hashed.md5.digest()):
                    self._passed()
                else:
                    return self._failed()
        return True

    def now(self) -> bool:
        """Whether a small content written in this run is right; False also where that is not
        found out so quickly.
        """
        stock = self._stock
        if stock.verified:
            return True
        if stock.size > HASH_NOW or stock.suspect or self._turn.locked():
            return False
        if not stock.trusted.covers(0, stock.size):
            return False
        if stock.disk is not None and stock.disk.held and not stock.open_disk():
            return False
        want, hashed = expected(stock.identity.checksum), Hash()
        if want is not None:
            try:
                crcs = _hash(stock.view(0, stock.size), hashed, 0, stock.size)
            except MemoryError:
                return False
            if crcs is None or not want.matches(hashed.md5.digest()):
                return False
            stock.hashed = hashed
            if not self._compare(0, stock.size, crcs):
                return False
        self._passed()
        return True

    async def ahead(self) -> None:
        """Hash what there is from the start on, so that less is left when all is there."""
        stock = self._stock
        if stock.verified or stock.suspect or expected(stock.identity.checksum) is None:
            return
        if not self._turn.locked():
            async with self._turn:
                await self._hash_on(stock.present.stop_of(stock.hashed.position))

    def accept(self) -> None:
        """See :meth:`phonofs.cache.blob.Blob.accept`."""
        if self._stock.complete:
            self._stock.accepted = True
            self._passed()

    def _passed(self) -> None:
        stock = self._stock
        stock.verified = True
        stock.suspect = False
        if stock.hashed.position == stock.size:
            stock.trusted.add(0, stock.size)
        stock.hashed = Hash()
        if stock.disk is not None:
            stock.host.save(stock)

    def _failed(self) -> bool:
        stock = self._stock
        stock.hashed = Hash()
        if stock.suspect:
            log.warning("%s in the cache does not have its checksum", stock.identity.id)
            stock.reset()
        return False

    async def _hash_on(self, stop: int) -> bool:
        """Hash one step further towards ``stop``; False where bytes turned out to be missing."""
        stock = self._stock
        start = stock.hashed.position
        stop = min(stop, start + HASH_STEP)
        if stop < stock.size:
            stop -= stop % BLOCK
        if start >= stop:
            return True
        if stock.disk is not None and stock.disk.held and not stock.open_disk():
            return False
        view, hashed, epoch = stock.view(start, stop), stock.hashed, stock.epoch
        with stock.in_use():
            if stop - start <= HASH_NOW and stock.trusted.covers(start, stop):
                crcs = _hash(view, hashed, start, stop)
            else:
                crcs = await stock.host.in_thread(partial(_hash, view, hashed, start, stop))
        if stock.epoch != epoch or stock.hashed is not hashed:
            return stock.complete and not stock.verified
        if crcs is None:
            stock.lose(start, stop)
            return False
        return self._compare(start, stop, crcs)

    def _compare(self, start: int, stop: int, crcs: list[int]) -> bool:
        """Seal what was hashed; a block that has another seal already is lost."""
        stock = self._stock
        first, last = touched_blocks(start, stop)
        wrong = [
            block
            for block, crc in zip(range(first, last), crcs, strict=True)
            if not self._agrees(block, crc)
        ]
        for block in wrong:
            stock.lose(*bytes_of(block, block + 1, stock.size))
        if wrong:
            return False
        stock.seals.put(first, crcs)
        if not stock.suspect:
            stock.trusted.add(start, stop)
        return True

    def _agrees(self, block: int, crc: int) -> bool:
        stock = self._stock
        if stock.seals.known.covers(block, block + 1):
            return stock.seals.get(block, block + 1) == [crc]
        return stock.trusted.covers(*bytes_of(block, block + 1, stock.size))


async def seal(stock: Stock) -> None:
    """Read what has no seal yet, in a thread, and seal it."""
    for first, last in _steps(stock):
        start, stop = bytes_of(first, last, stock.size)
        view, epoch = stock.view(start, stop), stock.epoch
        with stock.in_use():
            crcs = await stock.host.in_thread(partial(_hash, view, None, start, stop))
        _sealed(stock, epoch, first, start, stop, crcs)


def seal_now(stock: Stock) -> None:
    """The same on the event loop, for the end."""
    for first, last in _steps(stock):
        start, stop = bytes_of(first, last, stock.size)
        crcs = _hash(stock.view(start, stop), None, start, stop)
        _sealed(stock, stock.epoch, first, start, stop, crcs)


def _steps(stock: Stock) -> list[tuple[int, int]]:
    return [
        (at, min(at + SEAL_STEP, last))
        for first, last in stock.unsealed()
        for at in range(first, last, SEAL_STEP)
    ]


def _sealed(
    stock: Stock, epoch: int, first: int, start: int, stop: int, crcs: list[int] | None
) -> None:
    if stock.epoch != epoch:
        return
    if crcs is None:
        stock.lose(start, stop)
    else:
        stock.seals.put(first, crcs)


def _hash(view: View, hashed: Hash | None, start: int, stop: int) -> list[int] | None:
    """In a thread, or here: the CRCs of the blocks; None where not all bytes are there."""
    try:
        return hash_stretch(view.read_into, hashed, start, stop)
    except OSError as error:
        log.warning("the disk of the cache fails: %s", error.strerror)
        return None
