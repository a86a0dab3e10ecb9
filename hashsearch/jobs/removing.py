"""Removing images from a gallery."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.changes import (
    Selection,
    condition,
    next_generation,
    remove_some,
)
from hashsearch.gallery.places import drop_places

_AT_ONCE = 20_000  # images of one transaction, which blocks other writers for half a second


@dataclass(frozen=True, slots=True)
class Removal:
    """Number of removed images, and of images that stay, because they have other places."""

    images: int = 0
    kept: int = 0


def remove(catalog: Catalog, selection: Selection) -> Removal:
    """Remove the selected images from every answer.

    By beginnings of uris, the places there are removed, and the images that have no other place.
    Many are removed in several transactions. Their rows stay on disk until `compact`. Raises
    GalleryReadOnly.
    """
    if selection.uri_prefixes is not None:
        return _remove_places(catalog, selection.uri_prefixes)
    return Removal(sum(_remove_images(catalog, part) for part in _parts(selection)))


@dataclass(frozen=True, slots=True)
class Selected:
    """What `remove` would do.

    removal: its outcome. paths: some or all of the selected paths, each with whether its image
    would stay, because it has a place elsewhere too. more: number of the other selected paths.
    """

    removal: Removal
    paths: dict[str, bool]
    more: int


def selected(catalog: Catalog, selection: Selection, most: int | None = None) -> Selected:
    """Find what `remove` would do. most: the most paths to name; None means all."""
    if selection.uri_prefixes is not None:
        images, kept = catalog.count_only_under(selection.uri_prefixes)
        uris = [
            uri
            for prefix in selection.uri_prefixes
            for uri in catalog.uris_under(prefix, most=most)
        ]
        more = sum(map(catalog.count_under, selection.uri_prefixes)) - len(uris[:most])
        stay = _kept(catalog, uris[:most], selection.uri_prefixes)
        paths = {catalog.path(uri): uri in stay for uri in uris[:most]}
        return Selected(Removal(images, kept), paths, more)
    ids = [one for part in _parts(selection) for one in catalog.ids_where(*condition(part))]
    records = catalog.records(ids[:most])
    paths = dict.fromkeys((record.path for record in records), False)
    return Selected(Removal(len(ids)), paths, len(ids) - len(records))


def _kept(catalog: Catalog, uris: Sequence[str], prefixes: Sequence[str]) -> set[str]:
    """Uris of the images that have a place at or below none of the prefixes."""
    kept: set[str] = set()
    for places in catalog.places(list(set(catalog.ids_at(uris)))).values():
        if not all(_is_below(place.uri, prefixes) for place in places):
            kept.update(place.uri for place in places)
    return kept


def _is_below(uri: str, prefixes: Sequence[str]) -> bool:
    """Whether a uri is at or below one of the prefixes, as `Catalog.uris_under` takes it."""
    return any(
        uri.startswith(prefix)
        and (prefix.endswith(("/", "!", "#")) or uri[len(prefix) :][:1] in ("", "/", "!", "#"))
        for prefix in prefixes
    )


def _parts(selection: Selection) -> Iterator[Selection]:
    """Cut ids into parts within SQLite's limit of parameters."""
    if selection.ids is None:
        yield selection
        return
    for start in range(0, len(selection.ids), 500):
        yield Selection(ids=selection.ids[start : start + 500])


def _remove_images(catalog: Catalog, selection: Selection) -> int:
    removed = 0
    while True:
        with catalog.transaction() as db:
            some = remove_some(db, selection, _AT_ONCE)
            if some:
                next_generation(db)
        if not some:
            return removed
        removed += some


def _remove_places(catalog: Catalog, prefixes: Sequence[str]) -> Removal:
    before, images = set[int](), 0
    for prefix in prefixes:
        for uris in _batches(catalog, prefix):
            before.update(catalog.ids_at(uris))
            images += drop_places(catalog, uris)
    return Removal(images, len(before) - images)


def _batches(catalog: Catalog, prefix: str) -> Iterator[list[str]]:
    last = ""
    while uris := catalog.uris_under(prefix, last, _AT_ONCE):
        last = uris[-1]
        yield uris
