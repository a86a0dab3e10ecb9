"""How two images are compared: in bits, in squared grey levels, or as vectors of floats.

Each comparison gives an index, which finds the nearest images (for codes and pixels it is the
index that serves a gallery), and the distances to all images of a gallery, from which whole
rankings are measured. Both are exact: in integers they agree to the last bit, in float32 up to
the rounding of its products.
"""

from collections.abc import Callable
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import unpack_bits
from hashsearch.images import TINY_BYTES
from hashsearch.retrieval.methods import ServedMethod
from hashsearch.retrieval.transforms import by_least_distance
from hashsearch.search import NO_DISTANCE, NO_POSITION, Block
from hashsearch.search.exact import ExactIndex
from hashsearch.search.pixels import PixelIndex

# The sum of so many products of values from -128 to 127 is at most 2^24. Up to there float32
# has every integer, so the sum is exact in any order.
_EXACT = 1024


class Searchable(Protocol):
    """Vectors whose nearest positions can be searched for."""

    def __len__(self) -> int: ...

    def search(self, queries: Any, k: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """(n_queries, n_values) to positions and distances, both (n_queries, k), nearest first.

        k: from 1 to the number of vectors.
        """
        ...


class Comparison(Protocol):
    """queries, gallery: (n, n_values), what a method keeps of each of n images.

    unit: of the distances.
    """

    unit: str

    def index(self, gallery: Any) -> Searchable:
        """An index whose positions are the rows of the gallery."""
        ...

    def distances_to(self, gallery: Any) -> Callable[[Any], NDArray[Any]]:
        """A function from queries to their (n_queries, n_gallery) distances.

        Distances are int32 or float32, at least 0. Several threads may call the function.
        """
        ...


class Hamming:
    """Packed codes of n_bits bits; int32 distances in bits."""

    unit = "bits"

    def __init__(self, n_bits: int):
        self.n_bits = n_bits

    def index(self, gallery: NDArray[np.uint8]) -> Searchable:
        return ExactIndex(gallery)

    def distances_to(
        self, gallery: NDArray[np.uint8]
    ) -> Callable[[NDArray[np.uint8]], NDArray[np.int32]]:
        signs = self._signs(gallery).T

        def distances(queries: NDArray[np.uint8]) -> NDArray[np.int32]:
            agreement = self._signs(queries) @ signs
            return ((self.n_bits - agreement) / 2).astype(np.int32)

        return distances

    def _signs(self, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        return unpack_bits(codes, self.n_bits).astype(np.float32) * 2 - 1


class HammingOfViews(Hamming):
    """Codes of n_bits bits, compared with those of a query's views: the least distance in bits.

    queries: (n, n_views, n_bytes) uint8; gallery: (n, n_bytes) uint8.
    """

    def index(self, gallery: NDArray[np.uint8]) -> Searchable:
        return _IndexOfViews(super().index(gallery))

    def distances_to(
        self, gallery: NDArray[np.uint8]
    ) -> Callable[[NDArray[np.uint8]], NDArray[np.int32]]:
        of_view = super().distances_to(gallery)

        def distances(queries: NDArray[np.uint8]) -> NDArray[np.int32]:
            least = of_view(queries[:, 0])
            for view in range(1, queries.shape[1]):
                np.minimum(least, of_view(queries[:, view]), out=least)
            return least

        return distances


class _IndexOfViews:
    def __init__(self, index: Searchable):
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def search(
        self, queries: NDArray[np.uint8], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        positions = np.full((len(queries), k), NO_POSITION, np.int64)
        distances = np.full((len(queries), k), NO_DISTANCE, np.int32)
        for row, views in enumerate(queries):
            found = self._index.search(views, k)
            near = found[0] != NO_POSITION
            every = by_least_distance(found[0][near], found[1][near])
            count = min(k, len(every[0]))
            positions[row, :count], distances[row, :count] = every[0][:k], every[1][:k]
        return positions, distances


class SquaredPixels:
    """Pixels (n, 3072) uint8; int32 squared Euclidean distances."""

    def __init__(self, unit: str = "squared grey levels"):
        self.unit = unit

    def index(self, gallery: NDArray[np.uint8]) -> Searchable:
        rows = np.arange(len(gallery))
        return PixelIndex([Block(gallery, rows, rows)])

    def distances_to(
        self, gallery: NDArray[np.uint8]
    ) -> Callable[[NDArray[np.uint8]], NDArray[np.int32]]:
        theirs = _centred(gallery)
        squares = _squares(theirs)
        parts = [slice(start, start + _EXACT) for start in range(0, TINY_BYTES, _EXACT)]

        def distances(queries: NDArray[np.uint8]) -> NDArray[np.int32]:
            ours = _centred(queries)
            products = np.zeros((len(ours), len(theirs)), np.int32)
            for part in parts:
                products += (ours[:, part] @ theirs[:, part].T).astype(np.int32)
            return _squares(ours)[:, np.newaxis] + squares - 2 * products

        return distances


class Served:
    """What a served method compares, by its own index; int32 distances in its unit."""

    def __init__(self, method: ServedMethod):
        self.unit, self._index = method.unit, method.index

    def index(self, gallery: NDArray[np.uint8]) -> Searchable:
        rows = np.arange(len(gallery))
        return self._index([Block(gallery, rows, rows)])

    def distances_to(
        self, gallery: NDArray[np.uint8]
    ) -> Callable[[NDArray[np.uint8]], NDArray[np.int32]]:
        index = self.index(gallery)

        def distances(queries: NDArray[np.uint8]) -> NDArray[np.int32]:
            positions, ranked = index.search(queries, len(gallery))
            by_position = np.empty_like(ranked)
            np.put_along_axis(by_position, positions, ranked, axis=1)
            return by_position

        return distances


class Euclidean:
    """Vectors (n, n_values) float32; float32 squared distances."""

    unit = "squared distance"

    def index(self, gallery: NDArray[np.float32]) -> Searchable:
        return _FlatIndex(gallery)

    def distances_to(
        self, gallery: NDArray[np.float32]
    ) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        squares = np.einsum("ij,ij->i", gallery, gallery)

        def distances(queries: NDArray[np.float32]) -> NDArray[np.float32]:
            products = queries @ gallery.T
            own = np.einsum("ij,ij->i", queries, queries)[:, np.newaxis]
            return np.maximum(own + squares - 2 * products, 0)

        return distances


class _FlatIndex:
    def __init__(self, gallery: NDArray[np.float32]):
        self._flat = faiss.IndexFlatL2(gallery.shape[1])
        self._flat.add(gallery)

    def __len__(self) -> int:
        return int(self._flat.ntotal)

    def search(
        self, queries: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        distances, ids = self._flat.search(queries, k)
        return ids, distances


def _centred(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return pixels.astype(np.float32) - 128


def _squares(centred: NDArray[np.float32]) -> NDArray[np.int32]:
    """Exact sums of squares: (n, 3072) float32 whole numbers to (n,) int32."""
    return np.einsum("ij,ij->i", centred, centred, dtype=np.float64).astype(np.int32)
