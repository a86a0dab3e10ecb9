"""Answers from a gallery: a picture, an id or a code in, ranked neighbours out."""

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import CODE_BYTES, require_code_bytes
from hashsearch.errors import HashSearchError, InvalidGallery, InvalidQuery, NotInGallery
from hashsearch.gallery.catalog import ImageRecord, Rows
from hashsearch.gallery.folder import Gallery
from hashsearch.images import TINY_BYTES, decode
from hashsearch.search import RadiusIndex
from hashsearch.search.exact import NO_ID, ExactIndex
from hashsearch.search.pixels import PixelBlock, PixelIndex

if TYPE_CHECKING:
    from hashsearch.encoder import Encoder

Method = Literal["codes", "pixels"]
METHODS: tuple[Method, ...] = get_args(Method)
UNITS = {"codes": ExactIndex.unit, "pixels": PixelIndex.unit}
IMAGE_BYTES = {"codes": CODE_BYTES, "pixels": TINY_BYTES}
DEFAULT_K = 10


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for.

    code: (32,) uint8. tiny: (32, 32, 3) uint8, or None where there are no
    pixels to compare. image_id: the gallery's own image that is asked about,
    which its answer leaves out; None otherwise.
    """

    code: NDArray[np.uint8]
    tiny: NDArray[np.uint8] | None = None
    image_id: int | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Neighbours, nearest first, equal distances in id order.

    ids, distances: (n,), int64 and int32 in the method's unit. truncated:
    whether a cap cut off images within the radius. latency_ms: of the search.
    """

    method: Method
    ids: NDArray[np.int64]
    distances: NDArray[np.int32]
    truncated: bool
    latency_ms: float


class Searcher:
    """A gallery's model and indexes in memory, as of the moment it was made."""

    def __init__(self, gallery: Gallery, encoder: "Encoder | None" = None):
        """encoder: that of an earlier Searcher, which is kept if the gallery still is of its model.

        Raises InvalidGallery if the gallery is not whole.
        """
        self.gallery = gallery
        while True:
            rows = gallery.catalog.rows()
            try:
                self._load(rows)
            except InvalidGallery:
                if gallery.catalog.generation() == rows.generation:
                    raise  # it is damaged; otherwise shards were joined, or coded anew, meanwhile
            else:
                break
        if encoder is not None and encoder.fingerprint == rows.fingerprint:
            self.encoder = encoder

    @classmethod
    def with_model(cls, gallery: Gallery, encoder: "Encoder | None" = None) -> "Searcher":
        """One whose model is loaded, or kept from an earlier one, before anybody asks.

        Raises InvalidGallery, and what `load_model` raises.
        """
        while True:
            searcher = cls(gallery, encoder)
            try:
                encoder = searcher.encoder
            except HashSearchError:
                if gallery.fingerprint == searcher.fingerprint:
                    raise  # otherwise the gallery was moved to another model just now
            else:
                return searcher

    @cached_property
    def encoder(self) -> "Encoder":
        """The gallery's model, loaded when a picture is first asked about.

        Raises what `load_model` raises, also if the gallery was moved to another since.
        """
        from hashsearch.encoder import Encoder  # with torch, which takes seconds

        folder = self.gallery.model_folder_of(self.fingerprint)
        return Encoder.load(folder, precision=self.gallery.precision)

    def _load(self, rows: Rows) -> None:
        codes = self.gallery.column("codes", rows)
        assert codes is not None, "every shard has codes"
        shards = list(self.gallery.shards(rows))
        blocks = None
        if self.gallery.keeps("pixels"):
            blocks = [
                PixelBlock(shard.column("pixels"), rows.rows[positions], rows.ids[positions])
                for shard, positions in shards
            ]
        self.generation, self.fingerprint = rows.generation, rows.fingerprint
        self.ids = rows.ids
        self._codes = ExactIndex(rows.ids, codes)
        self._pixels = None if blocks is None else PixelIndex(blocks)

    @property
    def methods(self) -> tuple[Method, ...]:
        """Those that the gallery has the data for."""
        return tuple(m for m in METHODS if m != "pixels" or self._pixels is not None)

    def query_by_image(self, data: bytes) -> Query:
        """Raises InvalidImage."""
        return self.query_by_tiny(decode(data).tiny)

    def query_by_tiny(self, tiny: NDArray[np.uint8]) -> Query:
        """tiny: (32, 32, 3) uint8."""
        return Query(self.encoder.encode(tiny[np.newaxis])[0], tiny)

    def query_by_id(self, image_id: int) -> Query:
        """Raises NotInGallery, also for an image that was added later than this was made."""
        tiny = self.gallery.pixels(image_id)
        position = int(np.searchsorted(self.ids, image_id))
        if position == len(self.ids) or self.ids[position] != image_id:
            raise NotInGallery("the gallery holds no image with this id")
        return Query(self._codes.code(position), tiny, image_id)

    def query_by_code(self, code: NDArray[np.uint8]) -> Query:
        """Raises CodeShapeError unless the code is (32,) uint8."""
        require_code_bytes(code[np.newaxis], CODE_BYTES)
        return Query(code)

    def search(
        self,
        query: Query,
        method: Method = "codes",
        *,
        k: int | None = None,
        radius: int | None = None,
        cap: int | None = None,
    ) -> Ranking:
        """Rank the gallery for a query.

        k and radius: at most k within the radius, which is inclusive and in the
        method's unit; radius alone: all within, but no more than `cap`; neither:
        the nearest ten. Raises InvalidQuery if k is below 1, the radius below 0,
        or the method needs pixels that the query or the gallery has not.
        """
        if k is not None and k < 1:
            raise InvalidQuery(f"k is at least 1; got {k}")
        if radius is not None and radius < 0:
            raise InvalidQuery(f"a radius is at least 0; got {radius}")
        if k is None and radius is None:
            k = DEFAULT_K
        started = time.perf_counter()
        ids, distances = self._rank(query, method, k, radius)
        others = ids != (NO_ID if query.image_id is None else query.image_id)
        ids, distances = ids[others][:k], distances[others][:k]
        truncated = k is None and cap is not None and len(ids) > cap
        latency_ms = 1000 * (time.perf_counter() - started)
        return Ranking(method, ids[:cap], distances[:cap], truncated, latency_ms)

    def hits(self, ranking: Ranking) -> list[tuple[ImageRecord, int]]:
        """The ranked images' records with their distances; one removed since is left out."""
        distances = dict(zip(ranking.ids.tolist(), ranking.distances.tolist(), strict=True))
        records = self.gallery.catalog.records(distances)
        return [(record, distances[record.id]) for record in records]

    def _rank(
        self, query: Query, method: Method, k: int | None, radius: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The nearest, one more than k of them in case the query itself is among them."""
        index, vector = self._indexed(query, method)
        if k is None:
            assert radius is not None
            return index.search_radius(vector, radius)
        if len(index) == 0:
            return np.empty(0, np.int64), np.empty(0, np.int32)
        found = index.search(vector[np.newaxis], min(k + 1, len(index)))
        ids, distances = found[0][0], found[1][0]
        if radius is not None:
            ids, distances = ids[distances <= radius], distances[distances <= radius]
        return ids, distances

    def _indexed(self, query: Query, method: Method) -> tuple[RadiusIndex, NDArray[np.uint8]]:
        """What the method searches in, and what of the query."""
        if method == "codes":
            return self._codes, query.code
        if self._pixels is None:
            raise InvalidQuery("the gallery keeps no pixels, which the method pixels compares")
        if query.tiny is None:
            raise InvalidQuery("a query by code has no pixels, which the method pixels compares")
        return self._pixels, query.tiny.reshape(TINY_BYTES)
