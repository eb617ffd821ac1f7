"""Stores the JSON of the records as received. Part of the catalogue.

The records of a page are compressed a few together, in a *batch*: that takes a third of the time
that they would take alone, and little more than half of the space. If one of them is replaced or
withdrawn, its batch is dissolved, so that nothing of it stays readable.
"""

import zlib
from collections.abc import Iterable
from contextlib import suppress

from phonofs.catalogue.database import Database
from phonofs.catalogue.record_codec import Damaged, pack, unpack


class Records:
    """Owns the table ``record``, and the batch read last: its first inode number and its texts.

    Invariant: the objects of a batch have consecutive inode numbers, and all of them have it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.load()

    def load(self) -> None:
        """Forget the batch read last, as after a failed transaction."""
        self._read: tuple[int, list[bytes]] = (0, [])

    def get(self, ino: int, crc: int) -> bytes:
        """Return the text of an object's record, which has this CRC-32.

        Raises Damaged if it is damaged, or none is stored.
        """
        first, texts = self._read
        if not first <= ino < first + len(texts):
            first, packed = self._find(ino)
            texts = unpack(packed)
            self._read = first, texts
        if ino >= first + len(texts) or zlib.crc32(texts[ino - first]) != crc:
            raise Damaged(f"the record of object {ino} is damaged or missing")
        return texts[ino - first]

    def _find(self, ino: int) -> tuple[int, bytes]:
        """Return the last batch that begins at ``ino`` or before, which may end before it."""
        sql = "SELECT ino, text FROM record WHERE ino <= ? ORDER BY ino DESC LIMIT 1"
        return self._database.row(sql, ino) or (0, pack([]))

    def add(self, first: int, batches: Iterable[tuple[int, bytes]], new: set[int]) -> None:
        """Store the texts of those objects, numbered from ``first``, that are ``new``.

        ``batches`` are as :func:`record_codec.batches` makes them. Call within a transaction.
        """
        rows: list[tuple[int, bytes]] = []
        for count, packed in batches:
            inos = range(first, first + count)
            if new.issuperset(inos):
                rows.append((first, packed))
            elif not new.isdisjoint(inos):
                texts = unpack(packed)
                rows += [(ino, pack([texts[ino - first]])) for ino in inos if ino in new]
            first += count
        self._database.insert("record (ino, text)", rows)

    def replace(self, ino: int, text: bytes | None) -> None:
        """Store a text in place of an earlier one, or remove that. Call within a transaction.

        A batch that cannot be read goes as a whole: its records are listed again.
        """
        first, packed = self._find(ino)
        texts: list[bytes] = []
        with suppress(Damaged):
            texts = unpack(packed)
        dissolved = dict(enumerate(texts, first))
        if ino in dissolved or not texts:
            self._database.run("DELETE FROM record WHERE ino = ?", first)
            dissolved.pop(ino, None)
        else:
            dissolved.clear()
        if text is not None:
            dissolved[ino] = text
        rows = [(number, pack([kept])) for number, kept in dissolved.items()]
        self._database.insert("record (ino, text)", rows)
        self.load()
