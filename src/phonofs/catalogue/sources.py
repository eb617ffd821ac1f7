"""The JSON of the records, as it came; part of the catalogue.

What comes alone is packed alone. What comes by the page is packed together, in a *sheaf*: a fifth
of the time and of the room (3 µs and 50 to 100 bytes a record), so that a day of 10,000 opens in
time. What is replaced or withdrawn is blanked in its sheaf: nothing of it stays readable.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence

from phonofs.catalogue.database import Database
from phonofs.catalogue.packing import pack, unpack

FEWEST = 8
"""Fewer records are packed alone: they may well change one by one."""

MOST_BYTES = 256 << 10
"""Text of a sheaf, which is unpacked (in 0.3 ms) to read one record of it."""

_MARK = b"\x02"
_PLACE = struct.Struct(">QII")
_LEVEL = 1

Text = tuple[int, bytes]
"""The inode number of an object and the text of its record."""

Place = tuple[int, int, int]
"""Where a text lies: sheaf, offset, size."""


class Sources:
    """Owns the tables ``source`` and ``sheaf``, the sheaf read last, and what is to be blanked.

    A sheaf has the inode number of its first text, so its number is never another's.
    Invariant: when a transaction ends, ``_left`` is empty.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._left: dict[int, list[Place]] = {}
        self._read: tuple[int, bytes] = (0, b"")

    def recover(self) -> None:
        """After a transaction that failed: nothing of it counts."""
        self._left.clear()
        self._read = (0, b"")

    def get(self, ino: int) -> bytes | None:
        """The text of an object's record; None where none is kept. Raises ValueError if damaged."""
        found = self._database.row("SELECT text FROM source WHERE ino = ?", ino)
        return self.unpacked(found[0]) if found else None

    def unpacked(self, kept: bytes) -> bytes:
        """The text that a row of ``source`` keeps. Raises ValueError if it is damaged."""
        place = _place(kept)
        if place is None:
            return unpack(kept)
        sheaf, start, size = place
        return self._sheaf(sheaf)[start : start + size]

    def _sheaf(self, number: int) -> bytes:
        if self._read[0] != number:
            found = self._database.row("SELECT text FROM sheaf WHERE ino = ?", number)
            try:
                self._read = (number, zlib.decompress(found[0] if found else b""))
            except zlib.error as error:
                raise ValueError(f"a sheaf is damaged: {error}") from error
        return self._read[1]

    def add(self, texts: Sequence[Text]) -> None:
        """Keep the texts of new objects. Call within a transaction, as all below."""
        rows: list[tuple[int, bytes]] = []
        for some in _sheaves(texts):
            if len(some) < FEWEST:
                rows += [(ino, pack(text)) for ino, text in some]
                continue
            number, start = some[0][0], 0
            for ino, text in some:
                rows.append((ino, _MARK + _PLACE.pack(number, start, len(text))))
                start += len(text)
            self._write(number, b"".join(text for _, text in some))
        self._database.run_many("INSERT INTO source (ino, text) VALUES (?, ?)", rows)

    def _write(self, number: int, text: bytes) -> None:
        sql = "INSERT OR REPLACE INTO sheaf (ino, text) VALUES (?, ?)"
        self._database.run(sql, number, zlib.compress(text, _LEVEL))

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
        found = self._database.row("SELECT text FROM source WHERE ino = ?", ino)
        place = _place(found[0]) if found else None
        if place is not None:
            self._left.setdefault(place[0], []).append(place)

    def tidy(self) -> None:
        """Blank in the sheaves what was replaced or removed: each once for a transaction."""
        left, self._left = self._left, {}
        for number, places in left.items():
            try:
                text = bytearray(self._sheaf(number))
            except ValueError:
                text = bytearray()  # nobody can read it: its records are listed again
            self._read = (0, b"")
            for _, start, size in places:
                text[start : start + size] = bytes(size)
            if any(text):
                self._write(number, bytes(text))
            else:
                self._database.run("DELETE FROM sheaf WHERE ino = ?", number)


def _place(kept: bytes) -> Place | None:
    """Where in a sheaf a text lies; None for one that is packed alone."""
    if kept[:1] != _MARK or len(kept) != len(_MARK) + _PLACE.size:
        return None
    sheaf, start, size = _PLACE.unpack(kept[1:])
    return sheaf, start, size


def _sheaves(texts: Sequence[Text]) -> Iterator[list[Text]]:
    """``texts`` in runs of at most MOST_BYTES (or of one)."""
    run: list[Text] = []
    room = MOST_BYTES
    for ino, text in texts:
        if run and len(text) > room:
            yield run
            run, room = [], MOST_BYTES
        run.append((ino, text))
        room -= len(text)
    if run:
        yield run
