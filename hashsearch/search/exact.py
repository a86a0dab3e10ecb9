"""Exact search by Hamming distance: FAISS's flat index, a slice of it for every core."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import faiss
import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import require_code_bytes
from hashsearch.hardware import usable_cores
from hashsearch.search import NO_DISTANCE, NO_POSITION


class ExactIndex:
    """Compares every query with every code; other indexes are measured against it.

    FAISS's flat index spreads queries over cores, not codes. Here each core has its slice of
    the codes, so that one query uses the whole memory bandwidth. FAISS's own sharding is wrong
    for radius search and selections over slices, so the slices' results are merged here.
    """

    def __init__(self, codes: NDArray[np.uint8], slices: int | None = None):
        """codes: (n, n_bytes) uint8, which are copied. slices: one per core by default."""
        self.code_bytes = codes.shape[1]
        self._size = len(codes)
        slices = max(1, min(slices or usable_cores(), len(codes)))
        edges = np.linspace(0, len(codes), slices + 1).astype(np.int64).tolist()
        self._bounds = list(pairwise(edges))
        self._slices: list[faiss.IndexBinaryFlat] = []
        for start, end in self._bounds:
            index = faiss.IndexBinaryFlat(8 * self.code_bytes)
            index.add(codes[start:end])
            self._slices.append(index)
        # One OpenMP thread for each of ours; FAISS keeps that number by thread.
        self._pool = ThreadPoolExecutor(
            slices, initializer=faiss.omp_set_num_threads, initargs=(1,)
        )

    def __len__(self) -> int:
        return self._size

    def search(
        self, queries: NDArray[np.uint8], k: int, selection: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find the k codes nearest to each query; see Index.

        queries: (n_queries, n_bytes) uint8 packed codes; distances are in bits.
        Raises CodeShapeError if a query is not as wide as the codes.
        """
        require_code_bytes(queries, self.code_bytes)
        found = list(
            self._pool.map(
                lambda index, params: index.search(queries, k, params=params),
                self._slices,
                self._parameters(selection),
            )
        )
        distances = np.concatenate([part for part, _ in found], axis=1)
        positions = np.concatenate(
            [
                np.where(part >= 0, part + start, np.iinfo(np.int64).max)
                for (_, part), (start, _) in zip(found, self._bounds, strict=True)
            ],
            axis=1,
        )
        order = np.lexsort((positions, distances), axis=1)[:, :k]
        distances = np.take_along_axis(distances, order, axis=1)
        positions = np.take_along_axis(positions, order, axis=1)
        positions[distances == NO_DISTANCE] = NO_POSITION
        return positions, distances

    def search_radius(
        self, query: NDArray[np.uint8], radius: int, selection: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find every code within a radius in bits of one query; see Index.

        query: (n_bytes,) uint8. Raises CodeShapeError if it is not as wide as the codes.
        """
        queries = query[np.newaxis]
        require_code_bytes(queries, self.code_bytes)
        strict = min(radius, 8 * self.code_bytes) + 1  # FAISS's radius is exclusive
        found = list(
            self._pool.map(
                lambda index, params: index.range_search(queries, strict, params=params),
                self._slices,
                self._parameters(selection),
            )
        )
        distances = np.concatenate([part for _, part, _ in found]).astype(np.int32)
        positions = np.concatenate(
            [part + start for (_, _, part), (start, _) in zip(found, self._bounds, strict=True)]
        )
        order = np.lexsort((positions, distances))
        return positions[order], distances[order]

    def _parameters(self, selection: NDArray[np.bool_] | None) -> Iterator[object]:
        """FAISS's search parameters for each slice."""
        for start, end in self._bounds:
            if selection is None:
                yield None
            else:
                bitmap = np.packbits(selection[start:end], bitorder="little")
                # FAISS's Python wrappers take an array and keep it; their types are C++'s.
                selector = faiss.IDSelectorBitmap(bitmap)  # type: ignore[call-arg, arg-type]
                yield faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
