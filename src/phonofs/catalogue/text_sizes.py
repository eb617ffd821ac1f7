"""Keeps how long the texts are that are made of objects. Part of the catalogue."""

# ruff: noqa: S608 - only constants are put into SQL texts here, never values

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager

from phonofs.catalogue.database import AMONG, Database, among

NO_TEXT = -1
"""The size of a text that cannot be made, because its source has a form that is not known."""


class TextSizes:
    """Owns the tables ``text`` and ``text_source``. Each change is a transaction of its own."""

    def __init__(
        self, database: Database, writing: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """``writing`` is the catalogue's transaction."""
        self._database = database
        self._writing = writing

    def known(self, inos: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return version and size in bytes (or NO_TEXT) of those of the texts that are known."""
        sql = f"SELECT ino, version, size FROM text WHERE ino {AMONG}"
        rows = self._database.rows(sql, among(inos))
        return {ino: (version, size) for ino, version, size in rows}

    def count(self, below: int) -> int:
        """Return how many texts with inode numbers below this one are known and can be read."""
        sql = "SELECT count(*) FROM text WHERE ino < ? AND size > ?"
        return sum(count for (count,) in self._database.rows(sql, below, NO_TEXT))

    def lacking(self, first: int, last: int, types: Sequence[str]) -> list[int]:
        """Return the days, of the inode numbers ``first`` to ``last``, with objects of these types
        of which no text is known. Only objects that have facets are looked at.
        """
        sql = (
            "SELECT DISTINCT day FROM facet WHERE day BETWEEN ? AND ?"
            f" AND type {AMONG} AND NOT EXISTS (SELECT 1"
            " FROM text_source JOIN text ON text.ino = text_source.text WHERE source = facet.ino)"
        )
        return [day for (day,) in self._database.rows(sql, first, last, among(types))]

    def put(self, ino: int, version: int, size: int, sources: Iterable[int]) -> None:
        """Store the size of a text. Raises CatalogueError."""
        with self._writing():
            sql = "INSERT OR REPLACE INTO text (ino, version, size) VALUES (?, ?, ?)"
            self._database.run(sql, ino, version, size)
            sql = "INSERT OR IGNORE INTO text_source (source, text) VALUES (?, ?)"
            self._database.run_many(sql, [(source, ino) for source in sources])

    def forget_all(self) -> None:
        """Forget all texts. Raises CatalogueError."""
        with self._writing():
            self._database.run("DELETE FROM text")
            self._database.run("DELETE FROM text_source")

    def made_of(self, sources: Collection[int]) -> set[int]:
        """Return the texts that are made of any of these objects, of those that are known."""
        sql = f"SELECT text FROM text_source WHERE source {AMONG}"
        return {ino for (ino,) in self._database.rows(sql, among(sources))}

    def forget(self, texts: Collection[int], sources: Collection[int]) -> None:
        """Forget texts, and what is made of these objects. Raises CatalogueError."""
        with self._writing():
            self._database.run_many("DELETE FROM text WHERE ino = ?", [(ino,) for ino in texts])
            sql = "DELETE FROM text_source WHERE source = ?"
            self._database.run_many(sql, [(source,) for source in sources])
