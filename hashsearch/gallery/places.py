"""The places of a gallery's images on this machine: which exist, and which a person names."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from hashsearch.errors import InvalidQuery
from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.changes import (
    drop_place,
    has_changed_images,
    next_generation,
    put_first,
)
from hashsearch.gallery.records import ImageRecord, KnownFile
from hashsearch.sources.base import (
    SourceImage,
    encode_path,
    file_at,
    is_gone,
    split_uri,
    uri_of_added_path,
)


def present(catalog: Catalog, records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """The records, each with the first of its places whose file exists.

    If none exists, the first place stays, and `missing` is True.
    """
    roots = catalog.sources()
    gone = {record.id for record in records if is_gone_at(record.uri, roots)}
    if not gone:
        return list(records)
    places = catalog.places(sorted(gone))
    shown = []
    for record in records:
        if record.id in gone:
            others = (
                place for place in places.get(record.id, ()) if not is_gone_at(place.uri, roots)
            )
            place = next(others, None)
            record = (
                replace(record, missing=True)
                if place is None
                else replace(record, uri=place.uri, path=place.path, label=place.label)
            )
        shown.append(record)
    return shown


def drop_places(catalog: Catalog, uris: Sequence[str]) -> int:
    """Forget that images were found at these uris; returns the number of removed images.

    An image that has other places keeps them, and the first that exists becomes its first.
    """
    if not uris:
        return 0
    ids = catalog.ids_at(uris)
    with catalog.transaction() as db:
        removed = sum(drop_place(db, uri) for uri in uris)
        if has_changed_images(db):
            next_generation(db)
    put_existing_first(catalog, list(dict.fromkeys(ids)))
    return removed


def put_existing_first(catalog: Catalog, ids: Sequence[int]) -> None:
    """Make the first place of each of these images one whose file exists, if there is one."""
    recorded = catalog.records(ids)
    shown = present(catalog, recorded)
    changed = [now for now, then in zip(shown, recorded, strict=True) if now.uri != then.uri]
    if changed:
        with catalog.transaction() as db:
            for image in changed:
                put_first(db, image.id, image.uri)
            next_generation(db)


def uris_named(catalog: Catalog, text: str) -> list[str]:
    """The uris, or the beginnings of uris, that a person means: a uri, or a path of any kind.

    text: a uri as it is stored or with its names as they are typed; or the path of a file, a
    folder, an archive, or what is in it, absolute or relative to the working folder. A file has a
    uri in each source that holds it, and a folder above sources names them all. Returns the text
    as a uri if it names nothing in the gallery. Raises InvalidQuery if it names one thing as a uri
    and another as a path.
    """
    if added := uri_of_added_path(text):
        return [added]
    typed = quote(os.fsencode(text), safe="/!#%~+")
    as_path = next(filter(None, (_uris_at(catalog, path) for path in _paths(text))), [])
    if not as_path or typed.rstrip("/") in as_path:
        return as_path or [typed]
    if catalog.uris_under(typed, most=1):
        paths = " and ".join(catalog.path(uri) for uri in (typed, as_path[0]))
        raise InvalidQuery(f"'{text}' may mean {paths}; give the whole path of one of them")
    return as_path


def _paths(text: str) -> list[str]:
    """The paths that a text may name, absolute, the most literal first."""
    path = Path(text)
    paths = [path.absolute()]
    with suppress(OSError, ValueError, RuntimeError):  # what resolving an odd path may raise
        # Sources are named by their resolved paths, and what they hold may be links.
        paths += [path.parent.resolve() / path.name, path.resolve()]
    return [os.fspath(one) for one in dict.fromkeys(paths)]


def _uris_at(catalog: Catalog, path: str) -> list[str]:
    """The uris that a path has in the gallery, at most one in each source."""
    found = []
    for name, root in catalog.sources().items():
        uris = _uris_within(name, os.fspath(root), path)
        found += [uri for uri in uris if catalog.uris_under(uri, most=1)][:1]
    return found


def _uris_within(name: str, root: str, path: str) -> list[str]:
    """The uris that a path may have in a source; the source's name for a folder above it."""
    if Path(root).is_relative_to(path):
        return [name]
    rest = path.removeprefix(root if root != "/" else "")
    if rest == path and root != "/":
        return []
    if rest.startswith("!/"):
        return [name + "!" + encode_path(rest[1:])]
    if rest.startswith("#"):
        return [name + rest]
    if not rest.startswith("/"):
        return []
    file, _, row = rest.rpartition("#")  # of a file of many images, or part of a file's name
    return [name + encode_path(rest), *([f"{name}{encode_path(file)}#{row}"] if file else [])]


def is_lost(uri: str, recorded: KnownFile, roots: Mapping[str, Path]) -> bool:
    """Whether the file at a uri is gone, or is another one than the catalog recorded.

    An archive's members are lost only with the archive.
    """
    place = split_uri(uri)[1]
    file = file_of(uri, roots)
    if file is None:
        return False
    try:
        status = file.stat()
    except (OSError, ValueError):
        return is_gone(file)
    now = SourceImage(place, None, status.st_size, status.st_mtime_ns, file)
    is_file = place.startswith("/") and "#" not in place
    return is_file and (now.size, now.mtime) != (recorded.size, recorded.mtime)


def is_gone_at(uri: str, roots: Mapping[str, Path]) -> bool:
    """Whether the file at a uri is gone; False for an image that was added without a file."""
    file = file_of(uri, roots)
    return file is not None and is_gone(file)


def file_of(uri: str, roots: Mapping[str, Path]) -> Path | None:
    """The file that holds the image at a uri; None for one that was added without a file."""
    name, place = split_uri(uri)
    return file_at(roots[name], place) if name in roots else None


def has_left_its_folder(uri: str, roots: Mapping[str, Path]) -> bool:
    """Whether the image file at a uri is gone from a folder that still holds others.

    False if the folder is missing or holds nothing but hidden files, as a mount point may.
    """
    place = split_uri(uri)[1]
    file = file_of(uri, roots)
    if file is None or "#" in place or not place.startswith("/") or not is_gone(file):
        return False
    try:
        with os.scandir(file.parent) as entries:
            return any(not entry.name.startswith(".") for entry in entries)
    except OSError:
        return False
