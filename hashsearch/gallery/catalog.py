"""The catalog: what a gallery holds, in SQLite, the single source of truth.

A shard exists when a row of `shards` names it, an image when a row of `images`
does. Changes are made in short transactions that hold SQLite's write lock, so
that a job and a service can both write; readers are never kept out (WAL).
"""

import json
import os
import re
import socket
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import InvalidGallery, NotInGallery
from hashsearch.sources.base import encode_path, locate

FORMAT_VERSION = 1
_BUSY_TIMEOUT_S = 30  # how long a writer waits for another's transaction

_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE sources (name TEXT PRIMARY KEY, root BLOB NOT NULL UNIQUE) STRICT;
CREATE TABLE shards (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    rows INTEGER NOT NULL,
    checksums TEXT NOT NULL  -- JSON: file name to SHA-256
) STRICT;
CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL,  -- SHA-256 of the file, or of an array source's 3,072 bytes
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
    failed INTEGER NOT NULL DEFAULT 0
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class NewImage:
    """A row of `images` to be; its place in the shard follows from its order."""

    key: bytes
    uri: str
    label: str | None
    width: int
    height: int
    size: int
    mtime: int


@dataclass(frozen=True, slots=True)
class KnownFile:
    """What the catalog knows of a uri: the file's size and mtime, and its key."""

    size: int
    mtime: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that could not be read, and why."""

    uri: str
    reason: str
    size: int
    mtime: int


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image of the gallery. path: for a person, one that opens where there is one."""

    id: int
    uri: str
    path: str
    label: str | None
    width: int
    height: int
    shard: int
    row: int


@dataclass(frozen=True, slots=True)
class Rows:
    """The images of one moment, in the order of their ids.

    ids, shards, rows: (n,) int64; image ids[i] is row rows[i] of shard shards[i].
    """

    generation: int
    ids: NDArray[np.int64]
    shards: NDArray[np.int64]
    rows: NDArray[np.int64]


class Catalog:
    """An open catalog. Safe to share between threads; each call is one transaction."""

    def __init__(self, path: Path):
        if not path.is_file():
            raise InvalidGallery(f"{path.parent} is no gallery: it holds no {path.name}")
        self._path = path
        self._lock = threading.RLock()
        try:
            self._db = _connect(path)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise InvalidGallery(f"{path} cannot be read: {error}") from error
        if version != FORMAT_VERSION:
            raise InvalidGallery(
                f"{path} is of format {version}; this version of hashsearch reads {FORMAT_VERSION}"
            )

    @classmethod
    def create(cls, path: Path, settings: Mapping[str, str]) -> "Catalog":
        """Make an empty catalog of generation 0 with these settings."""
        db = _connect(path)
        db.execute("PRAGMA journal_mode = WAL")  # kept by the file
        db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {FORMAT_VERSION}; COMMIT;")
        rows = {**settings, "generation": "0"}
        db.executemany("INSERT INTO settings VALUES (?, ?)", rows.items())
        db.close()
        return cls(path)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold SQLite's write lock; commit at the end, or roll back on any error."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite ends it itself where the disk is full
                    self._db.execute("ROLLBACK")
                raise

    # Settings and sources

    def setting(self, name: str) -> str:
        found = self._rows("SELECT value FROM settings WHERE name = ?", (name,))
        if not found:
            raise InvalidGallery(f"the catalog has no setting {name!r}")
        return str(found[0][0])

    def generation(self) -> int:
        """A number that grows with every change of the images."""
        return int(self.setting("generation"))

    def count(self) -> int:
        """Number of images, those removed left out."""
        return int(self._rows("SELECT count(*) FROM images WHERE removed = 0")[0][0])

    def source_name(self, root: Path) -> str:
        """The name that uris under `root` begin with, given on first sight.

        It is the root's own name, percent-encoded, with ~2, ~3… behind where
        another root of that name came first.
        """
        with self.transaction() as db:
            encoded = os.fsencode(root)
            found = db.execute("SELECT name FROM sources WHERE root = ?", (encoded,)).fetchone()
            if found:
                return str(found[0])
            taken = {row[0] for row in db.execute("SELECT name FROM sources")}
            plain = encode_path(root.name) or "root"
            name, number = plain, 1
            while name in taken:
                number += 1
                name = f"{plain}~{number}"
            db.execute("INSERT INTO sources VALUES (?, ?)", (name, encoded))
            return name

    # Reading images

    def rows(self) -> Rows:
        """Where every image's data lies, as of one moment."""
        db = _connect(self._path)  # its own, so that nobody waits for ten million rows
        try:
            db.execute("BEGIN")
            query = "SELECT value FROM settings WHERE name = 'generation'"
            generation = int(db.execute(query).fetchone()[0])
            cursor = db.execute("SELECT id, shard, row FROM images WHERE removed = 0 ORDER BY id")
            flat = np.fromiter((value for row in cursor for value in row), np.int64)
        finally:
            db.close()
        ids, shards, rows = flat.reshape(-1, 3).T.copy()
        return Rows(generation, ids, shards, rows)

    def shard_rows(self) -> dict[int, int]:
        """The number of rows of each shard, by its number."""
        return dict(self._rows("SELECT number, rows FROM shards"))

    def records(self, ids: Iterable[int]) -> list[ImageRecord]:
        """The images with these ids, in this order; those unknown or removed are left out."""
        wanted = [int(one) for one in ids]
        roots = dict(self._rows("SELECT name, root FROM sources"))
        found: dict[int, ImageRecord] = {}
        for part in _parts(wanted):
            query = (
                "SELECT id, uri, label, width, height, shard, row FROM images "
                f"WHERE removed = 0 AND id IN ({_marks(part)})"
            )
            for number, uri, *rest in self._rows(query, part):
                found[number] = ImageRecord(number, uri, _path(uri, roots), *rest)
        return [found[one] for one in wanted if one in found]

    def record(self, image_id: int) -> ImageRecord:
        """Raises NotInGallery if there is no such image, or no more."""
        found = self.records([image_id])
        if not found:
            raise NotInGallery("the gallery holds no image with this id")
        return found[0]

    def known_files(self, uris: Sequence[str]) -> dict[str, KnownFile]:
        """What is known of those of these uris that the gallery holds."""
        found = {}
        for part in _parts(uris):
            query = (
                "SELECT uri, size, mtime, key FROM images "
                f"WHERE removed = 0 AND uri IN ({_marks(part)})"
            )
            for uri, *rest in self._rows(query, part):
                found[uri] = KnownFile(*rest)
        return found

    def known_keys(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of these keys that the gallery holds."""
        found: set[bytes] = set()
        for part in _parts(keys):
            query = f"SELECT key FROM images WHERE removed = 0 AND key IN ({_marks(part)})"
            found.update(row[0] for row in self._rows(query, part))
        return found

    def failures(self) -> list[tuple[Failure, str]]:
        """Every image that could not be read, and when that was, by uri."""
        rows = self._rows("SELECT uri, reason, size, mtime, time FROM failures ORDER BY uri")
        return [(Failure(*row[:4]), row[4]) for row in rows]

    # Jobs

    def start_job(self, sources: Sequence[str]) -> int:
        """Record a job as running, for others to see. Call it with the job lock held.

        A job found running by then was killed, and is recorded as failed.
        """
        with self.transaction() as db:
            db.execute("UPDATE jobs SET state = 'failed' WHERE state = 'running'")
            cursor = db.execute(
                "INSERT INTO jobs (sources, state, pid, host, started) "
                "VALUES (?, 'running', ?, ?, ?)",
                (json.dumps(list(sources)), os.getpid(), socket.gethostname(), now()),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def update_job(self, job: int, counts: Mapping[str, int], state: str = "running") -> None:
        """Record a job's counts, and its end where `state` is no longer running."""
        with self.transaction() as db:
            db.execute(
                "UPDATE jobs SET state = ?, ended = ?, indexed = ?, duplicates = ?, "
                "unchanged = ?, failed = ? WHERE id = ?",
                (
                    state,
                    None if state == "running" else now(),
                    counts["indexed"],
                    counts["duplicates"],
                    counts["unchanged"],
                    counts["failed"],
                    job,
                ),
            )

    def last_job(self) -> dict[str, Any] | None:
        """The newest job's row by column, or None if there was none."""
        with self._lock:
            cursor = self._db.execute("SELECT * FROM jobs ORDER BY id DESC LIMIT 1")
            row = cursor.fetchone()
            names = [column[0] for column in cursor.description]
        return dict(zip(names, row, strict=True)) if row else None

    def _rows(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return self._db.execute(query, parameters).fetchall()


def insert_shard(db: sqlite3.Connection, rows: int, checksums: Mapping[str, str]) -> int:
    """Add a shard within a transaction, and return the number that names it."""
    cursor = db.execute(
        "INSERT INTO shards (rows, checksums) VALUES (?, ?)",
        (rows, json.dumps(checksums, sort_keys=True)),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def insert_images(db: sqlite3.Connection, shard: int, images: Sequence[NewImage]) -> None:
    """Add the images of a new shard, in its order, within a transaction.

    An image of the same uri is replaced. One whose key the gallery already
    holds is left out (another writer was first): its row in the shard is
    named by nothing.
    """
    retire(db, [image.uri for image in images])
    db.executemany(
        "INSERT INTO images (key, uri, label, width, height, size, mtime, shard, row) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            (i.key, i.uri, i.label, i.width, i.height, i.size, i.mtime, shard, row)
            for row, i in enumerate(images)
        ),
    )
    forget_failures(db, (image.uri for image in images))


def retire(db: sqlite3.Connection, uris: Iterable[str]) -> None:
    """Mark the images at these uris as removed, within a transaction."""
    db.executemany(
        "UPDATE images SET removed = 1 WHERE uri = ? AND removed = 0", ((uri,) for uri in uris)
    )


def forget_failures(db: sqlite3.Connection, uris: Iterable[str]) -> None:
    """Drop what is noted of images that can be read by now, within a transaction."""
    db.executemany("DELETE FROM failures WHERE uri = ?", ((uri,) for uri in uris))


def touch(db: sqlite3.Connection, files: Iterable[tuple[str, int, int]]) -> None:
    """Note a new (uri, size, mtime) of files whose content stayed, within a transaction."""
    db.executemany("UPDATE images SET size = ?2, mtime = ?3 WHERE uri = ?1 AND removed = 0", files)


def record_failures(db: sqlite3.Connection, failures: Iterable[Failure]) -> None:
    """Note images that could not be read, within a transaction."""
    db.executemany(
        "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)",
        ((f.uri, f.reason, f.size, f.mtime, now()) for f in failures),
    )


def next_generation(db: sqlite3.Connection) -> None:
    """Tell readers, within a transaction, that the images changed."""
    db.execute("UPDATE settings SET value = value + 1 WHERE name = 'generation'")


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    return db


def _path(uri: str, roots: Mapping[str, bytes]) -> str:
    name = re.split("[/!#]", uri, maxsplit=1)[0]
    return locate(os.fsdecode(roots[name]), uri.removeprefix(name)) if name in roots else uri


def _parts(values: Sequence[Any], size: int = 500) -> Iterator[Sequence[Any]]:
    """Cut into parts that fit SQLite's bound parameters (999 in old builds)."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
