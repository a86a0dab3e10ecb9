"""What may be done to a catalog within a transaction (see `Catalog.transaction`)."""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from hashsearch.gallery.catalog import Failure, NewImage, prefix_range


@dataclass(frozen=True, slots=True)
class Selection:
    """Which images are meant: those that one of these tells, the others being None.

    uri_prefix: with what the uri begins, percent-encoded as uris are.
    """

    ids: Sequence[int] | None = None
    uri_prefix: str | None = None
    label: str | None = None
    shard: int | None = None


def insert_shard(db: sqlite3.Connection, rows: int, checksums: Mapping[str, str]) -> int:
    """Add a shard within a transaction, and return the number that names it."""
    cursor = db.execute(
        "INSERT INTO shards (rows, checksums) VALUES (?, ?)",
        (rows, json.dumps(checksums, sort_keys=True)),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def insert_images(db: sqlite3.Connection, shard: int, images: Sequence[NewImage]) -> None:
    """Add the images of a new shard, in its order.

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


def move_images(db: sqlite3.Connection, ids: Sequence[int], shard: int) -> None:
    """Tell that these images, in this order, are the rows of another shard from now on."""
    db.executemany(
        "UPDATE images SET shard = ?, row = ? WHERE id = ?",
        ((shard, row, image_id) for row, image_id in enumerate(ids)),
    )


def change_codes(db: sqlite3.Connection, shard: int, checksums: Mapping[str, str]) -> None:
    """Let other files of a shard count from now on."""
    db.execute(
        "UPDATE shards SET checksums = ? WHERE number = ?",
        (json.dumps(checksums, sort_keys=True), shard),
    )


def change_model(db: sqlite3.Connection, fingerprint: str) -> None:
    """Tell that the codes are another model's from now on."""
    db.execute("UPDATE settings SET value = ? WHERE name = 'fingerprint'", (fingerprint,))


def retire(db: sqlite3.Connection, uris: Iterable[str]) -> None:
    """Mark the images at these uris as removed."""
    db.executemany(
        "UPDATE images SET removed = 1 WHERE uri = ? AND removed = 0", ((uri,) for uri in uris)
    )


def remove_some(db: sqlite3.Connection, selection: Selection, most: int) -> int:
    """Mark the selected images as removed, so many of them at most; returns how many that were."""
    values: tuple[int | str | None, ...]
    if selection.ids is not None:
        where, values = f"id IN ({', '.join('?' * len(selection.ids))})", tuple(selection.ids)
    elif selection.uri_prefix is not None:
        where, values = "uri >= ? AND uri < ?", prefix_range(selection.uri_prefix)
    elif selection.label is not None:
        where, values = "label = ?", (selection.label,)
    else:
        where, values = "shard = ?", (selection.shard,)
    some = f"SELECT id FROM images WHERE removed = 0 AND {where} LIMIT ?"
    update = f"UPDATE images SET removed = 1 WHERE id IN ({some})"
    return db.execute(update, (*values, most)).rowcount


def touch(db: sqlite3.Connection, files: Iterable[tuple[str, int, int]]) -> None:
    """Note a new (uri, size, mtime) of files whose content stayed."""
    db.executemany("UPDATE images SET size = ?2, mtime = ?3 WHERE uri = ?1 AND removed = 0", files)


def relabel(db: sqlite3.Connection, labels: Iterable[tuple[str, str | None]]) -> None:
    """Give the images at these uris other labels."""
    db.executemany("UPDATE images SET label = ?2 WHERE uri = ?1 AND removed = 0", labels)


def record_failures(db: sqlite3.Connection, failures: Iterable[Failure]) -> None:
    """Note images that could not be read."""
    db.executemany(
        "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)",
        ((f.uri, f.reason, f.size, f.mtime, now()) for f in failures),
    )


def forget_failures(db: sqlite3.Connection, uris: Iterable[str]) -> None:
    """Drop what is noted of images that can be read by now."""
    db.executemany("DELETE FROM failures WHERE uri = ?", ((uri,) for uri in uris))


def next_generation(db: sqlite3.Connection) -> None:
    """Tell readers that the images changed."""
    db.execute("UPDATE settings SET value = value + 1 WHERE name = 'generation'")


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
