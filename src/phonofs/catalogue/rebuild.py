"""Computes days and names anew from the stored records, when a catalogue is opened with another
view.
"""

# ruff: noqa: S608 - what is put into SQL texts here are constants, never values

from collections.abc import Iterator

from phonofs.catalogue.database import Database
from phonofs.catalogue.directories import Directories
from phonofs.catalogue.names import Names
from phonofs.catalogue.queries import COLUMNS, CatalogueQueries, Damaged, Row
from phonofs.catalogue.regions import Regions
from phonofs.errors import Malformed

_CHUNK = 5000
"""Rows at a time: 10 MB of records in memory."""


def rebuild(
    database: Database, regions: Regions, rows: CatalogueQueries, names: Names, folders: Directories
) -> list[Row]:
    """Place and name every object by the view of ``regions``; within a transaction.

    Nothing is asked of the service. The names are set without their index, which is built when
    all are there; those that are equal are then told apart. Returns the objects whose records
    are damaged: they are not shown any more.
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
    folders.recount()
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
    except Malformed:  # what was usable once is set aside by now, as it would be in a listing
        return None, None, row.ino
    parent = regions.parent(record, row.region) if record is not None else None
    if record is None or parent is None:
        return None, None, row.ino
    return parent, regions.name(record, 0), row.ino


def _tell_apart(database: Database, names: Names) -> None:
    """Of those with the same name the one created first keeps it."""
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
