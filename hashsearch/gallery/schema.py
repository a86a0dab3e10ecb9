"""The catalog's tables, and the upgrade of catalogs of earlier formats."""

import sqlite3

from hashsearch.errors import InvalidGallery

FORMAT_VERSION = 2

TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE sources (name TEXT PRIMARY KEY, root BLOB NOT NULL UNIQUE) STRICT;
CREATE TABLE shards (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    rows INTEGER NOT NULL,
    checksums TEXT NOT NULL  -- JSON: file name to SHA-256
) STRICT;
CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL,  -- SHA-256 of the file, or of an array source's pixels
    uri TEXT NOT NULL,
    label TEXT,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime INTEGER NOT NULL,  -- nanoseconds
    shard INTEGER NOT NULL REFERENCES shards (number),
    row INTEGER NOT NULL,
    removed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX images_by_key ON images (key) WHERE removed = 0;
CREATE UNIQUE INDEX images_by_uri ON images (uri) WHERE removed = 0;
CREATE INDEX images_by_label ON images (label) WHERE removed = 0;
CREATE INDEX images_by_shard ON images (shard, row, id, removed);
CREATE TABLE failures (
    uri TEXT PRIMARY KEY,
    reason TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime INTEGER NOT NULL,
    time TEXT NOT NULL
) STRICT;
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sources TEXT NOT NULL,  -- JSON: list of names in `sources`
    state TEXT NOT NULL CHECK (state IN ('running', 'done', 'stopped', 'failed')),
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    started TEXT NOT NULL,
    ended TEXT,
    indexed INTEGER NOT NULL DEFAULT 0,
    duplicates INTEGER NOT NULL DEFAULT 0,
    unchanged INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    kind TEXT NOT NULL DEFAULT 'index',  -- or compact, reencode
    skipped INTEGER NOT NULL DEFAULT 0,  -- known failures that were not tried again
    expected INTEGER,  -- estimated number of images to go through
    updated TEXT  -- time of the last update of this row
) STRICT;
"""

# Adds what format 1 lacks.
_TO_FORMAT_2 = """
ALTER TABLE jobs ADD COLUMN kind TEXT NOT NULL DEFAULT 'index';
ALTER TABLE jobs ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN expected INTEGER;
ALTER TABLE jobs ADD COLUMN updated TEXT;
CREATE INDEX images_by_shard ON images (shard, row, id, removed);
INSERT INTO settings VALUES ('pixels', 'kept');
INSERT INTO settings VALUES ('thumbnails', 'kept');
"""


def make_tables(db: sqlite3.Connection) -> None:
    db.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {FORMAT_VERSION}; COMMIT;")


def bring_up_to_date(db: sqlite3.Connection, name: str) -> None:
    """Upgrade a catalog of an earlier format to the current one, in one transaction.

    name: how messages call the catalog. Raises InvalidGallery if the format is unknown.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == FORMAT_VERSION:
        return
    if version != 1:
        raise InvalidGallery(
            f"{name} is of format {version}; this version of hashsearch reads "
            f"1 and {FORMAT_VERSION}"
        )
    db.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have upgraded it meanwhile.
        if db.execute("PRAGMA user_version").fetchone()[0] == 1:
            for statement in filter(str.strip, _TO_FORMAT_2.split(";")):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
