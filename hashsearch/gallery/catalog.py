"""The catalog: an SQLite database that lists everything a gallery holds.

A shard exists if a row of `shards` names it, and an image exists if a row of
`images` describes it. Changes are made in short transactions that hold SQLite's
write lock, so that a job and a service can both write. Readers never wait for
writers (WAL).
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import InvalidGallery, NotInGallery
from hashsearch.gallery.catalog_file import marks, parts
from hashsearch.gallery.catalog_places import CatalogPlaces, at_or_below, path_at
from hashsearch.gallery.opening import connect
from hashsearch.gallery.records import (
    Failure,
    ImageRecord,
    RowChanges,
    Rows,
    StoredImage,
)
from hashsearch.gallery.schema import make_tables
from hashsearch.sources.base import encode_path, split_uri


class Catalog(CatalogPlaces):
    """An open catalog: what it says of a gallery's images, places, shards and sources."""

    @classmethod
    def create(cls, path: Path, settings: Mapping[str, str]) -> "Catalog":
        """Make an empty catalog of generation 0 with these settings."""
        db = connect(path)
        db.execute("PRAGMA journal_mode = WAL")  # kept by the file
        make_tables(db)
        rows = {**settings, "generation": "0"}
        db.executemany("INSERT INTO settings VALUES (?, ?)", rows.items())
        db.close()
        return cls(path)

    # Settings and sources

    def setting(self, name: str) -> str:
        found = self._rows("SELECT value FROM settings WHERE name = ?", (name,))
        if not found:
            raise InvalidGallery(f"the catalog has no setting {name!r}")
        return str(found[0][0])

    def settings(self, prefix: str) -> dict[str, str]:
        """The settings whose names begin with a prefix, by name, sorted."""
        query = "SELECT name, value FROM settings WHERE substr(name, 1, ?) = ? ORDER BY name"
        return dict(self._rows(query, (len(prefix), prefix)))

    def generation(self) -> int:
        """A number that increases with every change to the images."""
        return int(self.setting("generation"))

    def identity(self) -> str:
        """The gallery's own random name, 32 hexadecimal digits; copies of it have the same.

        A gallery of an earlier version gets one. Raises GalleryReadOnly if it cannot.
        """
        if not self.settings(IDENTITY):
            with self.transaction() as db:
                db.execute(
                    "INSERT OR IGNORE INTO settings VALUES (?, ?)", (IDENTITY, new_identity())
                )
        return self.setting(IDENTITY)

    def count(self) -> int:
        """Number of images, without removed ones."""
        return int(self._rows("SELECT count(*) FROM images WHERE removed = 0")[0][0])

    def source_name(self, root: Path) -> str:
        """The name that uris under `root` begin with; a new root gets one.

        It is the root's own name, percent-encoded. If another root already has
        this name, ~2, ~3… is appended.
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

    def rows(self, shards: Sequence[int] | None = None) -> Rows:
        """The rows of all images, or of the images in `shards`, read in one transaction."""
        condition = "" if shards is None else f" AND shard IN ({marks(shards)})"
        while True:
            opened = self._opened
            with self.snapshot():
                settings = dict(self._rows("SELECT name, value FROM settings"))
                files = _shard_files(self._rows(_SHARD_FILES))
                places = _places(self._rows, condition, shards or ())
            if opened is self._opened and not opened.is_torn():
                generation = int(settings["generation"])
                return Rows(generation, settings["fingerprint"], files, *places)

    def changes_since(self, generation: int, most: int) -> RowChanges | None:
        """The images that were added, restored, removed or changed after a generation.

        None if there are more than `most`, or if they are not known any more, since rows of removed
        images were deleted or codes were computed again; then everything has to be read.
        """
        with self.snapshot():
            settings = dict(self._rows("SELECT name, value FROM settings"))
            if int(settings.get(FOLLOWED_SINCE, 0)) > generation:
                return None
            some = f"SELECT 1 FROM {_BY_GENERATION} WHERE generation > ? LIMIT ?"
            count = self._rows(f"SELECT count(*) FROM ({some})", (generation, most + 1))
            if count[0][0] > most:
                return None
            changed = f"FROM {_BY_GENERATION} WHERE generation > ? AND removed = 0"
            found = sorted(self._rows(f"SELECT id, shard, row {changed}", (generation,)))
            files = f"{_OF_SHARDS} WHERE number IN (SELECT shard {changed})"
            removed = f"SELECT id FROM {_BY_GENERATION} WHERE generation > ? AND removed = 1"
            rows = Rows(
                int(settings["generation"]),
                settings["fingerprint"],
                _shard_files(self._rows(files, (generation,))),
                *np.array(found, np.int64).reshape(-1, 3).T.copy(),
            )
            return RowChanges(rows, self._ids(removed, (generation,)))

    def ids_matching(
        self, where: str, values: Sequence[Any], since: int | None = None
    ) -> NDArray[np.int64]:
        """Ids of the images for which an SQL condition holds, (n,) int64, ascending.

        since: only of the images that were changed after this generation.
        """
        images, after = "images", ""
        if since is not None:
            images, after = _BY_GENERATION, f" AND generation > {since}"
        return self._ids(f"SELECT id FROM {images} WHERE removed = 0{after} AND ({where})", values)

    def changed_ids(self, since: int) -> NDArray[np.int64]:
        """Ids of all images, also removed ones, that were changed after a generation, ascending."""
        return self._ids(f"SELECT id FROM {_BY_GENERATION} WHERE generation > ?", (since,))

    def changed_until(self, since: int, most: int) -> int:
        """The last generation up to which at most `most` images were changed after another."""
        some = (
            f"SELECT generation FROM {_BY_GENERATION} "
            "WHERE generation > ? ORDER BY generation LIMIT ?"
        )
        query = f"SELECT count(*), max(generation) FROM ({some})"
        ((count, last),) = self._rows(query, (since, most + 1))
        return self.generation() if count <= most else int(last) - 1

    def stored_after(self, image_id: int, most: int) -> list[StoredImage]:
        """The images whose ids follow another's, in order of id, without removed ones."""
        query = f"{_STORED} FROM images WHERE removed = 0 AND id > ? ORDER BY id LIMIT ?"
        return [StoredImage(*row) for row in self._rows(query, (image_id, most))]

    def stored_changes(self, since: int, until: int) -> list[StoredImage]:
        """The images, also removed ones, that were last changed between two generations.

        since: exclusive. until: inclusive. Ordered by id.
        """
        query = f"{_STORED} FROM {_BY_GENERATION} WHERE generation > ? AND generation <= ?"
        return sorted(StoredImage(*row) for row in self._rows(query, (since, until)))

    def _ids(self, query: str, values: Sequence[Any]) -> NDArray[np.int64]:
        """The ids that a query of one column finds, (n,) int64, ascending.

        SQLite joins them to one text, of at most 1 GB, while other threads run. A row for each id
        would take five times the memory, and Python's lock would be released and taken for each.
        """
        ((text,),) = self._rows(f"SELECT group_concat(id) FROM ({query})", values)
        return np.sort(np.fromstring(text or "", np.int64, sep=","))

    def shard_rows(self) -> dict[int, int]:
        """Number of rows of each shard, by shard number."""
        return dict(self._rows("SELECT number, rows FROM shards"))

    def shard_files(self) -> dict[int, tuple[int, dict[str, str]]]:
        """By shard number: its number of rows, and the SHA-256 of its files by name."""
        return _shard_files(self._rows(_SHARD_FILES))

    def files_of(self, shard: int) -> tuple[int, dict[str, str]]:
        """A shard's number of rows, and the SHA-256 of its files by name.

        Raises InvalidGallery if the catalog names no such shard.
        """
        query = f"{_OF_SHARDS} WHERE number = ?"
        found = _shard_files(self._rows(query, (shard,)))
        if shard not in found:
            raise InvalidGallery(f"{self._path}: there is no shard {shard}")
        return found[shard]

    def live_rows(self) -> dict[int, int]:
        """Number of images in each shard that has any, without removed ones."""
        query = "SELECT shard, count(*) FROM images WHERE removed = 0 GROUP BY shard ORDER BY shard"
        return dict(self._rows(query))

    def labels(self, most: int | None = None) -> dict[str, int]:
        """Number of images by label, the most frequent label first; of so many labels at most."""
        query = (
            "SELECT label, count(*) AS n FROM images WHERE removed = 0 AND label IS NOT NULL "
            "GROUP BY label ORDER BY n DESC, label LIMIT ?"
        )
        return dict(self._rows(query, (-1 if most is None else most,)))

    def label_count(self) -> int:
        """Number of different labels."""
        each = "SELECT 1 FROM images WHERE removed = 0 AND label IS NOT NULL GROUP BY label"
        return int(self._rows(f"SELECT count(*) FROM ({each})")[0][0])

    def source_names(self, shard: int) -> list[str]:
        """Names of the sources that a shard's images came from, sorted."""
        query = "SELECT uri FROM images WHERE removed = 0 AND shard = ?"
        return sorted({split_uri(uri)[0] for (uri,) in self._rows(query, (shard,))})

    def integrity_problems(self) -> list[str]:
        """Problems that SQLite finds in its file; an empty list if there are none."""
        try:
            found = [str(row[0]) for row in self._rows("PRAGMA integrity_check(10)")]
        except sqlite3.DatabaseError as error:
            return [str(error)]
        return [] if found == ["ok"] else found

    def sources(self) -> dict[str, Path]:
        """Path of each source, by the name that its uris begin with."""
        rows = self._rows("SELECT name, root FROM sources ORDER BY name")
        return {name: Path(os.fsdecode(root)) for name, root in rows}

    def records(self, ids: Iterable[int]) -> list[ImageRecord]:
        """The images with these ids, in this order, without unknown and removed ones."""
        wanted = [int(one) for one in ids]
        roots = dict(self._rows("SELECT name, root FROM sources"))
        found: dict[int, ImageRecord] = {}
        for part in parts(wanted):
            query = (
                "SELECT id, uri, label, width, height, shard, row FROM images "
                f"WHERE removed = 0 AND id IN ({marks(part)})"
            )
            for number, uri, *rest in self._rows(query, part):
                found[number] = ImageRecord(number, uri, path_at(uri, roots), *rest)
        return [found[one] for one in wanted if one in found]

    def record(self, image_id: int) -> ImageRecord:
        """The image with this id. Raises NotInGallery if it is unknown or was removed."""
        found = self.records([image_id])
        if not found:
            raise NotInGallery("the gallery holds no image with this id")
        return found[0]

    def key(self, image_id: int) -> bytes:
        """SHA-256 of an image's content, (32,) bytes. Raises NotInGallery as `record` does."""
        query = "SELECT key FROM images WHERE removed = 0 AND id = ?"
        found = self._rows(query, (image_id,))
        if not found:
            raise NotInGallery("the gallery holds no image with this id")
        return bytes(found[0][0])

    def ids_where(self, where: str, values: Sequence[Any]) -> list[int]:
        """Ids of the images for which an SQL condition holds, sorted."""
        query = f"SELECT id FROM images WHERE removed = 0 AND ({where}) ORDER BY id"
        return [image_id for (image_id,) in self._rows(query, values)]

    def excludes(self) -> list[str]:
        """Patterns of the paths that indexing leaves out, in the order in which they were added."""
        return [pattern for (pattern,) in self._rows("SELECT pattern FROM excludes ORDER BY rowid")]

    def images_of_keys(self, keys: Sequence[bytes]) -> dict[bytes, tuple[int, str]]:
        """(id, uri) of the images that have these keys, by key."""
        found = {}
        for part in parts(keys):
            query = f"SELECT key, id, uri FROM images WHERE removed = 0 AND key IN ({marks(part)})"
            found.update({key: (number, uri) for key, number, uri in self._rows(query, part)})
        return found

    def removed_since(self, keys: Sequence[bytes], generation: int) -> set[bytes]:
        """The keys of these whose image was removed after a generation."""
        found = set[bytes]()
        for part in parts(keys):
            query = (
                "SELECT key FROM images "
                f"WHERE removed = 1 AND key IN ({marks(part)}) AND generation > ?"
            )
            found.update(key for (key,) in self._rows(query, (*part, generation)))
        return found

    def known_failures(self, uris: Sequence[str]) -> dict[str, tuple[int, int]]:
        """(size, mtime) of these uris that are recorded as failures, by uri."""
        found = {}
        for part in parts(uris):
            query = f"SELECT uri, size, mtime FROM failures WHERE uri IN ({marks(part)})"
            found.update({uri: (size, mtime) for uri, size, mtime in self._rows(query, part)})
        return found

    def failures_under(self, prefix: str) -> list[str]:
        """Uris of the recorded failures at or below a prefix."""
        where, values = at_or_below("uri", prefix)
        return [uri for (uri,) in self._rows(f"SELECT uri FROM failures WHERE {where}", values)]

    def failure_count(self) -> int:
        return int(self._rows("SELECT count(*) FROM failures")[0][0])

    def failures(self) -> list[tuple[Failure, str]]:
        """Every recorded failure with its time, ordered by uri."""
        roots = dict(self._rows("SELECT name, root FROM sources"))
        rows = self._rows("SELECT uri, reason, size, mtime, time FROM failures ORDER BY uri")
        return [
            (Failure(uri, reason, size, mtime, path_at(uri, roots)), time)
            for uri, reason, size, mtime, time in rows
        ]

    def failures_after(self, uri: str, most: int) -> list[tuple[str, str, str]]:
        """Uri, reason and time of the recorded failures that follow a uri, ordered by uri."""
        query = "SELECT uri, reason, time FROM failures WHERE uri > ? ORDER BY uri LIMIT ?"
        return self._rows(query, (uri, most))

    def last_row(self, table: str) -> dict[str, Any] | None:
        """The row of a table with the highest id, by column name; None if it is empty."""
        row = self._rows(f"SELECT * FROM {table} ORDER BY id DESC LIMIT 1")
        names = [name for (name,) in self._rows("SELECT name FROM pragma_table_info(?)", (table,))]
        return dict(zip(names, row[0], strict=True)) if row else None


# The setting that holds the first generation from which `changes_since` is known.
FOLLOWED_SINCE = "followed_since"
IDENTITY = "identity"  # the setting that tells a gallery from others
# Few images are changed at once, and SQLite might read all of them to find these.
_BY_GENERATION = "images INDEXED BY images_by_generation"
_STORED = "SELECT id, uri, label, key, shard, row, removed"
_OF_SHARDS = "SELECT number, rows, checksums FROM shards"
_SHARD_FILES = f"{_OF_SHARDS} ORDER BY number"


def new_identity() -> str:
    """A random value of the setting IDENTITY."""
    return os.urandom(16).hex()


def _places(
    query: Callable[..., list[Any]], condition: str, shards: Sequence[int]
) -> Iterator[NDArray[np.int64]]:
    """Ids, shards and rows of images, three (n,) int64 arrays ordered by id.

    A shard that is still as it was written has consecutive ids and rows in the same
    order; its rows are computed and not queried one by one.
    query: runs an SQL query. condition, shards: an SQL condition that narrows the query, and its
    parameters.
    """
    whole = (
        "SELECT shard, count(*), min(id), max(id), min(row), min(id - row) = max(id - row) "
        f"FROM images WHERE removed = 0{condition} GROUP BY shard"
    )
    parts = [np.empty((0, 3), np.int64)]
    for shard, count, first, last, row, in_order in query(whole, shards):
        if in_order and last - first + 1 == count:
            steps = np.arange(count)
            parts.append(np.stack([first + steps, np.full(count, shard), row + steps], axis=1))
        else:
            each = "SELECT id, shard, row FROM images WHERE removed = 0 AND shard = ?"
            flat = chain.from_iterable(query(each, (shard,)))
            parts.append(np.fromiter(flat, np.int64).reshape(-1, 3))
    places = np.concatenate(parts)
    if np.any(places[:-1, 0] > places[1:, 0]):
        places = places[np.argsort(places[:, 0])]
    return iter(np.ascontiguousarray(places.T))


def _shard_files(rows: list[Any]) -> dict[int, tuple[int, dict[str, str]]]:
    return {number: (count, json.loads(checksums)) for number, count, checksums in rows}
