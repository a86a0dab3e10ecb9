"""Removing the images that are gone from a source."""

from array import array
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.naming import Names
from hashsearch.gallery.places import drop_places, present
from hashsearch.sources.base import Source, SourceImage, file_at, is_gone
from hashsearch.wording import counted

_BATCH = 10_000  # places that are looked up, and dropped, at once


class SeenSource:
    """A source that remembers which places it yielded, in eight bytes each.

    names: of its images. away: the paths of sources within it, below which it yielded nothing.
    """

    def __init__(self, source: Source, names: Names):
        self.source, self.names = source, names
        self._seen = array("q")
        self.away = {inside for inside, _ in names.nested}

    def __iter__(self) -> Iterator[SourceImage]:
        self._seen = array("q")
        self.away = {inside for inside, _ in self.names.nested}
        for image in self.source:
            self._seen.append(hash(image.place))
            self.away -= {inside for inside in self.away if image.place.startswith(f"{inside}/")}
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


def prune(catalog: Catalog, seen: SeenSource) -> int:
    """Remove the images that are gone from a source, and return their number.

    seen: the source, after it was read to its end. An image that has other places keeps them.
    Nothing is gone from a source that is missing or holds no image, as the folder of a disk that
    is not mounted; nor from such a source within this one.
    """
    return sum(drop_places(catalog, uris) for uris in _gone(catalog, seen))


def missing_images(catalog: Catalog, seen: SeenSource) -> set[int]:
    """Ids of the images that are gone from a source, and whose other places are gone too.

    seen: as of `prune`.
    """
    ids = set[int]()
    for uris in _gone(catalog, seen):
        ids |= _without_file(catalog, uris)
    return ids


def remarks_on_sources_away(catalog: Catalog, seen: SeenSource) -> list[str]:
    """Sentences on the sources within a source that are away, if images of them have no file.

    seen: as of `prune`.
    """
    remarks: list[str] = []
    if not seen.source.is_whole:
        return remarks
    for inside, name in seen.names.nested:
        if inside in seen.away:
            ids = set[int]()
            for uris in _batches(catalog, name):
                ids |= _without_file(catalog, uris)
            if ids:
                remarks.append(
                    f"{file_at(seen.source.root, inside)} holds no image now, and the gallery "
                    f"keeps its {counted(len(ids), 'image')}; `hashsearch gallery relocate` "
                    "records that they have moved, and `gallery remove --uri` removes them"
                )
    return remarks


def _gone(catalog: Catalog, seen: SeenSource) -> Iterator[list[str]]:
    """Yield batches of uris whose file, or place in an archive, is gone from a source."""
    if not seen.source.is_whole or len(seen) == 0:
        return
    names = seen.names
    here = (name for inside, name in names.nested if inside not in seen.away)
    for beginning in (names.first, *here):
        for uris in _batches(catalog, beginning):
            places = {names.place(uri) or "": uri for uri in uris}
            yield [
                places[place]
                for place in seen.unseen(list(places))
                if _has_gone(seen.source, place)
            ]


def _without_file(catalog: Catalog, uris: list[str]) -> set[int]:
    """Ids of the images at these uris that have no file any more."""
    records = catalog.records(sorted(set(catalog.ids_at(uris))))
    return {record.id for record in present(catalog, records) if record.missing}


def _batches(catalog: Catalog, beginning: str) -> Iterator[list[str]]:
    """Uris of a source that the gallery has, also while they are dropped."""
    last = ""
    while uris := catalog.uris_under(beginning, last, _BATCH):
        last = uris[-1]
        yield uris


def _has_gone(source: Source, place: str) -> bool:
    """Whether an image that the source did not yield is gone.

    A file may exist and not be yielded, because its folder cannot be read.
    """
    if source.is_folder:
        return is_gone(file_at(source.root, place))
    return not is_gone(source.root)
