"""The blocks of one object that are on disk: writing, reading and losing them.

Used by the object's cache entry only. Only whole blocks are on disk, with their CRCs in the index.
The object's row is written before its file. The backend notes failures of the disk; they are never
raised.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from phonofs.cache.backend import Backend
from phonofs.cache.blockfile import BlockFile, View
from phonofs.cache.blocks import BlockChecksums, bytes_of, crcs_of, page_ceil, page_floor
from phonofs.cache.index import Identity
from phonofs.ranges import Ranges

CHECK_NOW = 8
"""Blocks of an earlier run checked on the event loop: the largest read of the kernel. Their CRCs
take 60 µs, a hop to a thread 110 µs."""


class StoredBlocks:
    """The blocks of one object that are on disk.

    size        length of the object in bytes
    runs        the blocks on disk, as intervals; only this class changes them
    has_file    whether there is a file
    row_open    whether the index knows that bytes are being written
    unreadable  the file cannot be opened now: this run does not use it, a later one may

    ``lost(first, last)`` is called for blocks that turned out to be wrong or missing.
    Invariants: every block in ``runs`` has a checksum; ``_checked`` ⊆ ``runs``: the blocks that
    were written or checked while the file was open.
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
        """``charge``: bytes charged for the file of an earlier run, None if there is none."""
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
        """Bytes of the object that are on disk."""
        return sum(stop - start for start, stop in (bytes_of(*run, self.size) for run in self.runs))

    @property
    def charged(self) -> int:
        """Bytes charged to the budget."""
        return self._allocation.bytes

    @property
    def busy(self) -> bool:
        """Whether a thread uses the file."""
        return self._users > 0

    def packed(self) -> tuple[bytes, bytes]:
        """Return the runs and their checksums in the form stored in the index."""
        return self._checksums.pack(self.runs)

    # Writing

    def write(self, first: int, blocks: memoryview) -> bool:
        """Write whole blocks to disk; return False if the disk does not accept them."""
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
        """Note that write-behind declared the row, and created and closed the file."""
        self.has_file = self.row_open = True

    def row_saved(self) -> None:
        """Note that the row is final: it must be declared again before more is written."""
        self.row_open = False

    def _open_for_writing(self) -> bool:
        """Declare the row, then open the file; return whether the file can be written.

        The row comes first, so that the next run knows of the file after a kill.
        """
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
        """Charge for the uncharged pages of these blocks; return False if they do not fit."""
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
        """Return the bytes ``[offset, stop)`` of these blocks; None if that would wait or fail."""
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
        """Return the checksum of one block."""
        return self._checksums.get(index, index + 1)[0]

    def is_checked(self, index: int) -> bool:
        """Return whether a block was written or checked while the file was open."""
        return self._checked.covers(index, index + 1)

    def checked(self, index: int) -> None:
        """Note that a block passed its check."""
        if self.runs.covers(index, index + 1):
            self._checked.add(index, index + 1)

    # The file

    def open(self) -> BlockFile | None:
        """Return the open file; None if it cannot be opened: then its blocks are not present."""
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
        self._checked = Ranges()  # another process may change the file meanwhile
        file, self._file = self._file, None
        if file is not None and self._users:
            self._retired.append(file)
        elif file is not None:
            file.close()

    def gone(self) -> None:
        """Note that the file no longer exists, and release its charge."""
        self.close()
        self.release_space()
        self.has_file = False

    def release_space(self) -> None:
        """Release the charge: nothing is on disk."""
        self._allocation.release()
        self._pages = Ranges()

    # Losing

    def drop(self, first: int, last: int) -> None:
        """Forget blocks; their pages stay charged until the file is cut or removed."""
        self.runs.remove(first, last)
        self._checked.remove(first, last)
        self._checksums.forget(first, last)

    def cut(self, size: int, blocks: int) -> None:
        """Set the new length of the object, and cut the file after its first ``blocks`` blocks."""
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
