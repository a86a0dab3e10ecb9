"""Names of files: each file has one uri, which begins with the innermost source that holds it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.changes import (
    drop_place,
    has_changed_images,
    move_failures,
    move_place,
    next_generation,
)
from hashsearch.gallery.places import is_lost
from hashsearch.sources.base import Source, encode_path

_AT_ONCE = 20_000  # places of one transaction, which blocks other writers for half a second


@dataclass(frozen=True, slots=True)
class Names:
    """How the images of one source are named.

    first: beginning of the uris. nested: (path within the source, name) of the sources within it,
    the innermost first; what they hold is named by them.
    """

    first: str
    nested: Sequence[tuple[str, str]] = ()

    def uri(self, place: str) -> str:
        """The uri of the image at a place. place: as in SourceImage."""
        for inside, name in self.nested:
            if place.startswith(inside + "/"):
                return name + place.removeprefix(inside)
        return self.first + place

    def place(self, uri: str) -> str | None:
        """The inverse of `uri`: the place within the source; None if it is not in it."""
        for inside, name in (*self.nested, ("", self.first)):
            if uri.startswith(name) and uri[len(name) :].startswith(("/", "!", "#")):
                return inside + uri.removeprefix(name)
        return None

    def beginnings(self) -> list[str]:
        """Beginnings of all uris of the source."""
        return [self.first, *(name for _, name in self.nested)]


def names_of(catalog: Catalog, sources: Sequence[Source]) -> list[Names]:
    """How the images of each source are named; new sources are recorded. Raises GalleryReadOnly."""
    first = [
        catalog.source_name(source.root)
        if source.is_whole or not source.is_folder
        else uri_at(catalog, source.root)  # of an image file, which makes no source of its own
        for source in sources
    ]
    return [
        names_at(catalog, source.root) if source.is_folder else Names(name)
        for name, source in zip(first, sources, strict=True)
    ]


def names_at(catalog: Catalog, path: Path) -> Names:
    """How the images of a folder or archive are named; by nothing where no source holds it.

    path: absolute and without links.
    """
    roots = _innermost_first(catalog)
    first = next((_uri(name, root, path) for name, root in roots if path.is_relative_to(root)), "")
    return Names(
        first, [(_uri("", path, root), name) for name, root in roots if path in root.parents]
    )


def uri_at(catalog: Catalog, path: Path) -> str:
    """The uri of a file or folder: within the innermost source that holds it, or as a new source.

    path: of what exists, absolute and without links. Raises GalleryReadOnly.
    """
    if known := names_at(catalog, path).first:
        return known
    if path.is_dir():
        return catalog.source_name(path)
    return catalog.source_name(path.parent) + "/" + encode_path(path.name)


def join_nested(catalog: Catalog) -> None:
    """Name every file by its innermost source, also where a source came to lie within another.

    Of two images at one path, the one whose file is there keeps the place.
    """
    roots = _innermost_first(catalog)
    names = {root: name for name, root in roots}
    for name, root in roots:
        for folder in root.parents:
            if folder in names:
                _rename(catalog, _uri(names[folder], folder, root), name)


def _rename(catalog: Catalog, former: str, now: str) -> None:
    roots = catalog.sources()
    while uris := catalog.uris_under(former, most=_AT_ONCE):
        new = {uri: now + uri.removeprefix(former) for uri in uris}
        known, others = catalog.known_files(uris), catalog.known_files(list(new.values()))
        with catalog.transaction() as db:
            for uri, file in known.items():
                other = others.get(new[uri])
                if (
                    other is not None
                    and other.key != file.key
                    and is_lost(new[uri], other, roots)
                    and not is_lost(new[uri], file, roots)
                ):
                    drop_place(db, new[uri], other.key)
                move_place(db, uri, new[uri])
            if has_changed_images(db):
                next_generation(db)
    if failed := catalog.failures_under(former):
        with catalog.transaction() as db:
            move_failures(db, {uri: now + uri.removeprefix(former) for uri in failed})


def _innermost_first(catalog: Catalog) -> list[tuple[str, Path]]:
    """(name, root) of every source."""
    return sorted(catalog.sources().items(), key=lambda named: -len(named[1].parts))


def _uri(name: str, root: Path, path: Path) -> str:
    """The uri of a path in a source."""
    return name if path == root else name + "/" + encode_path(str(path.relative_to(root)))
