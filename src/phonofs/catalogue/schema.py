"""The schema of the catalogue: one script, which a new file runs.

Inode numbers of objects start at 2**31 (``tree.layout.FIRST_OBJECT_INO``) and are given out once;
those of directories are computed from region and date. Records lie apart from ``object``, so that
a listing reads many small rows and no large ones. All times are UTC epoch ms, all sizes bytes.
"""

VERSION = 2
"""``PRAGMA user_version`` of a file with this schema. A file with another one is set aside."""

SCHEMA = """
-- Notes, as JSON: the view shown, the regions, the customers, and whatever other packages keep.
CREATE TABLE metadata (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE region (
    idx INTEGER PRIMARY KEY CHECK (idx >= 0),  -- part of the inode numbers of its directories;
                                               -- counted from 0 without a gap
    name TEXT NOT NULL UNIQUE,                 -- the service's word
    newest_ms INTEGER NOT NULL DEFAULT 0       -- the newest plausible updatedTime; 0: none seen
) STRICT;

-- Spans [start_ms, stop_ms) of createdTime of which the catalogue has every object of the scope.
-- The spans of a scope and region neither overlap nor touch.
CREATE TABLE listed (
    scope TEXT NOT NULL,      -- which objects were asked for (types.Scope, as JSON): what was
                              -- listed of some types says nothing about the others
    region TEXT NOT NULL,     -- region.name
    start_ms INTEGER NOT NULL,
    stop_ms INTEGER NOT NULL CHECK (start_ms < stop_ms),
    PRIMARY KEY (scope, region, start_ms)
) STRICT, WITHOUT ROWID;

-- The updatedTime up to which the changes of a region are known. No row: it was never followed.
CREATE TABLE watermark (
    scope TEXT NOT NULL,      -- as in listed
    region TEXT NOT NULL,     -- region.name
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
    region INTEGER NOT NULL,                 -- region.idx
    id TEXT NOT NULL,                        -- the service's identifier, unique in a region
    parent INTEGER,                          -- inode number of its day; NULL: not shown
    name TEXT CHECK ((name IS NULL) = (parent IS NULL)),
    size INTEGER NOT NULL CHECK (size >= 0), -- as the record says, or as measured
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    state TEXT NOT NULL,                     -- objectState; MISSING: a full listing did not have it
    crc INTEGER NOT NULL,                    -- CRC-32 of the record's JSON; 0: take the next one
    fingerprint TEXT NOT NULL,               -- of the content shown last (Record.fingerprint: the
                                             -- checksum, if there is one); '': never shown
    wanted TEXT                              -- its plain name, if an object created earlier has it
        CHECK (wanted IS NULL OR name IS NOT NULL),
    replaced INTEGER NOT NULL DEFAULT 0      -- 1: its content is not the first one seen here,
        CHECK (replaced IN (0, 1)),          -- and its mtime follows updated_ms
    measured INTEGER NOT NULL DEFAULT 0      -- 1: size was found by reading the content
        CHECK (measured IN (0, 1))
) STRICT;
CREATE UNIQUE INDEX object_id ON object (region, id);
CREATE UNIQUE INDEX object_name ON object (parent, name);
-- The few objects without their plain name, for the time when the one that has it goes.
CREATE INDEX object_wanted ON object (parent, wanted) WHERE wanted IS NOT NULL;
INSERT INTO sqlite_sequence (name, seq) VALUES ('object', 2147483647);

-- The JSON of the record of every object that is shown, as received, in batches (records).
CREATE TABLE record (
    ino INTEGER PRIMARY KEY,    -- of the first object; those of the others follow
    text BLOB NOT NULL          -- of one object or several, compressed (record_codec)
) STRICT;

-- What a search looks at in each record. Made when a search first needs it, never by a listing.
-- A row is there only while it agrees with its object's record: the triggers see to that.
CREATE TABLE facet (
    day INTEGER NOT NULL,       -- object.parent
    ino INTEGER NOT NULL,
    type TEXT NOT NULL,
    agent TEXT NOT NULL,        -- as file names show it; empty: none, as in the columns below
    queue TEXT NOT NULL,
    call TEXT NOT NULL,
    numbers TEXT NOT NULL,      -- the digits of each phone number, with a space behind each
    direction TEXT NOT NULL,    -- in, out or empty
    start_ms INTEGER NOT NULL,
    duration_ms INTEGER,        -- NULL: not known
    PRIMARY KEY (day, ino)
) STRICT, WITHOUT ROWID;

-- How many rows of facet a day has; all of its objects have one if directory.objects agrees.
CREATE TABLE facet_day (
    day INTEGER PRIMARY KEY,
    objects INTEGER NOT NULL
) STRICT;
CREATE TRIGGER facet_outdated AFTER UPDATE OF parent, crc, size ON object
WHEN old.parent IS NOT new.parent OR old.crc <> new.crc OR old.size <> new.size
BEGIN
    DELETE FROM facet WHERE day = old.parent AND ino = old.ino;
END;
CREATE TRIGGER facet_removed AFTER DELETE ON facet
BEGIN
    UPDATE facet_day SET objects = objects - 1 WHERE day = old.day;
END;

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
