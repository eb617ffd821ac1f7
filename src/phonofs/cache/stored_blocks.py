"""The blocks of one object that are on disk: writing, reading and losing them.

Used by its cache entry only. A block is on disk whole, with its CRC in the index; the object's
row is there before its file. What the disk refuses is noted by the backend, never raised.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from phonofs.cache.backend import Backend
from phonofs.cache.blockfile import BlockFile, View
from phonofs.cache.blocks import BlockChecksums, bytes_of, crcs_of, page_ceil, page_floor
from phonofs.cache.index import Identity
from phonofs.ranges import Ranges

CHECK_NOW = 8
"""Blocks of an earlier run checked on the event loop, the most the kernel asks for at once: their
CRCs take 60 µs, a hop to a thread 110."""


class StoredBlocks:
    """What is on disk of one object.

    size        length of the object in bytes
    runs        the blocks on disk, as intervals; not to be changed by others
    has_file    whether there is a file
    row_open    whether the index knows that bytes are being written
    unreadable  the file cannot be opened now: this run does without it, a later one may not

    ``lost(first, last)`` is called for blocks that turned out to be wrong or missing.
    Invariants: every block in ``runs`` has a checksum; ``_checked`` ⊆ ``runs``: those were
    written or checked while the file was open.
    """

    def __init__(
        self,
        backend: Backend,
        identity: Identity,
        size: int,
        lost: Callable[[int, int], None],
        *,
        charge: int | None,
        checksums: BlockChecksums,
    ) -> None:
        """``charge``: bytes that an earlier run left on disk, None if it left nothing."""
        self.identity = identity
        self.size = size
        self.runs = Ranges(checksums.known)
        self.has_file = charge is not None
        self.row_open = False
        self.unreadable = False
        self._backend = backend
        self._lost = lost
        self._checksums = checksums
        self._checked = Ranges()
        self._file: BlockFile | None = None
        self._pages = Ranges(self._pages_of(*run) for run in self.runs)
        self._allocation = backend.budget.allocate(charge or 0)
        self._users = 0
        self._retired: list[BlockFile] = []

    @property
    def total_bytes(self) -> int:
        """How many bytes of the object are on disk."""
        return sum(stop - start for start, stop in (bytes_of(*run, self.size) for run in self.runs))

    @property
    def charged(self) -> int:
        """What they take of the budget."""
        return self._allocation.bytes

    @property
    def busy(self) -> bool:
        """Whether a thread uses the file."""
        return self._users > 0

    @property
    def indices(self) -> list[int]:
        """The blocks on disk, one by one."""
        return [index for run in self.runs for index in range(*run)]

    def packed(self) -> tuple[bytes, bytes]:
        """The runs and their checksums as the index has them."""
        return self._checksums.pack(self.runs)

    # Writing

    def write(self, first: int, blocks: memoryview) -> bool:
        """Put whole blocks on disk; False if the disk does not take them."""
        last = first + len(crcs := crcs_of(blocks))
        if not (self._open_for_writing() and self.charge(first, last)):
            return False
        assert self._file is not None
        try:
            self._file.write_blocks(first, blocks)
        except OSError as error:
            self._backend.failed(error)
            return False
        self._checked.add(first, last)
        self.put(first, crcs)
        return True

    def put(self, first: int, crcs: list[int]) -> None:
        """Note that the blocks from ``first`` on are in the file."""
        self._checksums.put(first, crcs)
        self.runs.add(first, first + len(crcs))

    def made(self) -> None:
        """Its file was made by somebody else, after its row was declared; it is closed."""
        self.has_file = self.row_open = True

    def row_saved(self) -> None:
        """The row is final: it is declared again before more is written."""
        self.row_open = False

    def _open_for_writing(self) -> bool:
        """Have the file open and its row declared: the row first, so that a kill finds it."""
        if self.row_open and self._file is not None:
            return self._file.writable
        if not self._backend.accepts(self.size):
            return False
        if not self.row_open and not self._backend.declare([(self.identity, self.size)]):
            return False
        self.row_open = True
        if not self.has_file:
            self._file = self._backend.create_file(self.identity)
            self.has_file = self._file is not None
        return self.open() is not None and self._file is not None and self._file.writable

    def charge(self, first: int, last: int) -> bool:
        """Reserve the pages that these blocks take and that are not charged yet."""
        span = self._pages_of(first, last)
        cost = sum(stop - start for start, stop in self._pages.missing(*span))
        if cost and not self._allocation.grow(cost):
            return False
        if cost:
            self._pages.add(*span)
            self._backend.reserved()
        return True

    def _pages_of(self, first: int, last: int) -> tuple[int, int]:
        disk = self._backend.disk
        if disk is None:
            return 0, 0
        start, stop = disk.files.codec.span(first, last, self.size)
        return page_floor(start), page_ceil(stop)

    # Reading

    def view_nowait(self, first: int, last: int, offset: int, stop: int) -> View | None:
        """Return the bytes ``[offset, stop)`` of these blocks, or None if that would wait."""
        file = self.open()
        if file is None:
            return None
        if self._checked.covers(first, last):
            return file.view_nowait(offset, stop - offset)
        if last - first > CHECK_NOW:
            return None
        start, end = bytes_of(first, last, self.size)
        data = file.view_nowait(start, end - start)
        if data is None:
            return None
        if crcs_of(memoryview(data)) != self._checksums.get(first, last):
            self._lost(first, last)
            return None
        self._checked.add(first, last)
        return data[offset - start : stop - start]

    def crc(self, index: int) -> int:
        """The checksum of one block."""
        return self._checksums.get(index, index + 1)[0]

    def is_checked(self, index: int) -> bool:
        """Whether a block was written or checked while the file was open."""
        return self._checked.covers(index, index + 1)

    def checked(self, index: int) -> None:
        """A block was found right."""
        if self.runs.covers(index, index + 1):
            self._checked.add(index, index + 1)

    def distrust(self, index: int) -> None:
        """Have a block checked again before it is given out."""
        self._checked.remove(index, index + 1)

    # The file

    def open(self) -> BlockFile | None:
        """Open the file if it is closed; None if that fails: then its bytes are not here."""
        if self._file is not None or not self.has_file:
            return self._file
        try:
            self._file = self._backend.open_file(self.identity)
        except FileNotFoundError:
            for run in list(self.runs):
                self._lost(*run)
            self.gone()
        else:
            self.unreadable = self._file is None
        return self._file

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the file open while a thread uses it."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                for file in self._retired:
                    file.close()
                self._retired.clear()

    def close(self) -> None:
        """Close the file; its blocks are checked again when it is opened again."""
        self.row_open = False
        self._checked = Ranges()  # somebody may touch the file meanwhile
        file, self._file = self._file, None
        if file is not None and self._users:
            self._retired.append(file)
        elif file is not None:
            file.close()

    def gone(self) -> None:
        """The file is not there any more, and nothing is charged for it."""
        self.close()
        self.release_space()
        self.has_file = False

    def release_space(self) -> None:
        """Nothing is on disk, so nothing is charged."""
        self._allocation.release()
        self._pages = Ranges()

    # Losing

    def drop(self, first: int, last: int) -> None:
        """Forget blocks; their space stays charged until it is written again or cut."""
        self.runs.remove(first, last)
        self._checked.remove(first, last)
        self._checksums.forget(first, last)

    def cut(self, size: int, blocks: int) -> None:
        """The object has another length: cut the file behind its first ``blocks`` blocks."""
        self.size = size
        if self._file is None:
            return
        keep = self._pages_of(0, blocks)[1] if blocks else 0
        try:
            self._file.truncate(keep)
        except OSError as error:
            self._backend.failed(error)
            return
        before = self._pages.total()
        self._pages.remove(keep, 1 << 62)
        self._allocation.shrink(before - self._pages.total())
