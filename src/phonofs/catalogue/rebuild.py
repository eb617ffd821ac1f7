"""Recomputes days and names from the stored records, if a catalogue is opened with another view."""

# ruff: noqa: S608 - only constants are put into SQL texts here, never values

from collections.abc import Iterator

from phonofs.catalogue.database import Database
from phonofs.catalogue.directories import Directories
from phonofs.catalogue.names import Names
from phonofs.catalogue.queries import COLUMNS, CatalogueQueries, Damaged, Row
from phonofs.catalogue.regions import Regions
from phonofs.errors import Malformed

_CHUNK = 5000
"""Rows processed at a time: 10 MB of records in memory."""


def rebuild(
    database: Database,
    regions: Regions,
    rows: CatalogueQueries,
    names: Names,
    directories: Directories,
) -> list[Row]:
    """Place and name every object by the view of ``regions``. Call within a transaction.

    The service is not asked. First all plain names are set without their unique index, then equal
    names are made different, then the index is built. Returns the objects whose records are
    damaged: they are no longer shown.
    """
    damaged: list[Row] = []
    database.run("DROP INDEX object_name")
    for chunk in _chunks(database):
        database.run_many(
            "UPDATE object SET parent = ?, name = ?, rank = 0 WHERE ino = ?",
            [_placed(regions, rows, row, damaged) for row in chunk],
        )
    _tell_apart(database, names)
    database.run("CREATE UNIQUE INDEX object_name ON object (parent, name)")
    directories.recount()
    return damaged


def _chunks(database: Database) -> Iterator[list[Row]]:
    last = 0
    while True:
        sql = f"SELECT {COLUMNS} FROM object WHERE ino > ? ORDER BY ino LIMIT ?"
        rows = [Row(*row) for row in database.rows(sql, last, _CHUNK)]
        if not rows:
            return
        yield rows
        last = rows[-1].ino


def _placed(
    regions: Regions, rows: CatalogueQueries, row: Row, damaged: list[Row]
) -> tuple[int | None, str | None, int]:
    try:
        record = rows.record(row)
    except Damaged:
        damaged.append(row)
        return None, None, row.ino
    except Malformed:  # no longer accepted, just as in a listing
        return None, None, row.ino
    parent = regions.parent(record, row.region) if record is not None else None
    if record is None or parent is None:
        return None, None, row.ino
    return parent, regions.name(record, 0), row.ino


def _tell_apart(database: Database, names: Names) -> None:
    """Give longer names to all objects with equal names except the one created first."""
    database.run("CREATE INDEX object_equal ON object (parent, name)")
    groups = database.rows(
        "SELECT parent, name FROM object WHERE parent IS NOT NULL"
        " GROUP BY parent, name HAVING count(*) > 1"
    )
    for parent, name in groups:
        sql = f"SELECT {COLUMNS} FROM object WHERE parent = ? AND name = ?"
        equal = sorted((Row(*row) for row in database.rows(sql, parent, name)), key=_order)
        for row in equal[1:]:
            names.lengthen(row)
    database.run("DROP INDEX object_equal")


def _order(row: Row) -> tuple[int, str]:
    return row.order
