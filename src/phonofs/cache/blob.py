"""One object in the cache, as the reader sees it.

What a byte has to pass before it is given out:

- one written in this run came over an authenticated connection and is given out as it is;
- one of an earlier run is given out after the CRC of its block was found right, once a run;
- an object that was complete in an earlier run, but was not checked against its checksum then
  (the process was killed before), is checked as a whole before any of it is given out;
- every object is checked as a whole when it becomes complete: the reader asks for that.

So a *partial* object does serve single blocks to a later mount, each by its CRC: they are bytes
the service gave us, and whether they are the right ones shows when the object is complete.
"""

import trio

from phonofs.cache import reading, writing
from phonofs.cache.checking import Check
from phonofs.cache.shelf import Lent
from phonofs.cache.stock import Stock
from phonofs.ranges import Ranges


class Blob:
    """The bytes of one object that are in the cache. Got from ``Cache.blob``, which pins it.

    All of it runs on the event loop; ``read`` and the checks hand the slow part to a thread.
    Owner of nothing but the order of its calls: the state is the :class:`Stock`'s.
    """

    __slots__ = ("_check", "stock")

    def __init__(self, stock: Stock) -> None:
        self.stock = stock
        self._check = Check(stock)

    def __repr__(self) -> str:
        return f"<Blob {self.stock.identity.id} {self.present.total()}/{self.size}>"

    @property
    def size(self) -> int:
        """The length of the object in bytes: the real one, where that is known."""
        return self.stock.size

    @property
    def present(self) -> Ranges:
        """The bytes that can be read now; not to be changed by others."""
        return self.stock.present

    @property
    def complete(self) -> bool:
        """Whether every byte is present."""
        return self.stock.complete

    @property
    def verified(self) -> bool:
        """Whether the whole had the right checksum, or length where there is no more to check."""
        return self.stock.verified

    @property
    def in_memory(self) -> bool:
        """Whether what is written goes to memory, because the disk is not to be used."""
        return self.stock.in_memory

    @property
    def memory_bytes(self) -> int:
        """What it takes in memory."""
        return self.stock.memory.charge if self.stock.memory else 0

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Keep bytes of the object; what the disk does not take goes to memory.

        Nothing is raised. In the worst case (no disk, no memory) they are not kept, and
        ``present`` says so. Nor are bytes behind ``size``, nor any of a verified object.
        """
        writing.write(self.stock, offset, data)

    def keep(self, ranges: Ranges) -> None:
        """Of what lies in memory, only ``ranges`` is still wanted; the rest is given back."""
        writing.keep(self.stock, ranges)

    def read_now(self, offset: int, n: int) -> bytes | None:
        """Exactly ``n`` bytes, or None where it would wait, or they are not there."""
        return reading.read_now(self.stock, offset, n)

    def lend_now(self, offset: int, n: int) -> Lent | None:
        """The same without a copy where there are many: they hold until the next are lent."""
        return reading.lend_now(self.stock, offset, n)

    async def read(self, offset: int, n: int) -> bytes | None:
        """Exactly ``n`` bytes, in a thread where needed; None where they must be fetched (again).

        Where it was the disk that failed, the bytes left ``present``.
        """
        if self.stock.suspect and not await self.check():
            return None
        data = reading.read_now(self.stock, offset, n)
        if data is not None:
            await trio.lowlevel.checkpoint()
            return data
        return await reading.read(self.stock, offset, n)

    async def check(self) -> bool:
        """Whether the content has the checksum of its record, or else its length.

        Reads all of it once, in a thread, and seals its blocks on the way. True is remembered,
        also in later runs. False for an object that is not complete, and for one that is wrong:
        its bytes stay readable until :meth:`reset`, unless they are of an earlier run.
        """
        return await self._check.whole()

    async def check_parts(self) -> bool:
        """Whether the content has the multipart checksum of its record, as far as can be found.

        The size of the parts is not given: the usual ones are tried. True proves the content and
        its length, and is remembered as by :meth:`check`; False says nothing.
        """
        return await self._check.in_parts()

    def check_now(self) -> bool:
        """The same at once, where that is quick (a small object, just written); False: ask."""
        return self._check.now()

    async def check_ahead(self) -> None:
        """Hash what there is from the start on, so that :meth:`check` has less left to do."""
        await self._check.ahead()

    def accept(self) -> None:
        """Take the complete content for right in this run, whatever its checksum.

        A later run checks it anew.
        """
        self._check.accept()

    def reset(self) -> None:
        """Forget every byte."""
        self.stock.reset()

    def resize(self, size: int) -> None:
        """The real length of the object is ``size``: what lies behind it is forgotten."""
        self.stock.resize(size)
