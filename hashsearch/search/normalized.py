"""Exact search by Euclidean distance between centred, contrast-normalised pixels."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashsearch.search import Block
from hashsearch.search.pixels import StoredPixels, least, selected
from hashsearch.search.subset import Subset

CONTRAST = 64  # standard deviation, in grey levels, to which every image is brought
_EXACT = 256  # products of two bytes whose sum float32 holds exactly: 256 × 255² < 2²⁴


class NormalizedIndex(StoredPixels):
    """Squared Euclidean distance between images brought to one brightness and contrast.

    Each image's mean is subtracted and its standard deviation becomes 64 grey levels; a deviation
    below one grey level counts as one, so that images of one colour are grey. Sums are exact, and
    a distance is rounded to a whole number once, so that answers repeat on every machine.
    """

    def _nearest(
        self, chunks: Sequence[Block], query: NDArray[np.uint8], k: int
    ) -> tuple[NDArray[np.int64], NDArray[Any]]:
        distances = _distances_to(query[np.newaxis])
        return least(chunks, lambda pixels: distances(pixels)[0], k)

    def search_radius(
        self, query: NDArray[np.uint8], radius: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find every image within a squared radius of one query; see Index.

        query: (3072,) uint8.
        """
        chunks = selected(self._chunks, subset)
        positions, distances = self._nearest(chunks, query, len(self))
        near = distances <= radius
        return positions[near], distances[near].astype(np.int32)

    def search_combined(
        self,
        queries: NDArray[np.uint8],
        weights: NDArray[np.int32],
        k: int,
        subset: Subset | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the k images with the least weighted sum of distances; see CombinedIndex.

        queries: (n_queries, 3072) uint8.
        """
        factors, distances = weights.astype(np.int64), _distances_to(queries)
        return least(selected(self._chunks, subset), lambda pixels: factors @ distances(pixels), k)


def _distances_to(
    queries: NDArray[np.uint8],
) -> Callable[[NDArray[np.uint8]], NDArray[np.int64]]:
    """The function that measures images' squared distances to the queries after normalisation.

    queries: (n_queries, 3072) uint8. Given (n, 3072) uint8, it returns (n_queries, n) int64.
    """
    n_values = queries.shape[1]
    floats = queries.astype(np.float32)
    its_sum, its_squares = _sums(floats)
    variance = its_squares - its_sum**2 / n_values  # times n_values, like all below
    deviation = np.sqrt(np.maximum(variance, n_values))
    parts = floats.reshape(len(queries), -1, _EXACT)

    def measure(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
        values = pixels.astype(np.float32)
        sums, squares = _sums(values)
        variances = squares - sums**2 / n_values
        deviations = np.sqrt(np.maximum(variances, n_values))
        products = np.zeros((len(queries), len(values)))
        for part in range(parts.shape[1]):
            products += parts[:, part] @ values[:, part * _EXACT : (part + 1) * _EXACT].T
        shared = products - np.outer(its_sum, sums) / n_values
        distances = (
            (variance / deviation**2)[:, np.newaxis]
            + variances / deviations**2
            - 2 * shared / np.outer(deviation, deviations)
        )
        return np.rint(CONTRAST**2 * n_values * distances).astype(np.int64)

    return measure


def _sums(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The exact sum and sum of squares of each row's whole numbers from 0 to 255."""
    parts = pixels.reshape(len(pixels), -1, _EXACT)
    squares = np.einsum("nij,nij->ni", parts, parts)
    return parts.sum(axis=2).sum(axis=1, dtype=np.float64), squares.sum(axis=1, dtype=np.float64)


def contrast_normalized(tiny: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Subtract each image's mean and divide by its standard deviation.

    tiny: (n, 32, 32, 3) uint8. Returns (n, 3072) float32. A deviation below one grey level
    counts as one, so that images of one colour can be divided too.
    """
    flat = tiny.reshape(len(tiny), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(flat.std(axis=1, keepdims=True), 1)
    return flat
