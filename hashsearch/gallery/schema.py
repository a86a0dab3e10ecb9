"""The catalog's tables, and the upgrade of catalogs of earlier formats."""

import sqlite3

from hashsearch.errors import InvalidGallery

FORMAT_VERSION = 3

_SINCE_FORMAT_3 = """
CREATE TABLE places (  -- the further places of an image's content, after that in images
    id INTEGER PRIMARY KEY,
    image INTEGER NOT NULL REFERENCES images (id),
    uri TEXT NOT NULL UNIQUE,
    label TEXT,
    label_given INTEGER NOT NULL DEFAULT 0,  -- whether a person gave it to this place
    size INTEGER NOT NULL,
    mtime INTEGER NOT NULL
) STRICT;
CREATE INDEX places_by_image ON places (image);
CREATE INDEX removed_by_key ON images (key) WHERE removed = 1;
CREATE TABLE excludes (pattern TEXT PRIMARY KEY) STRICT;
"""

TABLES = f"""
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
    removed INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 0,  -- of the last change of this row
    label_given INTEGER NOT NULL DEFAULT 0  -- by a person: 1 to another place, 2 to this one
) STRICT;
CREATE UNIQUE INDEX images_by_key ON images (key) WHERE removed = 0;
CREATE UNIQUE INDEX images_by_uri ON images (uri) WHERE removed = 0;
CREATE INDEX images_by_label ON images (label) WHERE removed = 0;
CREATE INDEX images_by_shard ON images (shard, row, id, removed);
CREATE INDEX images_by_generation ON images (generation);
{_SINCE_FORMAT_3}
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
    kind TEXT NOT NULL DEFAULT 'index',  -- or compact, reencode, build
    skipped INTEGER NOT NULL DEFAULT 0,  -- known failures that were not tried again
    expected INTEGER,  -- estimated number of images to go through
    updated TEXT,  -- time of the last update of this row
    moved INTEGER NOT NULL DEFAULT 0,  -- found at another place than before
    excluded INTEGER NOT NULL DEFAULT 0,  -- left out, since their path matches a pattern
    pruned INTEGER NOT NULL DEFAULT 0  -- removed, since they are gone from their source
) STRICT;
"""

# What each earlier format lacks, by the format that has it.
_UPGRADES = {
    2: """
ALTER TABLE jobs ADD COLUMN kind TEXT NOT NULL DEFAULT 'index';
ALTER TABLE jobs ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN expected INTEGER;
ALTER TABLE jobs ADD COLUMN updated TEXT;
CREATE INDEX images_by_shard ON images (shard, row, id, removed);
INSERT INTO settings VALUES ('pixels', 'kept');
INSERT INTO settings VALUES ('thumbnails', 'kept');
""",
    3: f"""
ALTER TABLE images ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE images ADD COLUMN label_given INTEGER NOT NULL DEFAULT 0;
CREATE INDEX images_by_generation ON images (generation);
{_SINCE_FORMAT_3}
ALTER TABLE jobs ADD COLUMN moved INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN excluded INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0;
""",
}


def make_tables(db: sqlite3.Connection) -> None:
    db.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {FORMAT_VERSION}; COMMIT;")


def bring_up_to_date(db: sqlite3.Connection, name: str) -> None:
    """Upgrade a catalog of an earlier format to the current one, in one transaction.

    name: how messages call the catalog. Raises InvalidGallery if the format is unknown.
    """
    if is_current(db, name):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have upgraded it meanwhile, so the version is read again.
        for version in range(_version(db) + 1, FORMAT_VERSION + 1):
            for statement in filter(str.strip, _UPGRADES[version].split(";")):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {version}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def is_current(db: sqlite3.Connection, name: str) -> bool:
    """Whether a catalog is of the current format; False if it is of an earlier one.

    Raises InvalidGallery if the format is unknown.
    """
    version = _version(db)
    if not 1 <= version <= FORMAT_VERSION:
        raise InvalidGallery(
            f"{name} is of format {version}; this version of hashsearch reads 1 to {FORMAT_VERSION}"
        )
    return version == FORMAT_VERSION


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
