"""The blocks of one object that are on disk: writing, reading and losing them.

Used by the object's cache entry only. Only whole blocks are on disk, with their CRCs in the index.
The object's row is written before its file. The backend notes failures of the disk; they are never
raised.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from phonofs.cache.backend import Backend, Disk
from phonofs.cache.blockfile import BlockFile, View
from phonofs.cache.blocks import BlockChecksums, bytes_of, crcs_of, touched_blocks
from phonofs.cache.index import Row
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
    unsaved_since  since when its row in the index is not right, by the backend's clock; infinity
                if it is right
    losses      how often blocks were forgotten
    charged     bytes charged to the budget. A lost block that is written again is charged twice,
                since only removing or cutting the file gives back its space

    ``lost(first, last)`` is called for blocks that turned out to be wrong or missing, and
    ``passed_by()`` if the file is unreadable.
    Invariants: every block in ``runs`` has a checksum; ``_checked`` ⊆ ``runs``: the blocks that
    were written or checked while the file was open.
    """

    def __init__(
        self,
        backend: Backend,
        row: Row,
        size: int,
        lost: Callable[[int, int], None],
        passed_by: Callable[[], None],
        *,
        known: bool,
    ) -> None:
        """``row`` is from the index if ``known``; else the object has no file yet."""
        self.size = size
        self.has_file = known
        self.row_open = False
        self.unreadable = False
        self.unsaved_since = math.inf
        self.losses = 0
        self.charged = row.charge
        self._backend = backend
        self._row = row
        self._lost = lost
        self._passed_by = passed_by
        self._checksums = BlockChecksums.unpack(row.present, row.crcs)
        self.runs = self._checksums.known
        self._checked = Ranges()
        self._file: BlockFile | None = None
        self._users = 0
        self._retired: list[BlockFile] = []

    @property
    def total_bytes(self) -> int:
        """Bytes of the object that are on disk."""
        return sum(stop - start for start, stop in (bytes_of(*run, self.size) for run in self.runs))

    @property
    def unsaved(self) -> bool:
        """Whether its row must still be saved before it is closed."""
        return (self.unsaved_since < math.inf or self.row_open) and not self.unreadable

    @property
    def busy(self) -> bool:
        """Whether a thread uses the file."""
        return self._users > 0

    def changed(self, *, at_once: bool = False) -> None:
        """Note that its row must be saved; ``at_once``: at the next round of maintenance."""
        if self.has_file:
            since = -math.inf if at_once else self._backend.now()
            self.unsaved_since = min(self.unsaved_since, since)

    def saved(self, *, final: bool) -> None:
        """Note that its row was saved; if ``final``, it must be declared before the next write."""
        self.unsaved_since = math.inf
        self.row_open &= not final

    def row(self, *, verified: bool, final: bool) -> Row:
        """Return the row that the index should have; ``final`` if nothing more will be written."""
        present, crcs = self._checksums.pack()
        held = self.total_bytes
        return self._row._replace(
            size=self.size,
            bytes=held,
            verified=verified and held == self.size,
            present=present,
            crcs=crcs,
            charge=self.charged,
            open=not final,
        )

    # Writing

    def write(self, first: int, blocks: memoryview) -> bool:
        """Write whole blocks to disk; return False if the disk does not accept them."""
        crcs = crcs_of(blocks)
        last = first + len(crcs)
        file = self._open_for_writing()
        if file is None or not self.charge(first, last):
            return False
        if not self._backend.attempt(lambda _: file.write_blocks(first, blocks)):
            return False
        self._checked.add(first, last)
        self._checksums.put(first, crcs)
        self.changed()
        return True

    def _open_for_writing(self) -> BlockFile | None:
        """Declare the row, then open the file; return None if the disk does not accept it.

        The row comes first, so that the next run knows of the file after a kill.
        """
        if not self.row_open or self._file is None:
            if not self._backend.accepts(self.size):
                return None
            if not self.row_open:
                self.row_open = self._backend.attempt(
                    lambda disk: disk.index.declare_all([self._row])
                )
            if self.row_open and not self.has_file:
                self._file = self._backend.query(lambda disk: disk.files.create(self._row.key))
                self.has_file = self._file is not None
        return self.open() if self.row_open else None

    def charge(self, first: int, last: int) -> bool:
        """Charge for those of the blocks that are not on disk; return False if they do not fit."""
        disk = self._backend.disk
        if disk is None:
            return False
        cost = sum(disk.files.cost(*run, self.size) for run in self.runs.missing(first, last))
        if not self._backend.reserve(cost):
            return False
        self.charged += cost
        return True

    def flushed(self, blocks: list[tuple[int, bytes]]) -> None:
        """Note that write-behind declared the row, and wrote and closed the file."""
        self.has_file = self.row_open = True
        for index, data in blocks:
            self._checksums.put(index, crcs_of(memoryview(data)))
        self.changed()

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

    def range_nowait(self, offset: int, stop: int) -> "StoredRange | None":
        """Return bytes as they lie in the file; None if they were not checked, or not read yet."""
        return StoredRange(self, offset, stop) if self._ready(offset, stop) else None

    def send_nowait(self, descriptor: int, offset: int, stop: int) -> int | None:
        """Send checked bytes from the file to a socket, as many as it takes; None if they cannot.

        That is so if they are not in the page cache, were lost, or if the file was closed.
        """
        file = self._ready(offset, stop)
        return file.send_nowait(descriptor, offset, stop - offset) if file is not None else None

    def _ready(self, offset: int, stop: int) -> BlockFile | None:
        """Return the file if it has these bytes checked, and in the page cache."""
        file = self._file
        if file is None or not self._checked.covers(*touched_blocks(offset, stop)):
            return None
        return file if file.is_ready(offset, stop - offset) else None

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
        if self._file is None and self.has_file:
            self.unreadable = not self._backend.attempt(self._find)
            if self.unreadable:
                self._passed_by()
            elif self._file is None:
                for run in list(self.runs):
                    self._lost(*run)
                self._backend.budget.release(self.disown_file())
        return self._file

    def _find(self, disk: Disk) -> None:
        self._file = disk.files.open(self._row.key)

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
                    self._close(file)
                self._retired.clear()

    def close(self) -> None:
        """Close the file; its blocks are checked again when it is opened again."""
        self.row_open = False
        self._checked = Ranges()  # another process may change the file meanwhile
        file, self._file = self._file, None
        if file is not None and self._users:
            self._retired.append(file)
        elif file is not None:
            self._close(file)

    def _close(self, file: BlockFile) -> None:
        """Close a file. That fails if a server takes what was written only now, and has no space.

        Its blocks count as stored: one that is not there does not have its CRC.
        """
        try:
            file.close()
        except OSError as error:
            self._backend.failed(error)

    def disown_file(self) -> int:
        """Forget the file; return its charge, which the caller releases."""
        self.close()
        self.has_file = False
        self.unsaved_since = math.inf
        charged, self.charged = self.charged, 0
        return charged

    # Losing

    def drop(self, first: int, last: int) -> None:
        """Forget blocks; they stay charged until the file is cut or removed."""
        self.losses += 1
        self._checked.remove(first, last)
        self._checksums.forget(first, last)

    def cut(self, size: int, blocks: int) -> None:
        """Set the new length of the object, and cut the file after its first ``blocks`` blocks."""
        self.size = size
        self.changed()
        file = self._file
        if file is None:
            return
        left = self._backend.query(lambda disk: file.cut(disk.files.span(0, blocks, size)[1]))
        if left is not None:
            freed = max(0, self.charged - left)
            self._backend.budget.release(freed)
            self.charged -= freed


class StoredRange:
    """Bytes of an object that the kernel can send from its file to a socket: we copy nothing.

    It holds nothing: if the file is closed meanwhile, as by a withdrawal, no more can be sent. Nor
    if any block was lost since it was made, which is only of objects that are complete and
    verified: what comes instead of it is not.

    offset  where the bytes are that were not sent yet; ``len`` is how many
    """

    def __init__(self, stored: StoredBlocks, offset: int, stop: int) -> None:
        self.offset = offset
        self._stored = stored
        self._stop = stop
        self._losses = stored.losses

    def __len__(self) -> int:
        return self._stop - self.offset

    def send(self, descriptor: int) -> int | None:
        """Send as many of them as the socket takes now; None if that would wait or fails."""
        if self._stored.losses != self._losses:
            return None
        sent = self._stored.send_nowait(descriptor, self.offset, self._stop)
        self.offset += sent or 0
        return sent

    def pass_by(self, count: int) -> None:
        """Leave out as many bytes, which were had in another way."""
        self.offset += count
