"""The facets of the objects, made when a search first needs them. Part of the catalogue.

A day's facets are made from its stored records and kept; a listing never makes any. Everything
here works in steps of at most some milliseconds, between which the caller may let others run.
"""

# ruff: noqa: S608 - only constants are put into SQL texts here, never values

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import date
from functools import partial
from typing import Any, NamedTuple

from phonofs.catalogue.database import Database
from phonofs.catalogue.directories import Directories
from phonofs.catalogue.queries import ObjectQueries, Row
from phonofs.catalogue.record_codec import Damaged
from phonofs.catalogue.records import Records
from phonofs.errors import Malformed
from phonofs.search.condition import Condition, matches
from phonofs.search.facets import Facets, facets_of
from phonofs.service.records import parse_record
from phonofs.tree.layout import FIRST_DAY, LAST_DAY, Directory, day_directory, directory_of

TOGETHER = 150
"""Records whose facets are made in one transaction: 3 to 5 ms."""

SLICE = 1000
"""Objects that are looked at in one step: 2 to 3 ms."""

MOST_NAMES = 400
"""If more names than this match a pattern, the database does not choose by it."""

_COLUMNS = "type, agent, queue, call, numbers, direction, start_ms, duration_ms"
_NOTHING = Facets("", "", "", "", (), "", 0, None)


class Match(NamedTuple):
    """An object that matches: its inode number, its day's, and its name."""

    ino: int
    day: int
    name: str


class FacetStore:
    """Owns the tables ``facet`` and ``facet_day``; triggers remove rows that are outdated.

    Invariant: a row agrees with the stored record of its object, and its object is shown.
    """

    def __init__(
        self,
        database: Database,
        directories: Directories,
        rows: ObjectQueries,
        records: Records,
        writing: Callable[[], AbstractContextManager[None]],
        damaged: Callable[[Row], None],
    ) -> None:
        """``writing`` is the catalogue's transaction, in which ``damaged`` is called with the row
        of an object whose record cannot be read.
        """
        self._database = database
        self._directories = directories
        self._rows = rows
        self._records = records
        self._writing = writing
        self._damaged = damaged

    def days(self, region: str, since: date | None, until: date | None) -> tuple[int, int] | None:
        """Return the lowest and the highest inode number of the days ``since`` to ``until``.

        None if nothing is known of the region.
        """
        index = self._directories.known_region(region)
        if index is None:
            return None
        first = day_directory(index, max(since, FIRST_DAY)) if since else Directory(index)
        last = day_directory(index, min(until, LAST_DAY)) if until else Directory(index + 1)
        return first.ino, last.ino - (not until)

    def lacking(self, first: int, last: int) -> list[int]:
        """Return the days, of the inode numbers ``first`` to ``last``, that lack facets."""
        sql = (
            "SELECT ino FROM directory LEFT JOIN facet_day ON day = ino WHERE ino BETWEEN ? AND ?"
            " AND ino & 31 AND directory.objects > coalesce(facet_day.objects, 0)"
        )
        return [ino for (ino,) in self._database.rows(sql, first, last)]

    def make(self, day: int) -> Iterator[None]:
        """Make the facets that a day lacks, some at each step."""
        sql = (
            "SELECT ino FROM object WHERE parent = ? AND NOT EXISTS"
            " (SELECT 1 FROM facet WHERE facet.day = object.parent AND facet.ino = object.ino)"
        )
        inos = sorted(ino for (ino,) in self._database.rows(sql, day))
        for start in range(0, len(inos), TOGETHER):
            with self._writing():
                self._make(day, inos[start : start + TOGETHER])
            yield

    def _make(self, day: int, inos: Sequence[int]) -> None:
        sql = "SELECT ino, crc FROM object WHERE ino BETWEEN ? AND ? AND +parent = ?"
        crcs = dict(self._database.rows(sql, inos[0], inos[-1], day))  # some may have gone
        region = self._directories.region_name(_region_of(day))
        made = [
            (day, ino, *_values(self._facets(ino, crcs[ino], region)))
            for ino in inos
            if ino in crcs
        ]
        added = self._database.insert(
            f"facet (day, ino, {_COLUMNS})", made, " ON CONFLICT DO NOTHING"
        )
        self._database.run(
            "INSERT INTO facet_day (day, objects) VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET objects = objects + excluded.objects",
            *(day, added),
        )

    def _facets(self, ino: int, crc: int, region: str) -> Facets:
        """Return the facets of an object; if its record is damaged, none, so that none are missing
        until its day is listed again.
        """
        try:
            return facets_of(parse_record(self._records.get(ino, crc), region))
        except (Damaged, Malformed):
            row = self._rows.row(ino)
            assert row is not None, "it is in the day"
            self._damaged(row)
            return _NOTHING

    def slices(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Cut the days that hold something into runs: first and last.

        A run has at most SLICE objects, or is one day.
        """
        sql = (
            "SELECT ino, objects FROM directory"
            " WHERE ino BETWEEN ? AND ? AND ino & 31 AND objects > 0 ORDER BY ino"
        )
        run: list[int] = []
        count = 0
        for ino, objects in self._database.rows(sql, first, last):
            if run and count + objects > SLICE:
                yield run[0], run[-1]
                run, count = [], 0
            run.append(ino)
            count += objects
        if run:
            yield run[0], run[-1]

    def matching(
        self, condition: Condition, first: int, last: int, start: int
    ) -> tuple[list[Match], int | None]:
        """Return what matches in a slice, by day and name; tags are not looked at.

        Of a day with more than SLICE objects only that many are looked at, in the order of inode
        numbers from ``start`` on; also returned is where to go on, None at the end.
        """
        stop = self._stop(first, start) if first == last else None
        where, values = self._where(condition, first, last)
        sql = (
            f"SELECT f.ino, f.day, o.name, {', '.join(f'f.{name}' for name in _NAMES)}"
            f" FROM facet f CROSS JOIN object o ON o.ino = f.ino WHERE {where}"
        )
        if start or stop is not None:
            sql += " AND f.ino >= ? AND f.ino < ?"
            values += [start, stop or _MAX_INO]
        rows = self._database.rows(sql, *values)
        found = [Match(*row[:3]) for row in rows if condition.accepts(_facets(*row[3:]))]
        return sorted(found, key=_by_day_and_name), stop

    def _stop(self, day: int, start: int) -> int | None:
        """Return the inode number behind SLICE objects of a day; None if it has no more."""
        sql = "SELECT ino FROM facet WHERE day = ? AND ino >= ? ORDER BY ino LIMIT 1 OFFSET ?"
        found = self._database.row(sql, day, start, SLICE)
        return None if found is None else int(found[0])

    def _where(self, condition: Condition, first: int, last: int) -> tuple[str, list[Any]]:
        """Return SQL that every match satisfies, with its values."""
        terms = [_DAYS]
        values: list[Any] = [first, last]
        choices: list[tuple[str, object, Callable[[str], bool]]] = [
            ("agent", condition.agent, partial(matches, condition.agent)),
            ("queue", condition.queue, partial(matches, condition.queue)),
            ("type", condition.types, condition.is_type),
        ]
        for column, wanted, accepts in choices:
            names = self._names(column, accepts, first, last) if wanted else []
            if wanted and len(names) <= MOST_NAMES:
                terms.append(f"f.{column} IN ({','.join('?' * len(names))})")
                values += names
        for term, value in (
            ("f.call = ?", condition.call or None),
            ("instr(f.numbers, ?)", f"{condition.number} " if condition.number else None),
            ("f.direction = ?", condition.direction or None),
            ("f.duration_ms > ?", condition.longer_ms),
            ("f.duration_ms < ?", condition.shorter_ms),
        ):
            if value is not None:
                terms.append(term)
                values.append(value)
        return " AND ".join(terms), values

    def _names(
        self, column: str, accepts: Callable[[str], bool], first: int, last: int
    ) -> list[str]:
        """Return the accepted ones of the names in a column."""
        sql = f"SELECT DISTINCT {column} FROM facet WHERE day BETWEEN ? AND ?"
        return [name for (name,) in self._database.rows(sql, first, last) if accepts(name)]


def _by_day_and_name(match: Match) -> tuple[int, str]:
    return match.day, match.name


_NAMES = _COLUMNS.split(", ")
_MAX_INO = (1 << 63) - 1
_DAYS = "f.day BETWEEN ? AND ?"


def _region_of(day: int) -> int:
    directory = directory_of(day)
    assert directory is not None, "objects lie in day directories"
    return directory.region


def _values(facets: Facets) -> tuple[object, ...]:
    """Return the values of the columns."""
    return (
        facets.type,
        facets.agent,
        facets.queue,
        facets.call,
        "".join(f"{number} " for number in facets.numbers),
        facets.direction,
        facets.start_ms,
        facets.duration_ms,
    )


def _facets(
    type: str, agent: str, queue: str, call: str, numbers: str, direction: str,
    start_ms: int, duration_ms: int | None,
) -> Facets:  # fmt: skip
    every = tuple(numbers.split())
    return Facets(type, agent, queue, call, every, direction, start_ms, duration_ms)
