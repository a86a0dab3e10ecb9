"""Recording that the files of a gallery have moved to another folder."""

import os
from pathlib import Path

from hashsearch.errors import InvalidSource
from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.changes import change_root, move_failures, move_place, next_generation
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.places import is_lost, uri_at, uris_named
from hashsearch.sources.base import encode_path, file_at, is_gone, split_uri

_AT_ONCE = 20_000  # places of one transaction, which blocks other writers for half a second
_TRIED = 100  # files that are looked for at both paths


def relocate(gallery: GalleryFolder, old: Path, new: Path) -> int:
    """Record that a file or folder, with everything in it, was moved or renamed.

    old: its former path: a source, a folder above sources, or what lies in a source. new: its
    path now. No image is read, and indexing the new place later finds the images unchanged. A
    killed call leaves every image with its old or its new place, and the same call continues.
    Returns the number of places that have another path now. Raises InvalidSource if `new` does
    not exist or lies in `old`, if nothing of the gallery lies at `old`, if files are still there,
    or if none is at `new`; GalleryBusy; and GalleryReadOnly.
    """
    if not new.exists():
        raise InvalidSource(f"{new} does not exist; name the path where the files are now")
    old, new = old.parent.resolve() / old.name, new.resolve()
    if new.is_relative_to(old):
        raise InvalidSource(f"{new} lies in {old}; move the files out of it first")
    catalog, moved = gallery.catalog, 0
    with gallery.job_lock():
        _require_moved(catalog, old, new)
        for name, root in catalog.sources().items():
            if root.is_relative_to(old):
                moved += _move_source(catalog, name, new / root.relative_to(old))
            elif old.is_relative_to(root):
                inside = name + "/" + encode_path(os.fspath(old.relative_to(root)))
                if catalog.uris_under(inside, most=1):
                    moved += _move_places(catalog, inside, uri_at(catalog, new))
    if not moved:
        raise InvalidSource(f"no image of {gallery.folder} lies at {old}")
    return moved


def _require_moved(catalog: Catalog, old: Path, new: Path) -> None:
    """Raise InvalidSource if files are still at `old`, or none is at `new`, by a sample."""
    roots, tried, found = catalog.sources(), 0, 0
    for prefix in uris_named(catalog, os.fspath(old)):
        for uri, known in catalog.known_files(catalog.uris_under(prefix, most=_TRIED)).items():
            name, place = split_uri(uri)
            former = file_at(roots[name], place)
            if not former.is_relative_to(old):
                continue
            if not is_lost(uri, known, roots):
                raise InvalidSource(
                    f"{former} is still there; relocate records what was moved, and index adds "
                    "what was copied"
                )
            tried += 1
            found += not is_gone(new / former.relative_to(old))
    if tried and not found:
        raise InvalidSource(f"no file of {old} is at {new}; name the path where the files are now")


def _move_source(catalog: Catalog, name: str, root: Path) -> int:
    others = {other: path for other, path in catalog.sources().items() if path == root}
    for other in others:  # the new place was indexed before
        return _move_places(catalog, name, other)
    with catalog.transaction() as db:
        change_root(db, name, os.fsencode(root))
        next_generation(db)
    return catalog.count_under(name)


def _move_places(catalog: Catalog, former: str, now: str) -> int:
    """Give every place at or below one uri the corresponding place at or below another."""
    _require_order(catalog, former, now)
    moved, last = 0, ""
    while uris := catalog.uris_under(former, last, _AT_ONCE):
        last = uris[-1]
        with catalog.transaction() as db:
            for uri in uris:
                move_place(db, uri, now + uri.removeprefix(former))
            next_generation(db)
        moved += len(uris)
    with catalog.transaction() as db:
        move_failures(db, former, now)
    return moved


def _require_order(catalog: Catalog, former: str, now: str) -> None:
    """Raise InvalidSource if other images are recorded where these files lie now.

    That is so where those moved too, and their relocation must be recorded first.
    """
    roots, last = catalog.sources(), ""
    while uris := catalog.uris_under(former, last, _AT_ONCE):
        last = uris[-1]
        old = catalog.known_files(uris)
        targets = {now + uri.removeprefix(former): known for uri, known in old.items()}
        for uri, other in catalog.known_files(list(targets)).items():
            known = targets[uri]
            if is_lost(uri, other, roots) and not is_lost(uri, known, roots):
                raise InvalidSource(
                    f"another image was indexed at {catalog.path(uri)}; if its file was moved "
                    "too, relocate that first; otherwise, index its folder first"
                )
