"""Changes to a catalog, made within a transaction (see `Catalog.transaction`)."""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime

from hashsearch.gallery.catalog import Failure, NewImage, prefix_range


@dataclass(slots=True)
class Changes:
    """Changes that one commit makes to the catalog.

    images: new images, one for each row of a new shard, in its order. replaced: (uri, key) of
    images whose content is no longer at this uri. touched: (uri, size, mtime) of files whose
    content is the same. relabelled: (uri, label). readable: uris of former failures.
    """

    images: list[NewImage] = field(default_factory=list)
    replaced: list[tuple[str, bytes]] = field(default_factory=list)
    touched: list[tuple[str, int, int]] = field(default_factory=list)
    relabelled: list[tuple[str, str | None]] = field(default_factory=list)
    readable: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: "Changes") -> None:
        """Append another's changes."""
        for entry in fields(Changes):
            getattr(self, entry.name).extend(getattr(other, entry.name))

    def __len__(self) -> int:
        return sum(len(getattr(self, entry.name)) for entry in fields(Changes))


@dataclass(frozen=True, slots=True)
class Selection:
    """A choice of images, by exactly one of these criteria; the others are None.

    uri_prefix: beginning of the uri, percent-encoded as uris are.
    """

    ids: Sequence[int] | None = None
    uri_prefix: str | None = None
    label: str | None = None
    shard: int | None = None


def apply(db: sqlite3.Connection, changes: Changes) -> None:
    """Apply all changes except the new images, which `insert_images` adds with their shard."""
    db.executemany(
        "UPDATE images SET removed = 1 WHERE uri = ? AND key = ? AND removed = 0",
        changes.replaced,
    )
    db.executemany(
        "UPDATE images SET size = ?2, mtime = ?3 WHERE uri = ?1 AND removed = 0", changes.touched
    )
    db.executemany(
        "UPDATE images SET label = ?2 WHERE uri = ?1 AND removed = 0", changes.relabelled
    )
    _forget_failures(db, changes.readable)
    db.executemany(
        "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)",
        ((f.uri, f.reason, f.size, f.mtime, now()) for f in changes.failures),
    )


def insert_shard(db: sqlite3.Connection, rows: int, checksums: Mapping[str, str]) -> int:
    """Add a shard; returns its number."""
    cursor = db.execute(
        "INSERT INTO shards (rows, checksums) VALUES (?, ?)",
        (rows, json.dumps(checksums, sort_keys=True)),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def insert_images(db: sqlite3.Connection, shard: int, images: Sequence[NewImage]) -> None:
    """Add the images of a new shard, in the order of its rows.

    An image with the same uri is replaced. An image whose key the gallery already holds,
    because another writer was first, is left out; its row in the shard stays unused.
    """
    db.executemany(
        "UPDATE images SET removed = 1 WHERE uri = ? AND removed = 0",
        ((image.uri,) for image in images),
    )
    db.executemany(
        "INSERT INTO images (key, uri, label, width, height, size, mtime, shard, row) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            (i.key, i.uri, i.label, i.width, i.height, i.size, i.mtime, shard, row)
            for row, i in enumerate(images)
        ),
    )
    _forget_failures(db, (image.uri for image in images))


def move_images(db: sqlite3.Connection, ids: Sequence[int], shard: int) -> None:
    """Point these images, in this order, to the rows of another shard."""
    db.executemany(
        "UPDATE images SET shard = ?, row = ? WHERE id = ?",
        ((shard, row, image_id) for row, image_id in enumerate(ids)),
    )


def change_files(db: sqlite3.Connection, shard: int, checksums: Mapping[str, str]) -> None:
    """Replace the files that belong to a shard, by their SHA-256."""
    db.execute(
        "UPDATE shards SET checksums = ? WHERE number = ?",
        (json.dumps(checksums, sort_keys=True), shard),
    )


def change_model(db: sqlite3.Connection, fingerprint: str) -> None:
    """Record that the codes were made by another model."""
    db.execute("UPDATE settings SET value = ? WHERE name = 'fingerprint'", (fingerprint,))


def remove_some(db: sqlite3.Connection, selection: Selection, most: int) -> int:
    """Mark at most `most` of the selected images as removed; returns their number."""
    values: tuple[int | str | None, ...]
    if selection.ids is not None:
        where, values = f"id IN ({', '.join('?' * len(selection.ids))})", tuple(selection.ids)
    elif selection.uri_prefix is not None:
        where, values = "uri >= ? AND uri < ?", prefix_range(selection.uri_prefix)
    elif selection.label is not None:
        where, values = "label = ?", (selection.label,)
    else:
        where, values = "shard = ?", (selection.shard,)
    selected = f"SELECT id FROM images WHERE removed = 0 AND {where} LIMIT ?"
    update = f"UPDATE images SET removed = 1 WHERE id IN ({selected})"
    return db.execute(update, (*values, most)).rowcount


def next_generation(db: sqlite3.Connection) -> None:
    """Increase the generation, so that readers notice the change of the images."""
    db.execute("UPDATE settings SET value = value + 1 WHERE name = 'generation'")


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _forget_failures(db: sqlite3.Connection, uris: Iterable[str]) -> None:
    db.executemany("DELETE FROM failures WHERE uri = ?", ((uri,) for uri in uris))
