"""Recomputes days and names from the stored records, if the options of the tree have changed."""

from collections.abc import Iterator

from phonofs.catalogue.database import Database
from phonofs.catalogue.directories import Directories
from phonofs.catalogue.names import Names
from phonofs.catalogue.placement import Placement
from phonofs.catalogue.queries import ObjectQueries, Row
from phonofs.catalogue.record_codec import Damaged
from phonofs.errors import Malformed
from phonofs.model import LISTED_STATES

_CHUNK = 5000
"""Rows processed at a time: 10 MB of records in memory."""


def rebuild(
    database: Database,
    placement: Placement,
    rows: ObjectQueries,
    names: Names,
    directories: Directories,
) -> list[Row]:
    """Place and name every object by the options of ``placement``. Call within a transaction.

    The service is not asked. First all plain names are set without their unique index, then equal
    names are made different, then the index is built. Returns the objects whose records are
    damaged: they are no longer shown.
    """
    damaged: list[Row] = []
    database.run("DROP INDEX object_name")
    for chunk in _chunks(rows):
        database.run_many(
            "UPDATE object SET parent = ?, name = ?, wanted = NULL WHERE ino = ?",
            [(*_place(placement, rows, row, damaged), row.ino) for row in chunk],
        )
    _tell_apart(database, rows, names)
    database.run("CREATE UNIQUE INDEX object_name ON object (parent, name)")
    directories.recount()
    return damaged


def _chunks(rows: ObjectQueries) -> Iterator[list[Row]]:
    chunk = rows.following(0, _CHUNK)
    while chunk:
        yield chunk
        chunk = rows.following(chunk[-1].ino, _CHUNK)


def _place(
    placement: Placement, rows: ObjectQueries, row: Row, damaged: list[Row]
) -> tuple[int | None, str | None]:
    """Return the day and the plain name of an object; Nones if it is not shown."""
    if row.state not in LISTED_STATES:
        return None, None
    try:
        record = rows.record(row)
    except Damaged:
        damaged.append(row)
        return None, None
    except Malformed:  # no longer accepted, just as in a listing
        return None, None
    parent = placement.parent(record, row.region)
    return parent, None if parent is None else placement.name(record)


def _tell_apart(database: Database, rows: ObjectQueries, names: Names) -> None:
    """Give longer names to all objects with equal names except the one created first."""
    database.run("CREATE INDEX object_equal ON object (parent, name)")
    groups = database.rows(
        "SELECT parent, name FROM object WHERE parent IS NOT NULL"
        " GROUP BY parent, name HAVING count(*) > 1"
    )
    for parent, name in groups:
        for row in rows.called(parent, name)[1:]:
            names.lengthen(row)
    database.run("DROP INDEX object_equal")
