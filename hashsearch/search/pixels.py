"""Exact search by Euclidean distance between the pixels of tiny images."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashsearch.hardware import usable_cores

_CHUNK_ROWS = 512  # 3 MB of int16 differences: the fastest of 64, 256 and 512


class PixelBlock(NamedTuple):
    """Stored pixels (rows, 3072) uint8, perhaps memory-mapped, and which rows count.

    rows: (n,) int64, ascending; ids: (n,) int64, those rows' images.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    ids: NDArray[np.int64]


class PixelIndex:
    """Squared Euclidean distance on uint8 pixels, in integers, every core on its chunks.

    The greatest, 3072 × 255², fits int32 ten times over.
    """

    unit = "squared grey levels"

    def __init__(self, blocks: Sequence[PixelBlock]):
        self._chunks = [chunk for block in blocks for chunk in _chunks(block)]
        self._size = sum(len(block.ids) for block in blocks)
        self._pool = ThreadPoolExecutor(usable_cores())

    def __len__(self) -> int:
        return self._size

    def search(
        self, queries: NDArray[np.uint8], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find the k images whose pixels are nearest to each query's.

        queries: (n_queries, 3072) uint8. Returns (ids, squared distances), both
        (n_queries, min(k, n)), nearest first, int64 and int32; equal distances
        come in id order.
        """
        wanted = min(k, self._size)
        ids = np.empty((len(queries), wanted), np.int64)
        distances = np.empty((len(queries), wanted), np.int32)
        for row, query in enumerate(queries):
            ids[row], distances[row] = self._nearest(query, k)
        return ids, distances

    def _nearest(
        self, query: NDArray[np.uint8], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        ids, distances = self._distances(query)
        if k < len(ids):
            near = distances <= np.partition(distances, k - 1)[k - 1]
            ids, distances = ids[near], distances[near]
        order = np.lexsort((ids, distances))[:k]
        return ids[order], distances[order]

    def search_radius(
        self, query: NDArray[np.uint8], radius: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find every image within a radius: a squared distance, inclusive.

        query: (3072,) uint8. Returns (ids, squared distances), both (n_found,),
        ordered as by `search`.
        """
        ids, distances = self._distances(query)
        near = distances <= radius
        ids, distances = ids[near], distances[near]
        order = np.lexsort((ids, distances))
        return ids[order], distances[order]

    def _distances(self, query: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Every image's id and squared distance, in no order: (n,) int64 and (n,) int32."""
        signed = query.astype(np.int16)
        found = self._pool.map(
            lambda chunk: _squared(chunk.pixels, signed)[chunk.rows], self._chunks
        )
        ids = [np.empty(0, np.int64), *(chunk.ids for chunk in self._chunks)]
        return np.concatenate(ids), np.concatenate([np.empty(0, np.int32), *found])


def contrast_normalized(tiny: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels less their image's mean, divided by their deviation: (n, 3072) float32.

    A deviation below one grey level counts as one, so that plain pictures divide too.
    """
    flat = tiny.reshape(len(tiny), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(flat.std(axis=1, keepdims=True), 1)
    return flat


def _chunks(block: PixelBlock) -> Iterator[PixelBlock]:
    """Cut a block into chunks whose differences fit a core's cache."""
    for start in range(0, len(block.pixels), _CHUNK_ROWS):
        pixels = block.pixels[start : start + _CHUNK_ROWS]
        first, last = np.searchsorted(block.rows, (start, start + len(pixels)))
        if first < last:
            yield PixelBlock(pixels, block.rows[first:last] - start, block.ids[first:last])


def _squared(pixels: NDArray[np.uint8], query: NDArray[np.int16]) -> NDArray[np.int32]:
    """Squared distances of (rows, 3072) uint8 to one query: (rows,) int32."""
    differences = pixels.astype(np.int16)
    differences -= query
    return np.einsum("ij,ij->i", differences, differences, dtype=np.int32)
