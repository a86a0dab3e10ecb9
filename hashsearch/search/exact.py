"""Exact search by Hamming distance: FAISS's scan, a slice of the codes for every core."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import require_code_bytes
from hashsearch.search import NO_DISTANCE, least_sums, nearest_of
from hashsearch.search.subset import Subset
from hashsearch.search.threads import in_threads, one_thread, slices, thread_count

_SPARE = 64  # neighbours that are found and may be left out; a bitmap would make a scan slower
_INLINE = 20_000  # comparisons that take no longer than waking a thread
_ROUND = 2**25  # comparisons of a sum of distances that are done at a time, in some 50 ms
_BLOCK = 2**16  # codes whose distances to several queries are added up at once


class ExactIndex:
    """Compares every query with every code; other indexes are measured against it.

    FAISS's flat index spreads queries over cores, not codes. Here each core has its slice of
    the codes, so that one query uses the whole memory bandwidth. FAISS's own sharding is wrong
    for radius search and selections over slices, so the slices' results are merged here.
    """

    def __init__(self, codes: NDArray[np.uint8], slices: int | None = None):
        """codes: (n, n_bytes) uint8, which are kept, not copied. slices: one per core by default.

        Codes that NumPy allocated lie in large pages of memory, which are read a tenth faster
        than FAISS's own copy of them.
        """
        self._codes = np.ascontiguousarray(codes)
        self.code_bytes = codes.shape[1]
        self._slices = slices

    @property
    def codes(self) -> NDArray[np.uint8]:
        """(n, n_bytes) uint8."""
        return self._codes

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def nbytes(self) -> int:
        return 0

    def search(
        self, queries: NDArray[np.uint8], k: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find the k codes nearest to each query; see Index.

        queries: (n_queries, n_bytes) uint8 packed codes; distances are in bits.
        Raises CodeShapeError if a query is not as wide as the codes.
        """
        require_code_bytes(queries, self.code_bytes)
        queries = np.ascontiguousarray(queries)
        if subset is None:
            return self._nearest(queries, k, None, None)
        if subset.positions is not None:
            return self._nearest(queries, k, subset.positions, None)
        # Most positions may be found, so the nearest of all nearly always hold the wanted ones.
        wanted = min(k + len(self) - subset.count, 4 * k + _SPARE)
        positions, distances = self._nearest(queries, wanted, None, None)
        distances[~subset.contains(np.maximum(positions, 0))] = NO_DISTANCE
        positions, distances = nearest_of(positions, distances, k)
        short = np.flatnonzero(distances[:, min(k, subset.count) - 1] == NO_DISTANCE)
        if len(short):
            positions[short], distances[short] = self._nearest(queries[short], k, None, subset.bits)
        return positions, distances

    def _nearest(
        self,
        queries: NDArray[np.uint8],
        k: int,
        listed: NDArray[np.int64] | None,
        bits: NDArray[np.uint8] | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The nearest of the listed codes, or of those with a bit, or of all."""

        def nearest(start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
            codes = self._chosen(start, end, listed)
            positions, distances = _scan(codes, queries, k, _selector(bits, start, end))
            if listed is None:
                positions += start  # also of what was not found, which has NO_DISTANCE
            elif end > start:
                positions = listed[start:end][positions]
            return positions, distances

        found = self._in_slices(nearest, len(self) if listed is None else len(listed), len(queries))
        positions = np.concatenate([part for part, _ in found], axis=1)
        distances = np.concatenate([part for _, part in found], axis=1)
        return nearest_of(positions, distances, k)

    def search_radius(
        self, query: NDArray[np.uint8], radius: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find every code within a radius in bits of one query; see Index.

        query: (n_bytes,) uint8. Raises CodeShapeError if it is not as wide as the codes.
        """
        queries = query[np.newaxis]
        require_code_bytes(queries, self.code_bytes)
        queries = np.ascontiguousarray(queries)
        strict = min(radius, 8 * self.code_bytes) + 1  # FAISS's radius is exclusive
        listed = None if subset is None else subset.positions

        def within(start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
            codes = self._chosen(start, end, listed)
            positions, distances = _scan_radius(codes, queries, strict)
            return positions + start if listed is None else listed[start:end][positions], distances

        found = self._in_slices(within, len(self) if listed is None else len(listed), 1)
        positions = np.concatenate([part for part, _ in found])
        distances = np.concatenate([part for _, part in found])
        if subset is not None and listed is None:
            chosen = subset.contains(positions)
            positions, distances = positions[chosen], distances[chosen]
        order = np.lexsort((positions, distances))
        return positions[order], distances[order]

    def search_combined(
        self,
        queries: NDArray[np.uint8],
        weights: NDArray[np.int32],
        k: int,
        subset: Subset | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the k codes with the least weighted sum of distances; see CombinedIndex.

        queries: (n_queries, n_bytes) uint8. Raises CodeShapeError, as `search` does.
        """
        require_code_bytes(queries, self.code_bytes)
        queries = np.ascontiguousarray(queries)
        listed = None if subset is None else subset.listed()
        factors = weights.astype(np.int64)  # products and sums have the bits of the widest factor

        def least(start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            positions, sums = np.empty(0, np.int64), np.empty(0, np.int64)
            for at in range(start, end, _BLOCK):
                until = min(at + _BLOCK, end)
                here = np.arange(at, until) if listed is None else listed[at:until]
                codes = self._chosen(at, until, listed)
                each = np.einsum("i,ij->j", factors, hamming_distances(queries, codes))
                positions, sums = least_sums(
                    np.concatenate([positions, here]), np.concatenate([sums, each]), k
                )
            return positions, sums

        size = len(self) if listed is None else len(listed)
        # In rounds, so that other searches need not wait for all of it.
        step = max(_ROUND // max(len(queries), 1), _BLOCK)
        found = []
        for start in range(0, max(size, 1), step):
            until = min(start + step, size)
            found += self._in_slices(
                lambda a, b, start=start: least(start + a, start + b), until - start, len(queries)
            )
        positions = np.concatenate([part for part, _ in found])
        return least_sums(positions, np.concatenate([part for _, part in found]), k)

    def distance_counts(
        self, queries: NDArray[np.uint8], subset: Subset | None = None
    ) -> NDArray[np.int64]:
        """Count the codes at each distance from the nearest of the queries; see CountingIndex.

        Raises CodeShapeError, as `search` does.
        """
        require_code_bytes(queries, self.code_bytes)
        queries = np.ascontiguousarray(queries)
        bits = 8 * self.code_bytes
        listed = None if subset is None else subset.positions
        chosen = None if subset is None or listed is not None else subset.mask()

        def count(start: int, end: int) -> NDArray[np.int64]:
            counts = np.zeros(bits + 1, np.int64)
            for at in range(start, end, _BLOCK):
                until = min(at + _BLOCK, end)
                found = hamming_distances(queries, self._chosen(at, until, listed))
                least = found[0] if len(found) == 1 else found.min(axis=0)
                if chosen is not None:
                    least = least[chosen[at:until]]
                counts += np.bincount(least, minlength=bits + 1)
            return counts

        size = len(self) if listed is None else len(listed)
        each = self._in_slices(count, size, len(queries))
        return np.sum(each, axis=0, dtype=np.int64)

    def _chosen(self, start: int, end: int, listed: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """The codes from start to end, or at the listed positions from start to end."""
        if listed is None:
            return self._codes[start:end]
        return self._codes.take(listed[start:end], axis=0)  # far faster than indexing with a list

    def _in_slices(self, task: Any, size: int, n_queries: int) -> list[Any]:
        """A task's result for each slice of so many positions; slices begin at whole bytes."""
        if size * n_queries <= _INLINE and self._slices is None:
            with one_thread():
                return [task(0, size)]
        parts = slices(size, self._slices or thread_count(), multiple=8)
        return in_threads(task, *zip(*parts, strict=True)) if parts else [task(0, 0)]


def _scan(
    codes: NDArray[np.uint8], queries: NDArray[np.uint8], k: int, selector: Any
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Positions and distances of the nearest codes, at most k, -1 where there are no more."""
    k = min(k, len(codes))
    positions = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k), np.int32)
    if k == 0:
        return positions, distances
    heaps = faiss.int_maxheap_array_t()
    heaps.nh, heaps.k = distances.shape
    heaps.ids, heaps.val = faiss.swig_ptr(positions), faiss.swig_ptr(distances)
    faiss.hammings_knn_hc(  # type: ignore[call-arg]  # its types lack the newest parameters
        heaps,
        faiss.swig_ptr(queries),
        faiss.swig_ptr(codes),
        *codes.shape,
        True,  # nearest first
        faiss.EXACT_TOPK,  # type: ignore[attr-defined]
        selector,
    )
    return positions, distances


def _scan_radius(
    codes: NDArray[np.uint8], queries: NDArray[np.uint8], strict: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Positions and distances of the codes nearer to one query than a radius, in no order."""
    result = faiss.RangeSearchResult(1)
    faiss.hamming_range_search(  # type: ignore[attr-defined]  # it is SWIG's
        faiss.swig_ptr(queries),
        faiss.swig_ptr(codes),
        1,
        len(codes),
        strict,
        codes.shape[1],
        result,
    )
    found = int(faiss.rev_swig_ptr(result.lims, 2)[1])
    positions = faiss.rev_swig_ptr(result.labels, found).copy()
    return positions, faiss.rev_swig_ptr(result.distances, found).astype(np.int32)


def _selector(bits: NDArray[np.uint8] | None, start: int, end: int) -> Any:
    """FAISS's selector of the positions of a slice that have a bit; None selects all."""
    if bits is None:
        return None
    part = bits[start // 8 : (end + 7) // 8]
    # FAISS's Python wrappers take an array and keep it; their types are C++'s.
    return faiss.IDSelectorBitmap(part)  # type: ignore[call-arg, arg-type]


def hamming_distances(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Hamming distances of (m, n_bytes) uint8 to (n, n_bytes) uint8, contiguous: (m, n) int32."""
    found = np.empty((len(left), len(right)), np.int32)
    pointers = [faiss.swig_ptr(array) for array in (left, right, found)]
    faiss.hammings(  # type: ignore[attr-defined]  # it is SWIG's
        *pointers[:2], len(left), len(right), left.shape[1], pointers[2]
    )
    return found
