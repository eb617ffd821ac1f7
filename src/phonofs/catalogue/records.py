"""Stores the JSON of the records as received. Part of the catalogue.

A record received alone is compressed alone. The records of a page are compressed together, in a
*batch*: that takes a fifth of the time and of the space (3 µs and 50 to 100 bytes per record), so
that a day of 10,000 objects opens in time. A record that is replaced or withdrawn is blanked in
its batch, so that nothing of it stays readable.
"""

import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate

from phonofs.catalogue.database import Database
from phonofs.catalogue.record_codec import pack, unpack

FEWEST = 8
"""Fewer records are compressed alone: they may well change one by one."""

MOST_BYTES = 256 << 10
"""Text of a batch, which is decompressed (in 0.3 ms) to read one record of it."""

_LEVEL = 1
_GONE = 1 << 31
"""Marks the size of a text that was replaced or removed."""

PackedBatch = tuple[bytes, bytes]
"""A batch as it is stored: the sizes of its texts, and the texts, compressed."""


class _RecordBatch:
    """A batch that was read: its number, its text, and where each record's begins and ends."""

    def __init__(self, number: int, sizes: bytes, text: bytes) -> None:
        self.number = number
        self.sizes = list(_unpacked_sizes(sizes))
        self.starts = list(accumulate((size & ~_GONE for size in self.sizes), initial=0))
        self.text = text

    def get(self, ino: int) -> bytes | None:
        """Return the text of an object, or None if it is not in this batch."""
        at = ino - self.number
        if not 0 <= at < len(self.sizes) or self.sizes[at] & _GONE:
            return None
        return self.text[self.starts[at] : self.starts[at + 1]]

    def without(self, inos: Collection[int]) -> PackedBatch | None:
        """Return the batch with the texts of these objects blanked, or None if none is left."""
        text, sizes = bytearray(self.text), self.sizes[:]
        for at in (ino - self.number for ino in inos):
            start, stop = self.starts[at], self.starts[at + 1]
            text[start:stop] = bytes(stop - start)
            sizes[at] |= _GONE
        return (_packed_sizes(sizes), _compressed(text)) if any(text) else None


class RecordStore:
    """Owns the tables ``record`` and ``record_batch``, the batch read last, and what the
    transaction has yet to blank: ``_replaced``, the objects by the number of their batch.

    The number of a batch is the inode number of its first text, and the others follow, so that no
    other batch has it. A text has a row in ``record`` or a size in a batch that is not marked as
    gone, never both. Invariant: when a transaction ends, nothing is left to be blanked.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._replaced: dict[int, set[int]] = {}
        self._read: _RecordBatch | None = None

    def recover(self) -> None:
        """Discard the state of a failed transaction."""
        self._replaced.clear()
        self._read = None

    def get(self, ino: int) -> bytes | None:
        """Return the text of an object's record, or None if none is stored.

        Raises ValueError if the text is damaged.
        """
        if self._read is not None:
            text = self._read.get(ino)
            if text is not None and not self._is_replaced(ino, self._read.number):
                return text
        found = self._database.row("SELECT text FROM record WHERE ino = ?", ino)
        if found:
            return unpack(found[0])
        number = self._number_of(ino)
        if number is None or self._is_replaced(ino, number):
            return None
        return self._record_batch(number).get(ino)

    def _is_replaced(self, ino: int, number: int) -> bool:
        return ino in self._replaced.get(number, ())

    def _number_of(self, ino: int) -> int | None:
        """Return the number of the batch whose sizes include an object."""
        sql = "SELECT ino, length(sizes) FROM record_batch WHERE ino <= ? ORDER BY ino DESC LIMIT 1"
        number, size = self._database.row(sql, ino) or (0, 0)
        return number if ino - number < size // 4 else None

    def _record_batch(self, number: int) -> _RecordBatch:
        if self._read is None or self._read.number != number:
            sql = "SELECT sizes, text FROM record_batch WHERE ino = ?"
            sizes, packed = self._database.row(sql, number)
            try:
                self._read = _RecordBatch(number, sizes, zlib.decompress(packed))
            except (zlib.error, struct.error) as error:
                raise ValueError(f"a batch of records is damaged: {error}") from error
        return self._read

    def add(self, first: int, texts: Sequence[bytes]) -> None:
        """Store the texts of new objects, numbered from ``first``.

        This method and those below are called within a transaction.
        """
        for some in runs(texts):
            if len(some) < FEWEST:
                rows = [(ino, pack(text)) for ino, text in enumerate(some, first)]
                self._database.run_many("INSERT INTO record (ino, text) VALUES (?, ?)", rows)
            else:
                self.add_batch(first, pack_batch(some))
            first += len(some)

    def add_batch(self, first: int, batch: PackedBatch) -> None:
        """Store a batch of the texts of new objects, numbered from ``first``."""
        sql = "INSERT INTO record_batch (ino, sizes, text) VALUES (?, ?, ?)"
        self._database.run(sql, first, *batch)

    def replace(self, ino: int, text: bytes) -> None:
        """Store a text in place of an earlier one, if there is one."""
        self._blank_later(ino)
        sql = "INSERT OR REPLACE INTO record (ino, text) VALUES (?, ?)"
        self._database.run(sql, ino, pack(text))

    def remove(self, ino: int) -> None:
        """Remove the text of an object."""
        self._blank_later(ino)
        self._database.run("DELETE FROM record WHERE ino = ?", ino)

    def _blank_later(self, ino: int) -> None:
        if self._database.row("SELECT 1 FROM record WHERE ino = ?", ino):
            return
        number = self._number_of(ino)
        if number is not None:
            self._replaced.setdefault(number, set()).add(ino)

    def tidy(self) -> None:
        """Blank what was replaced or removed, each batch once in a transaction."""
        replaced, self._replaced = self._replaced, {}
        for number, inos in replaced.items():
            self._blank(number, inos)

    def _blank(self, number: int, inos: Collection[int]) -> None:
        kept = None  # a batch that nobody can read goes as a whole: its records are listed again
        with suppress(ValueError):
            batch = self._record_batch(number)
            there = [ino for ino in inos if batch.get(ino) is not None]
            if not there:
                return
            kept = batch.without(there)
        self._read = None
        if kept is None:
            self._database.run("DELETE FROM record_batch WHERE ino = ?", number)
        else:
            sql = "UPDATE record_batch SET sizes = ?, text = ? WHERE ino = ?"
            self._database.run(sql, *kept, number)


def pack_batch(texts: Sequence[bytes], gone: Sequence[int] = ()) -> PackedBatch:
    """Compress texts into a batch; those at the positions ``gone`` are left out. Pure."""
    sizes = [len(text) for text in texts]
    for at in gone:
        sizes[at] = _GONE
    kept = [text for text, size in zip(texts, sizes, strict=True) if size != _GONE]
    return _packed_sizes(sizes), _compressed(b"".join(kept))


def unpack_batch(batch: PackedBatch) -> list[bytes]:
    """Return the texts of a batch of which none is gone, in order. Pure."""
    made = _RecordBatch(0, batch[0], zlib.decompress(batch[1]))
    return [made.get(at) or b"" for at in range(len(made.sizes))]


def runs(texts: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Cut ``texts`` into runs of at most MOST_BYTES each (or of one text). Pure."""
    run: list[bytes] = []
    free = MOST_BYTES
    for text in texts:
        if run and len(text) > free:
            yield run
            run, free = [], MOST_BYTES
        run.append(text)
        free -= len(text)
    if run:
        yield run


def _compressed(text: bytes | bytearray) -> bytes:
    return zlib.compress(text, _LEVEL)


def _packed_sizes(sizes: Sequence[int]) -> bytes:
    return struct.pack(f">{len(sizes)}I", *sizes)


def _unpacked_sizes(sizes: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(sizes) // 4}I", sizes)
