"""Removing the images that are gone from a source."""

import os
from array import array
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.naming import Names
from hashsearch.gallery.places import drop_places, present
from hashsearch.sources.base import Source, SourceImage, file_at, is_gone

_BATCH = 10_000  # places that are looked up, and dropped, at once


class SeenSource:
    """A source that remembers which places it yielded, in eight bytes each."""

    def __init__(self, source: Source):
        self.source = source
        self._seen = array("q")

    def __iter__(self) -> Iterator[SourceImage]:
        self._seen = array("q")
        for image in self.source:
            self._seen.append(hash(image.place))
            yield image

    def __len__(self) -> int:
        """Number of images that it yielded."""
        return len(self._seen)

    def unseen(self, places: list[str]) -> list[str]:
        """Those of the places that were not yielded."""
        hashes = np.fromiter(map(hash, places), np.int64, len(places))
        found = np.searchsorted(self._sorted, hashes)
        is_seen = self._sorted.take(found, mode="clip") == hashes
        return [place for place, was_seen in zip(places, is_seen, strict=True) if not was_seen]

    @cached_property
    def _sorted(self) -> NDArray[np.int64]:
        return np.sort(np.frombuffer(self._seen, np.int64))


def prune(catalog: Catalog, names: Names, seen: SeenSource) -> int:
    """Remove the images that are gone from a source, and return their number.

    names: of the source's images. seen: the source, after it was read to its end. An image that
    has other places keeps them. Nothing is gone from a source that is missing or empty, as the
    folder of a disk that is not mounted; nor from such a source within this one.
    """
    return sum(drop_places(catalog, uris) for uris in _gone(catalog, names, seen))


def missing_images(catalog: Catalog, names: Names, seen: SeenSource) -> set[int]:
    """Ids of the images that are gone from a source, and whose other places are gone too.

    names, seen: as of `prune`.
    """
    ids = set[int]()
    for uris in _gone(catalog, names, seen):
        records = catalog.records(sorted(set(catalog.ids_at(uris))))
        ids.update(record.id for record in present(catalog, records) if record.missing)
    return ids


def remarks_on_sources_away(catalog: Catalog, names: Names, source: Source) -> list[str]:
    """Sentences on the sources within a source that are missing or empty, if they have images.

    names: of the source's images.
    """
    return [
        f"{path} is missing or empty, so its images stay as they are"
        for inside, name in names.nested
        if _is_away(path := file_at(source.root, inside)) and catalog.uris_under(name, most=1)
    ]


def _gone(catalog: Catalog, names: Names, seen: SeenSource) -> Iterator[list[str]]:
    """Yield batches of uris whose file, or place in an archive, is gone from a source."""
    source = seen.source
    if not source.is_whole or len(seen) == 0:
        return
    here = [name for inside, name in names.nested if not _is_away(file_at(source.root, inside))]
    for beginning in (names.first, *here):
        last = ""
        while uris := catalog.uris_under(beginning, last, _BATCH):
            last = uris[-1]
            places = {names.place(uri) or "": uri for uri in uris}
            yield [places[place] for place in seen.unseen(list(places)) if _has_gone(source, place)]


def _is_away(path: Path) -> bool:
    """Whether a folder or archive is missing, or is an empty folder."""
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except OSError:
        return is_gone(path)


def _has_gone(source: Source, place: str) -> bool:
    """Whether an image that the source did not yield is gone.

    A file may exist and not be yielded, because its folder cannot be read.
    """
    if source.is_folder:
        return is_gone(file_at(source.root, place))
    return not is_gone(source.root)
