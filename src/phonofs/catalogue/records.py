"""The JSON of the records, as it came; part of the catalogue.

What comes alone is packed alone. What comes by the page is packed together, in a *sheaf*: a fifth
of the time and of the room (3 µs and 50 to 100 bytes a record), so that a day of 10,000 opens in
time. What is replaced or withdrawn is blanked in its sheaf: nothing of it stays readable.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate

from phonofs.catalogue.database import Database
from phonofs.catalogue.record_codec import pack, unpack

FEWEST = 8
"""Fewer records are packed alone: they may well change one by one."""

MOST_BYTES = 256 << 10
"""Text of a sheaf, which is unpacked (in 0.3 ms) to read one record of it."""

_MARK = b"\x02"
_PLACE = struct.Struct(">QII")
_LEVEL = 1
_GONE = 1 << 31
"""Marks the size of a text that was replaced or removed."""

Bound = tuple[bytes, bytes]
"""A sheaf as it is kept: the sizes of its texts, and the texts, packed."""

Place = tuple[int, int, int | None]
"""Where a text lies in a sheaf: offset, size, which one (None up to schema 3)."""


class _RecordBatch:
    """A sheaf that was read: its number, its text, and where each record's begins and ends.

    Up to schema 3 each record had a row that said where it lies, and the sheaf had no sizes.
    """

    def __init__(self, number: int, sizes: bytes | None, text: bytes) -> None:
        self.number = number
        self.sizes = list(_unpacked_sizes(sizes)) if sizes is not None else []
        self.starts = list(accumulate((size & ~_GONE for size in self.sizes), initial=0))
        self.text = text

    def get(self, ino: int) -> bytes | None:
        """The text of an object, if it is here."""
        at = ino - self.number
        if not 0 <= at < len(self.sizes) or self.sizes[at] & _GONE:
            return None
        return self.text[self.starts[at] : self.starts[at + 1]]

    def places(self, ino: int) -> list[Place]:
        """Where the text of an object lies, if it is here."""
        at = ino - self.number
        return [(self.starts[at], self.sizes[at], at)] if self.get(ino) is not None else []

    def without(self, places: Sequence[Place]) -> Bound | None:
        """The same with these texts blanked; None where nothing is left."""
        text, sizes = bytearray(self.text), self.sizes[:]
        for start, size, at in places:
            text[start : start + size] = bytes(size)
            if at is not None:
                sizes[at] |= _GONE
        return (_packed_sizes(sizes), _compressed(text)) if any(text) else None


class RecordStore:
    """Owns the tables ``source`` and ``sheaf``, the sheaf read last, and what is to be blanked:
    ``_left``, places by sheaf, and ``_gone``, the objects.

    A sheaf has the inode number of its first text, the others follow: its number is never
    another's. A text has a row in ``source`` or a size in a sheaf that is not gone, never both.
    Invariant: when a transaction ends, nothing is left to be blanked.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._left: dict[int, list[Place]] = {}
        self._gone: set[int] = set()
        self._read: _RecordBatch | None = None

    def recover(self) -> None:
        """After a transaction that failed: nothing of it counts."""
        self._left.clear()
        self._gone.clear()
        self._read = None

    def get(self, ino: int) -> bytes | None:
        """The text of an object's record; None where none is kept. Raises ValueError if damaged."""
        fresh = ino not in self._gone
        text = self._read.get(ino) if self._read is not None and fresh else None
        if text is not None:
            return text
        found = self._database.row("SELECT text FROM source WHERE ino = ?", ino)
        if found:
            return self._unpacked(found[0])
        number = self._number_of(ino) if fresh else None
        return self._record_batch(number).get(ino) if number is not None else None

    def _unpacked(self, kept: bytes) -> bytes:
        """The text that a row of ``source`` keeps. Raises ValueError if it is damaged."""
        place = _place(kept)
        if place is None:
            return unpack(kept)
        number, start, size = place
        return self._record_batch(number).text[start : start + size]

    def _number_of(self, ino: int) -> int | None:
        """The number of the sheaf whose sizes take in an object."""
        sql = "SELECT ino, length(sizes) FROM sheaf WHERE ino <= ? ORDER BY ino DESC LIMIT 1"
        number, size = self._database.row(sql, ino) or (0, None)
        return number if size is not None and ino - number < size // 4 else None

    def _record_batch(self, number: int) -> _RecordBatch:
        if self._read is None or self._read.number != number:
            sql = "SELECT sizes, text FROM sheaf WHERE ino = ?"
            sizes, packed = self._database.row(sql, number) or (None, b"")
            try:
                self._read = _RecordBatch(number, sizes, zlib.decompress(packed))
            except (zlib.error, struct.error) as error:
                raise ValueError(f"a sheaf is damaged: {error}") from error
        return self._read

    def add(self, first: int, texts: Sequence[bytes]) -> None:
        """Keep the texts of new objects, numbered from ``first``. Call within a transaction, as
        all below.
        """
        for some in runs(texts):
            if len(some) < FEWEST:
                rows = [(ino, pack(text)) for ino, text in enumerate(some, first)]
                self._database.run_many("INSERT INTO source (ino, text) VALUES (?, ?)", rows)
            else:
                self.add_bound(first, bound(some))
            first += len(some)

    def add_bound(self, first: int, record_batch: Bound) -> None:
        """Keep a sheaf of the texts of new objects, numbered from ``first``."""
        self._database.run(
            "INSERT INTO sheaf (ino, sizes, text) VALUES (?, ?, ?)", first, *record_batch
        )

    def replace(self, ino: int, text: bytes) -> None:
        """Keep a text in place of the one there was, if any."""
        self._leave(ino)
        sql = "INSERT OR REPLACE INTO source (ino, text) VALUES (?, ?)"
        self._database.run(sql, ino, pack(text))

    def remove(self, ino: int) -> None:
        """Keep nothing of an object's record."""
        self._leave(ino)
        self._database.run("DELETE FROM source WHERE ino = ?", ino)

    def _leave(self, ino: int) -> None:
        """Have the text of an object blanked where it lies in a sheaf."""
        found = self._database.row("SELECT text FROM source WHERE ino = ?", ino)
        if found:
            old = _place(found[0])
            if old is not None:
                self._left.setdefault(old[0], []).append((old[1], old[2], None))
            return
        number = self._number_of(ino)
        if number is not None and ino not in self._gone:
            self._gone.add(ino)
            places = self._left.setdefault(number, [])
            with suppress(ValueError):  # nobody can read it: all of it goes
                places += self._record_batch(number).places(ino)

    def tidy(self) -> None:
        """Blank in the sheaves what was replaced or removed: each once for a transaction."""
        left, self._left = self._left, {}
        self._gone.clear()
        for number, places in left.items():
            try:
                kept = self._record_batch(number).without(places)
            except ValueError:
                kept = None  # its records are listed again
            self._read = None
            if kept is not None:
                sql = "UPDATE sheaf SET sizes = ?, text = ? WHERE ino = ?"
                self._database.run(sql, kept[0] or None, kept[1], number)
            else:
                self._database.run("DELETE FROM sheaf WHERE ino = ?", number)


def bound(texts: Sequence[bytes], gone: Sequence[int] = ()) -> Bound:
    """A sheaf of texts; those at the places ``gone`` are left out. Pure."""
    sizes = [len(text) for text in texts]
    for at in gone:
        sizes[at] = _GONE
    kept = [text for text, size in zip(texts, sizes, strict=True) if size != _GONE]
    return _packed_sizes(sizes), _compressed(b"".join(kept))


def unbound(record_batch: Bound) -> list[bytes]:
    """The texts of a sheaf of which none is gone, in order. Pure."""
    made = _RecordBatch(0, record_batch[0], zlib.decompress(record_batch[1]))
    return [made.get(at) or b"" for at in range(len(made.sizes))]


def runs(texts: Sequence[bytes]) -> Iterator[list[bytes]]:
    """``texts`` in runs of at most MOST_BYTES (or of one). Pure."""
    run: list[bytes] = []
    room = MOST_BYTES
    for text in texts:
        if run and len(text) > room:
            yield run
            run, room = [], MOST_BYTES
        run.append(text)
        room -= len(text)
    if run:
        yield run


def _compressed(text: bytes | bytearray) -> bytes:
    return zlib.compress(text, _LEVEL)


def _packed_sizes(sizes: Sequence[int]) -> bytes:
    return struct.pack(f">{len(sizes)}I", *sizes)


def _unpacked_sizes(sizes: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(sizes) // 4}I", sizes)


def _place(kept: bytes) -> tuple[int, int, int] | None:
    """Where in a sheaf a text lies, up to schema 3: number, offset, size."""
    if kept[:1] != _MARK or len(kept) != len(_MARK) + _PLACE.size:
        return None
    number, start, size = _PLACE.unpack(kept[1:])
    return number, start, size
