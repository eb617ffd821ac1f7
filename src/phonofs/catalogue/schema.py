"""The schema of the catalogue, as the steps that led to it; a new file takes them all.

``object.parent`` is the inode number of the day folder, NULL for an object that is not shown
(withdrawn, of a type that is filtered out); its row stays, so that its number is never another's
and comes back with it. Objects are numbered from 2**31 (``tree.layout.FIRST_OBJECT_INO``).
``folder`` counts what each folder holds, so that nothing is ever scanned for it. ``source`` lies
apart: listings read many small rows and none of the large ones.
"""

_FIRST = """
CREATE TABLE note (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE region (
    idx INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, newest_ms INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE scope (
    id INTEGER PRIMARY KEY, types TEXT NOT NULL, archived INTEGER NOT NULL,
    UNIQUE (types, archived)
);
CREATE TABLE listed (
    scope INTEGER NOT NULL, region INTEGER NOT NULL,
    start_ms INTEGER NOT NULL, stop_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, region, start_ms)
) WITHOUT ROWID;
CREATE TABLE watermark (
    scope INTEGER NOT NULL, region INTEGER NOT NULL, updated_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, region)
) WITHOUT ROWID;
CREATE TABLE folder (
    ino INTEGER PRIMARY KEY, parent INTEGER NOT NULL,
    objects INTEGER NOT NULL, bytes INTEGER NOT NULL, mtime_ms INTEGER NOT NULL
);
CREATE INDEX folder_parent ON folder (parent);
CREATE TABLE object (
    ino INTEGER PRIMARY KEY AUTOINCREMENT,
    region INTEGER NOT NULL, id TEXT NOT NULL,
    parent INTEGER, name TEXT, rank INTEGER NOT NULL,
    size INTEGER NOT NULL, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL,
    state TEXT NOT NULL, crc INTEGER NOT NULL
);
CREATE UNIQUE INDEX object_id ON object (region, id);
CREATE UNIQUE INDEX object_name ON object (parent, name);
CREATE TABLE source (ino INTEGER PRIMARY KEY, text BLOB NOT NULL);
INSERT INTO sqlite_sequence (name, seq) VALUES ('object', 2147483647);
"""

_RANKED = "CREATE INDEX object_ranked ON object (parent) WHERE rank > 0"
"""Finds the few objects whose plain name another one has, when that one goes."""

_SHEAVES = "CREATE TABLE sheaf (ino INTEGER PRIMARY KEY, text BLOB NOT NULL)"
"""Records that came together, packed together; ``source`` says where in it each lies."""

_SIZES = "ALTER TABLE sheaf ADD COLUMN sizes BLOB"
"""A sheaf says itself what it holds (``sources``): a row for each record was much of the work."""

_REPLACED = """
ALTER TABLE object ADD COLUMN replaced INTEGER NOT NULL DEFAULT 0;
ALTER TABLE object ADD COLUMN content INTEGER NOT NULL DEFAULT 0
"""
"""``replaced``: 1 from when the content is no longer the first one that was seen here, and the
mtime follows ``updated_ms``. ``content``: of a withdrawn object a hash of its fingerprint, to know
whether it comes back with the same; 0 of all others."""

MIGRATIONS = (_FIRST, _RANKED, _SHEAVES, _SIZES, _REPLACED)
