"""The schema of the catalogue: one script, which a new file runs.

Inode numbers of objects start at 2**31 (``tree.layout.FIRST_OBJECT_INO``) and are given out once;
those of directories are computed from region and date. Records lie apart from ``object``, so that
a listing reads many small rows and no large ones. All times are UTC epoch ms, all sizes bytes.
"""

VERSION = 1
"""``PRAGMA user_version`` of a file with this schema. A file with another one is set aside."""

SCHEMA = """
-- Notes, as JSON: the view shown, the regions, the customers, and whatever other packages keep.
CREATE TABLE metadata (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE region (
    idx INTEGER PRIMARY KEY CHECK (idx >= 0),  -- part of the inode numbers of its directories
    name TEXT NOT NULL UNIQUE,                 -- the service's word
    newest_ms INTEGER NOT NULL DEFAULT 0       -- the newest plausible updatedTime; 0: none seen
) STRICT;

-- Which objects were asked for. What was listed of some types says nothing about the others.
CREATE TABLE scope (
    id INTEGER PRIMARY KEY,
    types TEXT NOT NULL,                                  -- sorted, one a line; empty: all types
    archived INTEGER NOT NULL CHECK (archived IN (0, 1)), -- whether archived objects are included
    UNIQUE (types, archived)
) STRICT;

-- Spans [start_ms, stop_ms) of createdTime of which the catalogue has every object of the scope.
-- The spans of a scope and region neither overlap nor touch.
CREATE TABLE listed (
    scope INTEGER NOT NULL,
    region INTEGER NOT NULL,
    start_ms INTEGER NOT NULL,
    stop_ms INTEGER NOT NULL CHECK (start_ms < stop_ms),
    PRIMARY KEY (scope, region, start_ms)
) STRICT, WITHOUT ROWID;

-- The updatedTime up to which the changes of a region are known. No row: it was never followed.
CREATE TABLE watermark (
    scope INTEGER NOT NULL,
    region INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (scope, region)
) STRICT, WITHOUT ROWID;

-- Every directory that ever held something. One that was emptied keeps its row, for its mtime.
CREATE TABLE directory (
    ino INTEGER PRIMARY KEY,
    parent INTEGER NOT NULL,    -- inode number; that of the root for a region
    objects INTEGER NOT NULL,   -- how many are below it, at any depth
    bytes INTEGER NOT NULL,     -- their sizes together
    mtime_ms INTEGER NOT NULL   -- never goes back
) STRICT;
CREATE INDEX directory_parent ON directory (parent);

-- Every object that was ever seen. The row of one that is not shown (withdrawn, or of a type that
-- is filtered out) stays, so that its inode number is never another's and comes back with it.
CREATE TABLE object (
    ino INTEGER PRIMARY KEY AUTOINCREMENT,
    region INTEGER NOT NULL,                -- region.idx
    id TEXT NOT NULL,                       -- the service's identifier, unique in a region
    parent INTEGER,                         -- inode number of its day; NULL: not shown
    name TEXT CHECK ((name IS NULL) = (parent IS NULL)),
    rank INTEGER NOT NULL                   -- 0: has its plain name; else which longer one it
        CHECK (rank >= 0),                  -- has, since an earlier object has the plain one
    size INTEGER NOT NULL CHECK (size >= 0), -- as the record says, or as found by reading
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    state TEXT NOT NULL,                    -- objectState; MISSING: a full listing did not have it
    crc INTEGER NOT NULL,                   -- CRC-32 of the record's JSON; 0: take the next one
    replaced INTEGER NOT NULL DEFAULT 0     -- 1: its content is not the first one seen here,
        CHECK (replaced IN (0, 1)),         -- and its mtime follows updated_ms
    content INTEGER NOT NULL DEFAULT 0      -- of a withdrawn object a hash of its fingerprint, to
) STRICT;                                   -- tell whether the same content comes back; else 0
CREATE UNIQUE INDEX object_id ON object (region, id);
CREATE UNIQUE INDEX object_name ON object (parent, name);
-- The few objects without their plain name, for the time when the one that has it goes.
CREATE INDEX object_ranked ON object (parent) WHERE rank > 0;
INSERT INTO sqlite_sequence (name, seq) VALUES ('object', 2147483647);

-- The JSON of a record that came alone (record_codec). An object that is shown has either a row
-- here or its text in a batch.
CREATE TABLE record (
    ino INTEGER PRIMARY KEY,
    text BLOB NOT NULL
) STRICT;

-- Records that came together, of objects with consecutive inode numbers (records).
CREATE TABLE record_batch (
    ino INTEGER PRIMARY KEY,    -- of the first object
    sizes BLOB NOT NULL,        -- of each text, a big-endian uint32; the top bit marks one blanked
    text BLOB NOT NULL          -- the texts, one after the other, compressed by zlib
) STRICT;

-- How long the texts are that are made of objects: known once one was made, and kept for good.
-- The version is a hash of what a text is made of and how; a row with another one is outdated.
CREATE TABLE text (
    ino INTEGER PRIMARY KEY,    -- kind and inode number of an object, in one number
    version INTEGER NOT NULL,
    size INTEGER NOT NULL       -- bytes; -1: nothing can be made of it
) STRICT;

CREATE TABLE text_source (
    source INTEGER NOT NULL,    -- inode number of an object that a text is made of
    text INTEGER NOT NULL,
    PRIMARY KEY (source, text)
) STRICT, WITHOUT ROWID;
"""
