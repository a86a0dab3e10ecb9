"""Exact search by Hamming distance: FAISS's flat index, a slice of it for every core."""

from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import require_code_bytes
from hashsearch.hardware import usable_cores

NO_ID = -1
NO_DISTANCE = np.iinfo(np.int32).max


class ExactIndex:
    """The yardstick: every query meets every code.

    FAISS's flat index spreads queries over cores, not codes. Here each core has
    its slice, so that one query uses the whole memory bandwidth. FAISS's own
    sharding does not do radius search rightly over slices; the merge is ours.
    """

    unit = "bits"

    def __init__(self, ids: NDArray[np.int64], codes: NDArray[np.uint8], slices: int | None = None):
        """ids: (n,) int64, ascending; codes: (n, n_bytes) uint8, which are copied."""
        self.ids = ids
        self.code_bytes = codes.shape[1]
        slices = max(1, min(slices or usable_cores(), len(codes)))
        self._starts: list[int] = []
        self._slices: list[faiss.IndexBinaryFlat] = []
        for part in np.array_split(np.arange(len(codes)), slices):
            index = faiss.IndexBinaryFlat(8 * self.code_bytes)
            if len(part):
                index.add(codes[part[0] : part[-1] + 1])
            self._starts.append(int(part[0]) if len(part) else 0)
            self._slices.append(index)
        # One OpenMP thread for each of ours; FAISS keeps that number by thread.
        self._pool = ThreadPoolExecutor(
            slices, initializer=faiss.omp_set_num_threads, initargs=(1,)
        )

    def __len__(self) -> int:
        return len(self.ids)

    def code(self, position: int) -> NDArray[np.uint8]:
        """The code at a position in `ids`: (n_bytes,) uint8."""
        part = bisect_right(self._starts, position) - 1
        return np.asarray(self._slices[part].reconstruct(position - self._starts[part]))

    def search(
        self, queries: NDArray[np.uint8], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find the k codes nearest to each query.

        queries: (n_queries, n_bytes) uint8 packed codes.
        Returns (ids, distances), both (n_queries, k), nearest first: int64 ids
        and int32 Hamming distances in bits. Equal distances come in id order. A
        slot with no match holds NO_ID and NO_DISTANCE.
        Raises CodeShapeError if a query is not as wide as the codes.
        """
        require_code_bytes(queries, self.code_bytes)
        found = list(self._pool.map(lambda index: index.search(queries, k), self._slices))
        distances = np.concatenate([part for part, _ in found], axis=1)
        positions = np.concatenate(
            [
                np.where(part >= 0, part + start, np.iinfo(np.int64).max)
                for (_, part), start in zip(found, self._starts, strict=True)
            ],
            axis=1,
        )
        order = np.lexsort((positions, distances), axis=1)[:, :k]
        distances = np.take_along_axis(distances, order, axis=1)
        positions = np.take_along_axis(positions, order, axis=1)
        empty = distances == NO_DISTANCE
        ids = np.full(positions.shape, NO_ID, np.int64)
        ids[~empty] = self.ids[positions[~empty]]
        return ids, distances

    def search_radius(
        self, query: NDArray[np.uint8], radius: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find every code within a radius of one query.

        query: (n_bytes,) uint8; radius: in bits, inclusive.
        Returns (ids, distances), both (n_found,), ordered as by `search`.
        Raises CodeShapeError if the query is not as wide as the codes.
        """
        queries = query[np.newaxis]
        require_code_bytes(queries, self.code_bytes)
        strict = min(radius, 8 * self.code_bytes) + 1  # FAISS's radius is exclusive
        found = list(
            self._pool.map(lambda index: index.range_search(queries, strict), self._slices)
        )
        distances = np.concatenate([part for _, part, _ in found]).astype(np.int32)
        positions = np.concatenate(
            [part + start for (_, _, part), start in zip(found, self._starts, strict=True)]
        )
        order = np.lexsort((positions, distances))
        return self.ids[positions[order]], distances[order]
