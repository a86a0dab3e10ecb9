"""Exact search by Euclidean distance between the pixels of tiny images.

The pixels are read where they are stored, through the page cache; none are held in memory.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from hashsearch.search import NO_DISTANCE, NO_POSITION, Block, least_sums
from hashsearch.search.subset import Subset
from hashsearch.search.threads import in_threads

_CHUNK_ROWS = 4096  # searched by one thread at once
_AT_ONCE = 512  # rows whose differences, 3 MB of int16, fit a core's cache
# Rows measured by `least` at once: as floats of 3 or 6 MB they fit a core's cache. Blocks of 64 or
# 512 take up to half as long again (two cores of an AMD EPYC).
_MEASURED = 256
# FAISS adds up squares of whole numbers, but returns float32. What may be nearer than the k-th
# but for rounding is measured again in integers.
_ROUNDING = 1e-5
_SPARE = 8  # neighbours found beyond k in each chunk, so that few chunks need a second pass


class StoredPixels(ABC):
    """Tiny images' pixels where they are stored, for the indexes that compare them."""

    def __init__(self, blocks: Sequence[Block]):
        self._chunks = [chunk for block in blocks for chunk in chunks_of(block)]
        self._size = sum(len(block.positions) for block in blocks)

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        return 0

    def search(
        self, queries: NDArray[np.uint8], k: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find the k images nearest to each query; see Index.

        queries: (n_queries, 3072) uint8; distances are squared.
        """
        positions = np.full((len(queries), k), NO_POSITION, np.int64)
        distances = np.full((len(queries), k), NO_DISTANCE, np.int32)
        chunks = selected(self._chunks, subset)
        for row, query in enumerate(queries):
            found = self._nearest(chunks, query, k)
            positions[row, : len(found[0])], distances[row, : len(found[1])] = found
        return positions, distances

    @abstractmethod
    def _nearest(
        self, chunks: Sequence[Block], query: NDArray[np.uint8], k: int
    ) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Positions and distances of the k nearest rows, or of all if they are fewer."""


class PixelIndex(StoredPixels):
    """Squared Euclidean distance between uint8 pixels, in integers; cores share the rows.

    FAISS compares them as fast as they are read. The largest distance, 3072 × 255², fits int32
    ten times over.
    """

    def _nearest(
        self, chunks: Sequence[Block], query: NDArray[np.uint8], k: int
    ) -> tuple[NDArray[np.int64], NDArray[Any]]:
        return _nearest(chunks, query, k)

    def search_radius(
        self, query: NDArray[np.uint8], radius: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find every image within a squared radius of one query; see Index.

        query: (3072,) uint8.
        """
        positions, distances = _within(selected(self._chunks, subset), query, radius)
        near = distances <= radius
        positions, distances = positions[near], distances[near]
        order = np.lexsort((positions, distances))
        return positions[order], distances[order]

    def search_combined(
        self,
        queries: NDArray[np.uint8],
        weights: NDArray[np.int32],
        k: int,
        subset: Subset | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the k images with the least weighted sum of distances; see CombinedIndex.

        queries: (n_queries, 3072) uint8. One pass over the pixels, however many the queries are.
        """
        # The sum of w |x - q|² over the queries q is W |x|² - 2 x·v + c, where W is the sum of w,
        # v that of w q, and c that of w |q|². float64 holds every term exactly, as long as the
        # weights' magnitudes add up to less than ten million: 3 × 3072 × 255² × 10⁷ < 2⁵³.
        factors = weights.astype(np.float64)
        examples = queries.astype(np.float64)
        total = factors.sum()
        direction = 2 * (factors @ examples)
        constant = factors @ np.vecdot(examples, examples)

        def sums(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
            values = pixels.astype(np.float64)
            found = total * np.vecdot(values, values) - values @ direction + constant
            return found.astype(np.int64)

        return least(selected(self._chunks, subset), sums, k)


def chunks_of(block: Block) -> Iterator[Block]:
    """Cut a block into chunks of 4,096 stored rows; those that belong to the index."""
    for start in range(0, len(block.values), _CHUNK_ROWS):
        values = block.values[start : start + _CHUNK_ROWS]
        first, last = np.searchsorted(block.rows, (start, start + len(values)))
        if first < last:
            yield Block(values, block.rows[first:last] - start, block.positions[first:last])


def selected(chunks: Sequence[Block], subset: Subset | None) -> list[Block]:
    """The chunks with the rows of a subset alone, without those that have none."""
    if subset is None:
        return list(chunks)
    found = []
    for chunk in chunks:
        chosen = subset.contains(chunk.positions)
        if chosen.any():
            found.append(Block(chunk.values, chunk.rows[chosen], chunk.positions[chosen]))
    return found


def least(
    chunks: Sequence[Block], measure: Callable[[NDArray[np.uint8]], NDArray[np.int64]], k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions and sums of the k rows with the least sums; see least_sums.

    measure: gives the sums, (n,) int64, of (n, n_values) uint8; called by several threads.
    """

    def of_chunk(chunk: Block) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        sums = np.empty(len(chunk.rows), np.int64)
        every = len(chunk.rows) == len(chunk.values)
        for start in range(0, len(sums), _MEASURED):
            here = slice(start, start + _MEASURED)
            pixels = chunk.values[here] if every else chunk.values.take(chunk.rows[here], axis=0)
            sums[here] = measure(pixels)
        return least_sums(chunk.positions, sums, k)

    found = in_threads(of_chunk, chunks)
    positions = np.concatenate([np.empty(0, np.int64), *(part for part, _ in found)])
    sums = np.concatenate([np.empty(0, np.int64), *(part for _, part in found)])
    return least_sums(positions, sums, k)


def _nearest(
    chunks: Sequence[Block], query: NDArray[np.uint8], k: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Positions and distances of the k nearest rows, or of all if they are fewer."""
    wanted = k + _SPARE
    found = in_threads(lambda chunk: _scan(chunk, query, wanted), chunks)
    every = np.concatenate([np.empty(0, np.float32), *(floats for _, floats in found)])
    limit = np.inf  # no more than k rows are needed, and k are within it
    if k < len(every):
        limit = (1 + _ROUNDING) * float(np.partition(every, k - 1)[k - 1]) + 1

    def measured(
        chunk: Block, rows: NDArray[np.int64], floats: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        if len(floats) == wanted and floats[-1] <= limit:  # others may be within it too
            return _within([chunk], query, limit)
        return _measured(chunk, rows[floats <= limit], query)

    parts = [measured(chunk, *part) for chunk, part in zip(chunks, found, strict=True)]
    positions = np.concatenate([np.empty(0, np.int64), *(part for part, _ in parts)])
    distances = np.concatenate([np.empty(0, np.int32), *(part for _, part in parts)])
    order = np.lexsort((positions, distances))[:k]
    return positions[order], distances[order]


def _within(
    chunks: Sequence[Block], query: NDArray[np.uint8], radius: float
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Positions and distances of all rows within a squared radius, and of few beyond it."""
    strict = (1 + _ROUNDING) * min(radius, 2.0**31) + 1

    def within(chunk: Block) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        _, _, rows = _index_of(chunk).range_search(_as_floats(query), strict, params=_params(chunk))
        return _measured(chunk, rows, query)

    parts = [within(chunk) for chunk in chunks] if len(chunks) == 1 else in_threads(within, chunks)
    positions = np.concatenate([np.empty(0, np.int64), *(part for part, _ in parts)])
    return positions, np.concatenate([np.empty(0, np.int32), *(part for _, part in parts)])


def _scan(
    chunk: Block, query: NDArray[np.uint8], wanted: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest stored rows of a chunk, at most `wanted`, and their rounded distances."""
    if len(chunk.rows) * 16 < len(chunk.values):
        distances = _squared(chunk.values.take(chunk.rows, axis=0), query).astype(np.float32)
        order = np.argsort(distances)[:wanted]
        return chunk.rows[order], distances[order]
    k = min(wanted, len(chunk.rows))
    distances, rows = _index_of(chunk).search(_as_floats(query), k, params=_params(chunk))
    return rows[0], distances[0]


def _index_of(chunk: Block) -> faiss.IndexScalarQuantizer:
    """FAISS's index of bytes, which reads a chunk's pixels where they are."""
    values = chunk.values
    assert values.flags.c_contiguous
    index = faiss.IndexScalarQuantizer(values.shape[1], faiss.ScalarQuantizer.QT_8bit_direct)
    view: Any = faiss.MaybeOwnedVectorUInt8()
    view.is_owned = False
    view.view_data = view.c_ptr = faiss.swig_ptr(values)
    view.view_size = view.c_size = values.size
    index.codes, index.ntotal, index.is_trained = view, len(values), True
    return index


def _params(chunk: Block) -> Any:
    """FAISS's parameters that select the rows of a chunk; None for all."""
    if len(chunk.rows) == len(chunk.values):
        return None
    mask = np.zeros(len(chunk.values), bool)
    mask[chunk.rows] = True
    # FAISS's Python wrappers take an array and keep it; their types are C++'s.
    bitmap = np.packbits(mask, bitorder="little")
    selector = faiss.IDSelectorBitmap(bitmap)  # type: ignore[call-arg, arg-type]
    return faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]


def _as_floats(query: NDArray[np.uint8]) -> NDArray[np.float32]:
    return query[np.newaxis].astype(np.float32)


def _measured(
    chunk: Block, rows: NDArray[np.int64], query: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Positions and exact distances of some stored rows of a chunk."""
    positions = chunk.positions[np.searchsorted(chunk.rows, rows)]
    return positions, _squared(chunk.values.take(rows, axis=0), query)


def _squared(pixels: NDArray[np.uint8], query: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Squared distances of (n, 3072) uint8 to one query: (n,) int32."""
    found = np.empty(len(pixels), np.int32)
    signed = query.astype(np.int16)
    for start in range(0, len(pixels), _AT_ONCE):
        differences = pixels[start : start + _AT_ONCE].astype(np.int16)
        differences -= signed
        found[start : start + _AT_ONCE] = np.einsum(
            "ij,ij->i", differences, differences, dtype=np.int32
        )
    return found
