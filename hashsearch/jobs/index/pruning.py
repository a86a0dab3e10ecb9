"""Removing the images that are gone from a source."""

from array import array
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.naming import Names
from hashsearch.gallery.places import drop_places
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


def gone(catalog: Catalog, names: Names, seen: SeenSource) -> Iterator[list[str]]:
    """Yield batches of uris whose file, or place in an archive, is gone from a source.

    names: of the source's images. seen: the source, after it was read to its end. Nothing is gone
    if the source yielded nothing, as the empty folder of a disk that is not mounted.
    """
    if not seen.source.is_whole or len(seen) == 0:
        return
    for beginning in names.beginnings():
        last = ""
        while uris := catalog.uris_under(beginning, last, _BATCH):
            last = uris[-1]
            places = {names.place(uri) or "": uri for uri in uris}
            yield [
                places[place]
                for place in seen.unseen(list(places))
                if _has_gone(seen.source, place)
            ]


def prune(catalog: Catalog, names: Names, seen: SeenSource) -> int:
    """Remove the images that are gone from a source, and return their number.

    names, seen: as of `gone`. An image that has other places keeps them.
    """
    return sum(drop_places(catalog, uris) for uris in gone(catalog, names, seen))


def _has_gone(source: Source, place: str) -> bool:
    """Whether an image that the source did not yield is gone.

    A file may exist and not be yielded, because its folder cannot be read.
    """
    if source.is_folder:
        return is_gone(file_at(source.root, place))
    return not is_gone(source.root)
