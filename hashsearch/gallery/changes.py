"""Changes to a catalog, made within a transaction (see `Catalog.transaction`)."""

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path

from hashsearch.gallery.catalog import FOLLOWED_SINCE
from hashsearch.gallery.catalog_file import marks, parts
from hashsearch.gallery.records import Failure, FoundPlace, NewImage
from hashsearch.sources.base import split_uri
from hashsearch.sources.folder import folder_label, printable

# The generation that the current transaction makes.
_NEXT = "(SELECT value + 1 FROM settings WHERE name = 'generation')"
_PLACE = "uri, label, label_given, size, mtime"


@dataclass(slots=True)
class Changes:
    """Changes that one commit makes to the catalog.

    images: new images, one for each row of a new shard, in its order. found: further places of
    images. dropped: (uri, key) of images whose content is no longer at this uri. touched: (uri,
    size, mtime) of files whose content is the same. relabelled: (uri, label) that a person gave.
    labelled: (uri, label) that a source gives to an image without one. readable: uris of former
    failures. gone: keys of images whose first place is gone.
    """

    images: list[NewImage] = field(default_factory=list)
    found: list[FoundPlace] = field(default_factory=list)
    dropped: list[tuple[str, bytes]] = field(default_factory=list)
    touched: list[tuple[str, int, int]] = field(default_factory=list)
    relabelled: list[tuple[str, str | None]] = field(default_factory=list)
    labelled: list[tuple[str, str]] = field(default_factory=list)
    readable: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    gone: list[bytes] = field(default_factory=list)

    def add(self, other: "Changes") -> None:
        """Append another's changes."""
        for entry in fields(Changes):
            getattr(self, entry.name).extend(getattr(other, entry.name))

    def __len__(self) -> int:
        return sum(len(getattr(self, entry.name)) for entry in fields(Changes))

    def with_other_places(self) -> set[bytes]:
        """Keys of the images that have other places now, or whose first place is gone."""
        found, dropped = (place.key for place in self.found), (key for _, key in self.dropped)
        return {*found, *dropped, *self.gone}


@dataclass(frozen=True, slots=True)
class Selection:
    """A choice of images, by exactly one of these criteria; the others are None.

    uri_prefixes: uris, or the beginnings of uris up to the end of a folder's or archive's name,
    percent-encoded as uris are.
    """

    ids: Sequence[int] | None = None
    uri_prefixes: Sequence[str] | None = None
    label: str | None = None
    shard: int | None = None


def apply(db: sqlite3.Connection, changes: Changes, shard: int | None = None) -> None:
    """Apply changes. shard: the number of the new images' shard.

    A place is dropped before it is given to another image, so an image that lost its last place
    and was found at another one, as when two files change places, is first removed and then
    restored, with its id.
    """
    for uri, key in changes.dropped:
        drop_place(db, uri, key)
    if shard is not None:
        for place in _insert_images(db, shard, changes.images):
            _add_place(db, place)
    for place in changes.found:
        _add_place(db, place)
    for table, alive in (("images", " AND removed = 0"), ("places", "")):
        db.executemany(
            f"UPDATE {table} SET size = ?2, mtime = ?3 WHERE uri = ?1{alive}", changes.touched
        )
    for uri, label in changes.relabelled:
        _relabel(db, uri, label)
    labelled = [*changes.labelled, *((place.uri, place.label) for place in changes.found)]
    unlabelled = "label = ?2 WHERE uri = ?1 AND label IS NULL AND label_given = 0"
    db.executemany(f"UPDATE places SET {unlabelled} AND ?2 NOT NULL", labelled)
    db.executemany(
        f"UPDATE images SET generation = {_NEXT}, {unlabelled} AND ?2 NOT NULL AND removed = 0",
        labelled,
    )
    forget_failures(db, changes.readable)
    db.executemany(
        "INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)",
        ((f.uri, f.reason, f.size, f.mtime, now()) for f in changes.failures),
    )


def drop_place(db: sqlite3.Connection, uri: str, key: bytes | None = None) -> bool:
    """Forget that an image was found at a uri; returns whether it is removed.

    An image with other places keeps them; the oldest becomes its first. key: of the image; None
    means any.
    """
    its = "uri = ?1 AND (?2 IS NULL OR ?2 = (SELECT key FROM images WHERE id = image))"
    _note_change(db, f"id = (SELECT image FROM places WHERE {its})", (uri, key))
    db.execute(f"DELETE FROM places WHERE {its}", (uri, key))
    owner = "SELECT id FROM images WHERE removed = 0 AND uri = ?1 AND (?2 IS NULL OR key = ?2)"
    found = db.execute(owner, (uri, key)).fetchone()
    if found is None:
        return False
    other = db.execute(
        f"SELECT id, {_PLACE} FROM places WHERE image = ? ORDER BY id LIMIT 1", found
    ).fetchone()
    if other is None:
        db.execute(f"UPDATE images SET removed = 1, generation = {_NEXT} WHERE id = ?", found)
        return True
    place, *values = other
    db.execute("DELETE FROM places WHERE id = ?", (place,))
    _lead(db, found[0], values)
    return False


def put_first(db: sqlite3.Connection, image_id: int, uri: str) -> None:
    """Exchange an image's first place and one of its further places."""
    further = f"SELECT id, {_PLACE} FROM places WHERE image = ? AND uri = ?"
    found = db.execute(further, (image_id, uri)).fetchone()
    if found is None:  # another writer dropped it meanwhile
        return
    place, *values = found
    db.execute(
        f"UPDATE places SET ({_PLACE}) = (SELECT uri, label, label_given = 2, size, mtime "
        "FROM images WHERE id = image) WHERE id = ?",
        (place,),
    )
    _lead(db, image_id, values)


def move_place(db: sqlite3.Connection, uri: str, new: str) -> None:
    """Record that a file is at another uri now.

    If another place is recorded there, that one stays; of two places of one image, its first does.
    A label that was the name of the file's folder becomes that of its new folder.
    """
    db.execute(
        "DELETE FROM places WHERE uri = ?2 "
        "AND image = (SELECT id FROM images WHERE uri = ?1 AND removed = 0)",
        (uri, new),
    )
    known = (
        "SELECT EXISTS (SELECT 1 FROM images WHERE removed = 0 AND uri = ?1) "
        "OR EXISTS (SELECT 1 FROM places WHERE uri = ?1)"
    )
    if db.execute(known, (new,)).fetchone()[0]:
        drop_place(db, uri)
        return
    _note_change(db, "id = (SELECT image FROM places WHERE uri = ?)", (uri,))
    db.execute("UPDATE places SET uri = ?2 WHERE uri = ?1", (uri, new))
    db.execute(
        f"UPDATE images SET uri = ?2, generation = {_NEXT} WHERE uri = ?1 AND removed = 0",
        (uri, new),
    )
    former, now = _folder_name(db, uri), _folder_name(db, new)
    if former is not None and now not in (None, former):
        label = "SET label = ?3 WHERE uri = ?1 AND label IS ?2 AND label_given = 0"
        db.execute(f"UPDATE places {label}", (new, former, now))
        db.execute(f"UPDATE images {label} AND removed = 0", (new, former, now))


def _folder_name(db: sqlite3.Connection, uri: str) -> str | None:
    """The name of the folder that holds an image file; None for what is in an archive."""
    name, place = split_uri(uri)
    if not place.startswith("/") or "/" in place[1:]:
        return folder_label(place)
    found = db.execute("SELECT root FROM sources WHERE name = ?", (name,)).fetchone()
    return None if found is None or "#" in place else printable(Path(os.fsdecode(found[0])).name)


def move_failures(db: sqlite3.Connection, uris: Mapping[str, str]) -> None:
    """Record that failures are at other uris now, by their former ones."""
    db.executemany("UPDATE OR REPLACE failures SET uri = ?2 WHERE uri = ?1", uris.items())


def change_root(db: sqlite3.Connection, name: str, former: Path, now: Path) -> None:
    """Record that a source is at another path now.

    A label that was the name of its folder becomes the new name.
    """
    db.execute("UPDATE sources SET root = ? WHERE name = ?", (os.fsencode(now), name))
    if former.name == now.name:
        return
    label = (
        "SET label = ?3 WHERE uri > ?1 || '/' AND uri < ?1 || '0' "
        "AND instr(substr(uri, length(?1) + 2), '/') = 0 AND label = ?2 AND label_given = 0"
    )
    values = (name, printable(former.name), printable(now.name))
    db.execute(f"UPDATE places {label}", values)
    images = label.replace("SET", f"SET generation = {_NEXT},", 1)
    db.execute(f"UPDATE images {images} AND removed = 0", values)


def change_excludes(
    db: sqlite3.Connection, added: Iterable[str] = (), dropped: Iterable[str] = ()
) -> None:
    """Add and drop patterns of the paths that indexing leaves out."""
    db.executemany("INSERT OR IGNORE INTO excludes VALUES (?)", ((one,) for one in added))
    db.executemany("DELETE FROM excludes WHERE pattern = ?", ((one,) for one in dropped))


def _note_change(db: sqlite3.Connection, where: str, values: Sequence[str | bytes | None]) -> None:
    """Note that images were changed by this transaction, though their rows were not."""
    db.execute(f"UPDATE images SET generation = {_NEXT} WHERE removed = 0 AND {where}", values)


def _lead(db: sqlite3.Connection, image_id: int, place: Sequence[str | int | None]) -> None:
    """Make a place an image's first one; an image that was removed is restored.

    A label that was given to another place stays, unless one was given to this place.
    place: the columns of _PLACE.
    """
    db.execute(
        "UPDATE images SET uri = ?1, label = iif(?3 OR NOT label_given, ?2, label), "
        "label_given = iif(?3, 2, label_given > 0), size = ?4, mtime = ?5, removed = 0, "
        f"generation = {_NEXT} WHERE id = ?6",
        (*place, image_id),
    )


def _relabel(db: sqlite3.Connection, uri: str, label: str | None) -> None:
    """Record the label that a person gave to the image at a uri.

    If they gave one to the image's first place, that one is the image's.
    """
    db.execute("UPDATE places SET label = ?2, label_given = 1 WHERE uri = ?1", (uri, label))
    db.execute(
        f"UPDATE images SET label = ?2, label_given = 2, generation = {_NEXT} "
        "WHERE uri = ?1 AND removed = 0 AND (label IS NOT ?2 OR label_given < 2)",
        (uri, label),
    )
    db.execute(
        f"UPDATE images SET label = ?2, label_given = 1, generation = {_NEXT} "
        "WHERE id = (SELECT image FROM places WHERE uri = ?1) AND label_given < 2 "
        "AND (label IS NOT ?2 OR label_given = 0)",
        (uri, label),
    )


def _add_place(db: sqlite3.Connection, place: FoundPlace) -> None:
    """Give a place to the image with its key; an image that was removed is restored."""
    values = (place.uri, place.label, place.label_given, place.size, place.mtime)
    alive = "SELECT id, uri FROM images WHERE key = ? AND removed = 0"
    found = db.execute(alive, (place.key,)).fetchone()
    if found is not None:
        if found[1] != place.uri:  # otherwise another writer recorded it meanwhile
            drop_place(db, place.uri)
            columns = f"INSERT INTO places (image, {_PLACE}) VALUES (?, ?, ?, ?, ?, ?)"
            db.execute(columns, (found[0], *values))
            _note_change(db, "id = ?", found[:1])
        if place.label_given:
            _relabel(db, place.uri, place.label)
        return
    drop_place(db, place.uri)
    last = "SELECT id FROM images WHERE key = ? AND removed = 1 ORDER BY id DESC LIMIT 1"
    removed = db.execute(last, (place.key,)).fetchone()
    if removed is not None:  # otherwise it was compacted meanwhile, and the next job adds it
        _lead(db, removed[0], values)


def insert_shard(db: sqlite3.Connection, rows: int, checksums: Mapping[str, str]) -> int:
    """Add a shard; returns its number."""
    cursor = db.execute(
        "INSERT INTO shards (rows, checksums) VALUES (?, ?)",
        (rows, json.dumps(checksums, sort_keys=True)),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _insert_images(
    db: sqlite3.Connection, shard: int, images: Sequence[NewImage]
) -> list[FoundPlace]:
    """Add the images of a new shard, in the order of its rows.

    Returns the images that the gallery already holds, because another writer was first, as
    further places; their rows in the shard stay unused.
    """
    held, used = set[bytes](), set[str]()
    for part in parts(images):
        keys, uris = [image.key for image in part], [image.uri for image in part]
        alive = f"SELECT key FROM images WHERE removed = 0 AND key IN ({marks(part)})"
        held.update(key for (key,) in db.execute(alive, keys))
        at = (
            f"SELECT uri FROM images WHERE removed = 0 AND uri IN ({marks(part)}) "
            f"UNION ALL SELECT uri FROM places WHERE uri IN ({marks(part)})"
        )
        used.update(uri for (uri,) in db.execute(at, (*uris, *uris)))
    for image in images:
        if image.uri in used and image.key not in held:
            drop_place(db, image.uri)
    db.executemany(
        "INSERT INTO images (key, uri, label, label_given, width, height, size, mtime, shard, row, "
        f"generation) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {_NEXT}) ON CONFLICT DO NOTHING",
        (
            (
                i.key,
                i.uri,
                i.label,
                2 * i.label_given,
                i.width,
                i.height,
                i.size,
                i.mtime,
                shard,
                row,
            )
            for row, i in enumerate(images)
            if i.key not in held
        ),
    )
    forget_failures(db, (image.uri for image in images))
    return [
        FoundPlace(i.key, i.uri, i.label, i.size, i.mtime, i.label_given)
        for i in images
        if i.key in held
    ]


def move_images(db: sqlite3.Connection, ids: Sequence[int], shard: int) -> None:
    """Point these images, in this order, to the rows of another shard."""
    db.executemany(
        "UPDATE images SET shard = ?, row = ? WHERE id = ?",
        ((shard, row, image_id) for row, image_id in enumerate(ids)),
    )


def drop_shard(db: sqlite3.Connection, shard: int) -> None:
    """Delete a shard, and the removed images in it; others were moved to another shard before."""
    last = "SELECT max(generation) FROM images WHERE shard = ?"
    _follow_from(db, db.execute(last, (shard,)).fetchone()[0] or 0)
    db.execute("DELETE FROM images WHERE shard = ?", (shard,))
    db.execute("DELETE FROM shards WHERE number = ?", (shard,))


def _follow_from(db: sqlite3.Connection, generation: int) -> None:
    """Record that changes before a generation cannot be read from the images any more."""
    db.execute(
        "INSERT INTO settings VALUES (?1, ?2) ON CONFLICT DO UPDATE "
        "SET value = max(CAST(value AS INTEGER), ?2)",
        (FOLLOWED_SINCE, generation),
    )


def change_files(db: sqlite3.Connection, shard: int, checksums: Mapping[str, str]) -> None:
    """Replace the files that belong to a shard, by their SHA-256."""
    db.execute(
        "UPDATE shards SET checksums = ? WHERE number = ?",
        (json.dumps(checksums, sort_keys=True), shard),
    )


def change_model(db: sqlite3.Connection, fingerprint: str) -> None:
    """Record that the codes were made again, perhaps by another model."""
    db.execute("UPDATE settings SET value = ? WHERE name = 'fingerprint'", (fingerprint,))
    _follow_from(db, db.execute(f"SELECT {_NEXT}").fetchone()[0])


def condition(selection: Selection) -> tuple[str, tuple[int | str | None, ...]]:
    """The SQL condition of a selection by ids, label or shard, and its parameters."""
    if selection.ids is not None:
        return f"id IN ({marks(selection.ids)})", tuple(selection.ids)
    if selection.label is not None:
        return "label = ?", (selection.label,)
    return "shard = ?", (selection.shard,)


def remove_some(db: sqlite3.Connection, selection: Selection, most: int) -> int:
    """Mark at most `most` images as removed, with all their places; returns their number.

    The selection is by ids, label or shard.
    """
    where, values = condition(selection)
    chosen = f"SELECT id FROM images WHERE removed = 0 AND {where} LIMIT ?"
    found = db.execute(chosen, (*values, most)).fetchall()
    db.executemany("DELETE FROM places WHERE image = ?", found)
    db.executemany(f"UPDATE images SET removed = 1, generation = {_NEXT} WHERE id = ?", found)
    return len(found)


def next_generation(db: sqlite3.Connection) -> None:
    """Increase the generation, so that readers notice the change of the images."""
    db.execute("UPDATE settings SET value = value + 1 WHERE name = 'generation'")


def has_changed_images(db: sqlite3.Connection) -> bool:
    """Whether this transaction has changed the row of an image."""
    return bool(
        db.execute(f"SELECT EXISTS (SELECT 1 FROM images WHERE generation >= {_NEXT})").fetchone()[
            0
        ]
    )


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def forget_failures(db: sqlite3.Connection, uris: Iterable[str]) -> None:
    """Delete the records of failures at these uris."""
    db.executemany("DELETE FROM failures WHERE uri = ?", ((uri,) for uri in uris))
