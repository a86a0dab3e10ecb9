"""How well an index finds neighbours: its answers to queries that were held out, and exact ones."""

import numpy as np
from numpy.typing import NDArray

from hashsearch.search import NO_DISTANCE, Index
from hashsearch.search.exact import ExactIndex

NEIGHBORS = 10


class HeldOut:
    """Vectors of an index as queries; each leaves itself out of its answers.

    positions: (m,) int64, of the queries in the index.
    """

    def __init__(
        self,
        positions: NDArray[np.int64],
        codes: NDArray[np.uint8],
        exact: ExactIndex,
        queries: NDArray[np.uint8] | None = None,
    ):
        """codes: (m, n_bytes) uint8, of these vectors. exact: of all codes. queries: (m, n_values)
        uint8, as the indexes take them that are measured; None if these take codes.
        """
        self.positions, self.codes = positions, codes
        self.queries = codes if queries is None else queries
        nearest = self._distances(exact, codes)
        counts = (nearest != NO_DISTANCE).sum(axis=1)
        self._counts = np.maximum(counts, 1)
        # Distance of the last neighbour; -1 where there is none at all.
        last = np.take_along_axis(nearest, self._counts[:, np.newaxis] - 1, axis=1)
        self._last = np.where(counts[:, np.newaxis] > 0, last, -1)

    def recall(self, index: Index) -> NDArray[np.float64]:
        """Share of each query's ten nearest neighbours that an index finds: (m,) from 0 to 1.

        A neighbour counts if it is at most as far away as the exact tenth, so of equally distant
        ones any will do.
        """
        found = (self._distances(index, self.queries) <= self._last).sum(axis=1)
        return found / self._counts

    def _distances(self, index: Index, queries: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Distances of the nearest others: (m, NEIGHBORS) int32, ascending."""
        positions, distances = index.search(queries, NEIGHBORS + 1)
        distances[positions == self.positions[:, np.newaxis]] = NO_DISTANCE
        return np.sort(distances, axis=1)[:, :NEIGHBORS]
