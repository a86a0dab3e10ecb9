"""Searches in a gallery: an image, an id or a code in, ranked hits out."""

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hashsearch.closeness import Closeness
from hashsearch.codes import CODE_BYTES, require_code_bytes
from hashsearch.errors import (
    HashSearchError,
    InvalidGallery,
    InvalidModel,
    InvalidQuery,
    NotInGallery,
)
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.places import present
from hashsearch.gallery.records import Rows
from hashsearch.images import PREPROCESSING, TINY_BYTES, decode
from hashsearch.models.card import of_other_rules, read_card
from hashsearch.retrieval.methods import DEFAULT_METHOD, SERVED
from hashsearch.search import NO_POSITION, Block, Index
from hashsearch.search.subset import Subset, of_mask

if TYPE_CHECKING:
    from hashsearch.encoder import Encoder

DEFAULT_K = 10


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for.

    code: (32,) uint8. tiny: (32, 32, 3) uint8, or None for a query by code. image_id: for a
    query by id, the image's id, which is left out of the answer.
    """

    code: NDArray[np.uint8]
    tiny: NDArray[np.uint8] | None = None
    image_id: int | None = None

    def values(self, column: str) -> NDArray[np.uint8] | None:
        """The query's values of a gallery's column, (width,) uint8; None if it has none."""
        if column == "codes":
            return self.code
        assert column == "pixels", column
        return None if self.tiny is None else self.tiny.reshape(TINY_BYTES)


@dataclass(frozen=True, slots=True)
class Hit:
    """An image that was found.

    distance: in bits with the method "codes", squared with "pixels". label: None if the image
    has none. path: of the image's file. uri: the name of its source and the path within it,
    percent-encoded. closeness: what the distance means, "same", "near", "alike" or "far"; None with
    methods other than "codes", and if it was not measured of the gallery's model. missing: whether
    the file is gone, and no other file with the same bytes is known.

    >>> gallery.search(7, k=1)[0].id != 7
    True
    """

    id: int
    distance: int
    label: str | None
    path: str
    uri: str
    closeness: str | None = None
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Ranking:
    """The hits of one method, nearest first, equal distances in order of id.

    truncated: whether `cap` cut off images within the radius. latency_ms: time of the search.

    >>> len(gallery.rank(7, k=3).hits)
    3
    """

    method: str
    hits: list[Hit]
    truncated: bool
    latency_ms: float

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n_hits,) int64 ids."""
        return np.array([hit.id for hit in self.hits], np.int64)

    @property
    def distances(self) -> NDArray[np.int32]:
        """(n_hits,) int32 distances."""
        return np.array([hit.distance for hit in self.hits], np.int32)


class Searcher:
    """A gallery's model and indexes in memory, as of the moment they were read."""

    def __init__(self, gallery: GalleryFolder, encoder: "Encoder | None" = None):
        """encoder: of an earlier Searcher, kept if the gallery has the same model and precision.

        Raises InvalidGallery or InvalidModel if the gallery is damaged.
        """
        self.gallery = gallery
        while True:
            rows = gallery.catalog.rows()
            try:
                card = read_card(gallery.model_folder_of(rows.fingerprint))
                self._indexes: dict[str, Index] = {
                    name: method.index(_blocks(gallery, method.column, rows))
                    for name, method in SERVED.items()
                    if gallery.has_column(method.column)
                }
            except (InvalidGallery, InvalidModel):
                if gallery.catalog.generation() == rows.generation:
                    raise  # damaged; otherwise a job compacted or reencoded it meanwhile
            else:
                break
        self.generation, self.fingerprint = rows.generation, rows.fingerprint
        self.ids = rows.ids
        self.closeness: Closeness | None = card.closeness
        self._present: NDArray[np.bool_] | None = None  # None until an image was removed
        if encoder is not None and (encoder.fingerprint, encoder.precision) == (
            rows.fingerprint,
            gallery.precision,
        ):
            self.encoder = encoder

    @classmethod
    def with_model(cls, gallery: GalleryFolder, encoder: "Encoder | None" = None) -> "Searcher":
        """A Searcher whose model is loaded at once, or kept from an earlier one.

        Raises InvalidGallery, and what `read_model` raises.
        """
        while True:
            searcher = cls(gallery, encoder)
            try:
                encoder = searcher.encoder
            except HashSearchError:
                if gallery.fingerprint == searcher.fingerprint:
                    raise  # otherwise the gallery was moved to another model meanwhile
            else:
                return searcher

    @cached_property
    def encoder(self) -> "Encoder":
        """The gallery's model, loaded for the first query by image.

        Raises what `read_model` raises, also if the gallery was moved to another model since.
        """
        from hashsearch.encoder import Encoder  # with torch, which takes seconds

        folder = self.gallery.model_folder_of(self.fingerprint)
        return Encoder.load(folder, precision=self.gallery.precision)

    @property
    def loaded_encoder(self) -> "Encoder | None":
        """The model if it was loaded already."""
        loaded: Encoder | None = self.__dict__.get("encoder")
        return loaded

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods that the gallery has the data for."""
        return tuple(self._indexes)

    @property
    def compared_methods(self) -> tuple[str, ...]:
        """Names of these methods that a comparison shows."""
        return tuple(name for name in self.methods if SERVED[name].compared)

    def query_by_image(self, data: bytes) -> Query:
        """data: an image file's bytes. Raises InvalidImage, and as `query_by_tiny` does."""
        self._require_todays_rules()
        return self.query_by_tiny(decode(data).tiny)

    def query_by_tiny(self, tiny: NDArray[np.uint8]) -> Query:
        """tiny: (32, 32, 3) uint8, of a picture that was decoded by today's image rules.

        Raises InvalidQuery if the gallery was made by earlier ones.
        """
        self._require_todays_rules()
        return Query(self.encoder.encode(tiny[np.newaxis])[0], tiny)

    def _require_todays_rules(self) -> None:
        if self.encoder.preprocessing != PREPROCESSING:
            raise InvalidQuery(
                f"the gallery {of_other_rules(self.encoder.preprocessing)}; search by id or code, "
                "or index its pictures again into a new gallery"
            )

    def query_by_id(self, image_id: int) -> Query:
        """Raises NotInGallery, also for an image that was added since the indexes were read."""
        tiny, code = self.gallery.pixels(image_id), self.gallery.code(image_id)
        position = int(np.searchsorted(self.ids, image_id))
        if position == len(self.ids) or self.ids[position] != image_id:
            raise NotInGallery("the gallery holds no image with this id")
        if self.gallery.fingerprint != self.fingerprint:  # moved to another model meanwhile
            assert tiny is not None, "only a gallery with pixels can be reencoded"
            code = self.encoder.encode(tiny[np.newaxis])[0]
        return Query(code, tiny, image_id)

    def query_by_code(self, code: NDArray[np.uint8]) -> Query:
        """Raises CodeShapeError unless the code is (32,) uint8."""
        require_code_bytes(code[np.newaxis], CODE_BYTES)
        return Query(code)

    def search(
        self,
        query: Query,
        method: str = DEFAULT_METHOD,
        *,
        k: int | None = None,
        radius: int | None = None,
        cap: int | None = None,
    ) -> Ranking:
        """Rank the gallery's images for a query.

        k and radius: at most k images within the inclusive radius, which is in the method's
        unit; radius alone: all within it, but at most `cap`; neither: the nearest ten. Images
        that were removed since the indexes were read are left out, and others take their place.
        Raises InvalidQuery if k is below 1, the radius below 0, the method unknown, or if it
        needs pixels that the query or the gallery does not have.
        """
        if k is not None and k < 1:
            raise InvalidQuery(f"k is at least 1; got {k}")
        if radius is not None and radius < 0:
            raise InvalidQuery(f"a radius is at least 0; got {radius}")
        if k is None and radius is None:
            k = DEFAULT_K
        index, values = self._index_and_values(query, method)
        while True:
            started = time.perf_counter()
            positions, distances = self._rank(index, values, k, radius)
            ids = self.ids[positions]
            others = ids != query.image_id
            ids, distances = ids[others][:k], distances[others][:k]
            truncated = k is None and cap is not None and len(ids) > cap
            ids, distances = ids[:cap], distances[:cap]
            latency_ms = 1000 * (time.perf_counter() - started)
            hits = self._hits(ids, distances, self._closeness_by(method))
            if len(hits) == len(ids):
                return Ranking(method, hits, truncated, latency_ms)
            self._note_removed(ids, {hit.id for hit in hits})

    def _rank(
        self, index: Index, values: NDArray[np.uint8], k: int | None, radius: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The nearest positions; one more than k, since the query itself may be among them."""
        if k is None:
            assert radius is not None
            return index.search_radius(values, radius, self._subset)
        if len(index) == 0:
            return np.empty(0, np.int64), np.empty(0, np.int32)
        wanted = min(k + 1, len(index))
        found = index.search(values[np.newaxis], wanted, self._subset)
        positions, distances = found[0][0], found[1][0]
        near = positions != NO_POSITION
        if radius is not None:
            near &= distances <= radius
        return positions[near], distances[near]

    @property
    def _subset(self) -> Subset | None:
        return None if self._present is None else of_mask(self._present)

    def _index_and_values(self, query: Query, method: str) -> tuple[Index, NDArray[np.uint8]]:
        if method not in SERVED:
            raise InvalidQuery(f"there is no method {method!r}; there are {', '.join(SERVED)}")
        column = SERVED[method].column
        if method not in self._indexes:
            raise InvalidQuery(f"the gallery keeps no {column}, which the method {method} needs")
        values = query.values(column)
        if values is None:
            raise InvalidQuery(f"a query by code has no {column}, which the method {method} needs")
        return self._indexes[method], values

    def _closeness_by(self, method: str) -> Closeness | None:
        """What a method's distances mean; it is known of codes alone."""
        return self.closeness if SERVED[method].column == "codes" else None

    def _hits(
        self,
        ids: NDArray[np.int64],
        distances: NDArray[np.int32],
        closeness: Closeness | None,
    ) -> list[Hit]:
        by_id = dict(zip(ids.tolist(), distances.tolist(), strict=True))
        records = present(self.gallery.catalog, self.gallery.catalog.records(by_id))
        return [
            Hit(
                image.id,
                by_id[image.id],
                image.label,
                image.path,
                image.uri,
                closeness.word(by_id[image.id]) if closeness else None,
                image.missing,
            )
            for image in records
        ]

    def _note_removed(self, ids: NDArray[np.int64], known: set[int]) -> None:
        """Leave the images out of later searches that the catalog no longer has."""
        present = np.ones(len(self.ids), bool) if self._present is None else self._present.copy()
        gone = [image_id for image_id in ids.tolist() if image_id not in known]
        present[np.searchsorted(self.ids, gone)] = False
        self._present = present  # replaced whole, since other threads read it


def _blocks(gallery: GalleryFolder, column: str, rows: Rows) -> list[Block]:
    blocks = gallery.blocks(column, rows)
    if blocks is None:
        raise InvalidGallery(f"{gallery.folder}: a shard lacks {column}, which the gallery keeps")
    return blocks
