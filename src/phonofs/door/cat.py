"""Reads many files for one client: in the order asked for, and several ahead of it."""

from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import islice

import trio

from phonofs.door.files import Paths
from phonofs.errors import PhonofsError, forget_frames
from phonofs.open_files import OpenFile

AHEAD = 32
"""Files that are opened ahead: twice the usual connections, since they are answered in order."""

AHEAD_OF_ALL = 64
"""Files that are opened ahead for all clients together; each has LEAST, however many there are."""

LEAST = 4

FIRST_BYTES = 64 << 10
"""What is read ahead of each; the reader fetches small objects whole, and larger ones further."""

Item = tuple[str, int | None, int | None]


class ReadAhead:
    """How many files are opened ahead for each client. All connections of a door share one."""

    def __init__(self) -> None:
        self._clients = 0

    @property
    def files(self) -> int:
        """How many a client may have now."""
        return max(LEAST, min(AHEAD, AHEAD_OF_ALL // max(1, self._clients)))

    @contextmanager
    def of_client(self) -> Iterator[None]:
        """Count a client that reads many files."""
        self._clients += 1
        try:
            yield
        finally:
            self._clients -= 1


class Reading:
    """A part of a file that is read ahead.

    file    the open file; None if ``error`` says why it could not be opened or read
    offset, stop  the part, in bytes
    first   its first bytes
    """

    def __init__(self, item: Item) -> None:
        self.item = item
        self.file: OpenFile | None = None
        self.error: Exception | None = None
        self.offset = self.stop = 0
        self.first = b""
        self.ready = trio.Event()

    async def begin(self, paths: Paths) -> None:
        """Open the file and read its first bytes."""
        path, start, stop = self.item
        try:
            self.file = await paths.open(path, in_order=False)
            self.offset, end, _ = slice(start, stop).indices(self.file.size)
            self.stop = max(self.offset, end)
            count = min(FIRST_BYTES, self.stop - self.offset)
            if count:
                self.first = await self.file.read(self.offset, count)
        except PhonofsError as error:
            self.fail(forget_frames(error))
        except Exception as error:  # noqa: BLE001 - it is answered, logged and counted in its turn
            self.fail(error)
        finally:
            self.ready.set()

    def fail(self, error: Exception) -> None:
        """Note why it cannot be read."""
        self.error = error
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()
            self.file = None


@asynccontextmanager
async def readings(
    paths: Paths, items: Iterable[Item], ahead: ReadAhead
) -> AsyncIterator[AsyncIterator[Reading]]:
    """Yield an iterator over the parts, each ready; a part is closed when the next is asked for."""
    todo = iter(items)
    begun: deque[Reading] = deque()

    async def each() -> AsyncIterator[Reading]:
        fill()
        while begun:
            await begun[0].ready.wait()
            yield begun[0]
            begun.popleft().close()
            fill()

    def fill() -> None:
        for item in islice(todo, max(0, ahead.files - len(begun))):
            begin(item)

    try:
        with ahead.of_client():
            async with trio.open_nursery() as nursery:

                def begin(item: Item) -> None:
                    begun.append(Reading(item))
                    nursery.start_soon(begun[-1].begin, paths)

                yield each()
                nursery.cancel_scope.cancel()
    finally:  # not before the nursery has ended: its tasks may still open files
        for reading in begun:
            reading.close()
