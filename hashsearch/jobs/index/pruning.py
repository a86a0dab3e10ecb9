"""Removing the images that are gone from a source."""

from array import array
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hashsearch.gallery.changes import drop_place, next_generation
from hashsearch.gallery.gallery_folder import GalleryFolder
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

    def unseen(self, places: list[str]) -> list[str]:
        """Those of the places that were not yielded."""
        hashes = np.fromiter(map(hash, places), np.int64, len(places))
        found = np.searchsorted(self._sorted, hashes)
        is_seen = self._sorted.take(found, mode="clip") == hashes
        return [place for place, was_seen in zip(places, is_seen, strict=True) if not was_seen]

    @cached_property
    def _sorted(self) -> NDArray[np.int64]:
        return np.sort(np.frombuffer(self._seen, np.int64))


def prune(gallery: GalleryFolder, name: str, seen: SeenSource) -> int:
    """Remove the images whose file, or place in an archive, is gone from a source.

    name: beginning of the source's uris. seen: the source, after it was read to its end. An image
    that has other places keeps them. Returns the number of removed images.
    """
    if not seen.source.is_whole:
        return 0
    removed, last = 0, ""
    while uris := gallery.catalog.uris_under(name, last, _BATCH):
        last = uris[-1]
        places = [uri.removeprefix(name) for uri in uris]
        gone = [place for place in seen.unseen(places) if _has_gone(seen.source, place)]
        if gone:
            with gallery.catalog.transaction() as db:
                removed += sum(drop_place(db, name + place) for place in gone)
                next_generation(db)
    return removed


def _has_gone(source: Source, place: str) -> bool:
    """Whether an image that the source did not yield is gone.

    A file may exist and not be yielded, because its folder cannot be read.
    """
    if place.startswith("/") and "#" not in place:
        return is_gone(file_at(source.root, place))
    return not is_gone(source.root)
