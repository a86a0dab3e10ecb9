"""Exact search by Euclidean distance between the pixels of tiny images."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from hashsearch.hardware import usable_cores
from hashsearch.search import NO_DISTANCE, NO_POSITION, Block

_CHUNK_ROWS = 512  # 3 MB of int16 differences: the fastest of 64, 256 and 512


class PixelIndex:
    """Squared Euclidean distance between uint8 pixels, in integers; cores share the rows.

    The largest distance, 3072 × 255², fits int32 ten times over.
    """

    def __init__(self, blocks: Sequence[Block]):
        self._chunks = [chunk for block in blocks for chunk in _chunks(block)]
        self._size = sum(len(block.positions) for block in blocks)
        self._pool = ThreadPoolExecutor(usable_cores())

    def __len__(self) -> int:
        return self._size

    def search(
        self, queries: NDArray[np.uint8], k: int, selection: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find the k images whose pixels are nearest to each query's; see Index.

        queries: (n_queries, 3072) uint8; distances are squared.
        """
        positions = np.full((len(queries), k), NO_POSITION, np.int64)
        distances = np.full((len(queries), k), NO_DISTANCE, np.int32)
        for row, query in enumerate(queries):
            found = self._nearest(query, k, selection)
            positions[row, : len(found[0])], distances[row, : len(found[1])] = found
        return positions, distances

    def _nearest(
        self, query: NDArray[np.uint8], k: int, selection: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        positions, distances = self._distances(query, selection)
        if k < len(positions):
            near = distances <= np.partition(distances, k - 1)[k - 1]
            positions, distances = positions[near], distances[near]
        order = np.lexsort((positions, distances))[:k]
        return positions[order], distances[order]

    def search_radius(
        self, query: NDArray[np.uint8], radius: int, selection: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find every image within a squared radius of one query; see Index.

        query: (3072,) uint8.
        """
        positions, distances = self._distances(query, selection)
        near = distances <= radius
        positions, distances = positions[near], distances[near]
        order = np.lexsort((positions, distances))
        return positions[order], distances[order]

    def _distances(
        self, query: NDArray[np.uint8], selection: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Position and squared distance of every selected image, in no order."""
        signed = query.astype(np.int16)

        def measured(chunk: Block) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
            rows, positions = chunk.rows, chunk.positions
            if selection is not None:
                selected = selection[positions]
                rows, positions = rows[selected], positions[selected]
            return positions, _squared(chunk.values, signed)[rows]

        found = list(self._pool.map(measured, self._chunks))
        every_position = [np.empty(0, np.int64), *(positions for positions, _ in found)]
        every_distance = [np.empty(0, np.int32), *(distances for _, distances in found)]
        return np.concatenate(every_position), np.concatenate(every_distance)


def contrast_normalized(tiny: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Subtract each image's mean and divide by its standard deviation.

    tiny: (n, 32, 32, 3) uint8. Returns (n, 3072) float32. A deviation below one grey level
    counts as one, so that images of one colour can be divided too.
    """
    flat = tiny.reshape(len(tiny), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(flat.std(axis=1, keepdims=True), 1)
    return flat


def _chunks(block: Block) -> Iterator[Block]:
    """Cut a block into chunks whose differences fit a core's cache."""
    for start in range(0, len(block.values), _CHUNK_ROWS):
        pixels = block.values[start : start + _CHUNK_ROWS]
        first, last = np.searchsorted(block.rows, (start, start + len(pixels)))
        if first < last:
            yield Block(pixels, block.rows[first:last] - start, block.positions[first:last])


def _squared(pixels: NDArray[np.uint8], query: NDArray[np.int16]) -> NDArray[np.int32]:
    """Squared distances of (rows, 3072) uint8 to one query: (rows,) int32."""
    differences = pixels.astype(np.int16)
    differences -= query
    return np.einsum("ij,ij->i", differences, differences, dtype=np.int32)
