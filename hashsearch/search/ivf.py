"""Approximate search by Hamming distance: FAISS's inverted file of binary codes."""

from itertools import pairwise
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import CODE_BYTES, require_code_bytes
from hashsearch.errors import InvalidGallery
from hashsearch.progress import progress_report
from hashsearch.search import NO_DISTANCE, NO_POSITION, nearest_of
from hashsearch.search.exact import ExactIndex
from hashsearch.search.held_out import HeldOut
from hashsearch.search.subset import Subset
from hashsearch.search.threads import in_threads, one_thread, slices, thread_count

MOST_LISTS = 2**16 - 1  # so that a list's number takes two bytes
# Positions that a subset may leave out and still be searched in the lists: so many, or a tenth.
_LEFT_OUT, _SHARE_LEFT_OUT = 64, 0.1
# More neighbours than wanted are found: nearly always, all codes at the last distance are among
# them, and the first of these can be chosen.
_SPARE = 16
SAMPLE = 32  # codes that are trained on, for each list
_ROUNDS = 10  # of k-means
_BLOCK = 2**14  # codes that a thread assigns at once


class IvfIndex:
    """Compares a query with the codes of the lists whose centroids are nearest to it.

    Every code belongs to one list. FAISS holds a copy of the codes, list by list. It takes no
    selector and does not say which of equally distant codes it finds; both is settled here, so
    that a query always has the same answer. With all lists visited, it is the exact one.
    """

    def __init__(
        self,
        codes: NDArray[np.uint8],
        centroids: NDArray[np.uint8],
        lists: NDArray[np.integer[Any]],
        nprobe: int,
        exact: ExactIndex,
    ):
        """Fill the lists; nothing is trained or assigned.

        codes: (n, n_bytes) uint8. centroids: (n_lists, n_bytes) uint8. lists: (n,) integers from
        0 to n_lists - 1, the list of each code. nprobe: number of lists visited for a query.
        exact: index of the same codes, which answers where the lists cannot.
        """
        n_lists, self.code_bytes = centroids.shape
        self.centroids = centroids
        self._exact = exact
        self._quantizer = faiss.IndexBinaryFlat(8 * self.code_bytes)
        self._quantizer.add(np.ascontiguousarray(centroids))
        self._ivf = faiss.IndexBinaryIVF(self._quantizer, 8 * self.code_bytes, n_lists)
        self.nprobe = nprobe
        order = np.argsort(lists.astype(np.uint16), kind="stable")  # in order of position
        ends = np.cumsum(np.bincount(lists, minlength=n_lists)).tolist()
        for number, (start, end) in enumerate(pairwise([0, *ends])):
            if start < end:
                positions = order[start:end]
                part = codes[positions]  # has a name, so that it lives until FAISS has copied it
                self._ivf.invlists.add_entries(
                    number, end - start, faiss.swig_ptr(positions), faiss.swig_ptr(part)
                )
        self._ivf.ntotal = len(codes)

    def __len__(self) -> int:
        return len(self._exact)

    @property
    def nbytes(self) -> int:
        return self.centroids.nbytes + len(self) * (self.code_bytes + 8)  # FAISS's copy, positions

    @property
    def nprobe(self) -> int:
        """Number of lists visited for a query, from 1 to the number of lists."""
        return int(self._ivf.nprobe)

    @nprobe.setter
    def nprobe(self, lists: int) -> None:
        self._ivf.nprobe = lists

    def search(
        self, queries: NDArray[np.uint8], k: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find the k codes nearest to each query in the lists that are visited; see Index.

        queries: (n_queries, n_bytes) uint8 packed codes; distances are in bits. Searched exactly
        instead are a subset that leaves out many positions, and a query for which the lists hold
        fewer than k codes. Raises CodeShapeError if a query is not as wide as the codes.
        """
        require_code_bytes(queries, self.code_bytes)
        left_out = 0 if subset is None else len(self) - subset.count
        wanted = k + min(left_out, 3 * k + 4 * _SPARE)
        if self._is_narrow(subset) or wanted + _SPARE > len(self):
            return self._exact.search(queries, k, subset)
        queries = np.ascontiguousarray(queries)

        def nearest(start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
            return self._nearest(queries[start:end], wanted)

        parts = self._in_slices(nearest, len(queries))
        positions = np.concatenate([part for part, _ in parts])
        distances = np.concatenate([part for _, part in parts])
        if subset is not None:
            positions, distances = _kept(positions, distances, subset)
        positions, distances = positions[:, :k], distances[:, :k]
        short = np.flatnonzero(distances[:, k - 1] == NO_DISTANCE)
        if len(short):
            positions[short], distances[short] = self._exact.search(queries[short], k, subset)
        return positions, distances

    def _nearest(
        self, queries: NDArray[np.uint8], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The nearest k codes of the visited lists, equal distances in order of position."""
        to_lists, lists = self._quantizer.search(queries, self.nprobe)
        distances, positions = self._ivf.search_preassigned(queries, k + _SPARE, lists, to_lists)
        positions, distances = nearest_of(positions, distances, k + _SPARE)
        last = distances[:, k - 1]
        cut = np.flatnonzero((distances[:, -1] == last) & (last != NO_DISTANCE))
        for row in cut.tolist():  # as far away as the last, more codes than the spare ones
            one = slice(row, row + 1)
            _, far, found = self._ivf.range_search_preassigned(
                queries[one], int(last[row]) + 1, lists[one], to_lists[one]
            )
            first = np.lexsort((found, far))[:k]
            positions[row, :k], distances[row, :k] = found[first], far[first]
        return positions[:, :k], distances[:, :k]

    def search_radius(
        self, query: NDArray[np.uint8], radius: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find the codes within a radius in bits in the lists that are visited; see Index.

        query: (n_bytes,) uint8. A subset that leaves out many positions is searched exactly.
        Raises CodeShapeError if the query is not as wide as the codes.
        """
        queries = query[np.newaxis]
        require_code_bytes(queries, self.code_bytes)
        if self._is_narrow(subset):
            return self._exact.search_radius(query, radius, subset)
        queries = np.ascontiguousarray(queries)
        strict = min(radius, 8 * self.code_bytes) + 1  # FAISS's radius is exclusive
        with one_thread():
            to_lists, lists = self._quantizer.search(queries, self.nprobe)
            _, distances, positions = self._ivf.range_search_preassigned(
                queries, strict, lists, to_lists
            )
        if subset is not None:
            inside = subset.contains(positions)
            positions, distances = positions[inside], distances[inside]
        order = np.lexsort((positions, distances))
        return positions[order], distances[order].astype(np.int32)

    def _is_narrow(self, subset: Subset | None) -> bool:
        """Whether a subset leaves out too much to be searched in the lists."""
        most = max(_LEFT_OUT, _SHARE_LEFT_OUT * len(self))
        return subset is not None and len(self) - subset.count > most

    def _in_slices(self, task: Any, n_queries: int) -> list[Any]:
        """A task's result for each slice of the queries; one query is not worth waking a thread."""
        parts = slices(n_queries, thread_count())
        if len(parts) > 1:
            return in_threads(task, *zip(*parts, strict=True))
        with one_thread():
            return [task(0, n_queries)]


def _kept(
    positions: NDArray[np.int64], distances: NDArray[np.int32], subset: Subset
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """What was found, sorted, with those outside a subset moved to the end as not found."""
    gone = ~subset.contains(np.maximum(positions, 0)) | (positions == NO_POSITION)
    positions[gone], distances[gone] = NO_POSITION, NO_DISTANCE
    order = np.argsort(gone, axis=1, kind="stable")
    positions = np.take_along_axis(positions, order, axis=1)
    return positions, np.take_along_axis(distances, order, axis=1)


def train(codes: NDArray[np.uint8], n_lists: int, seed: int) -> NDArray[np.uint8]:
    """Find centroids for these codes by k-means; each of their bits is what most codes have there.

    codes: (n, n_bytes) uint8, n at least n_lists; at most 32 for each list are trained on. Returns
    (n_lists, n_bytes) uint8. The same codes, number and seed give the same centroids.
    FAISS's own training takes the mean of floats, whose distances cost a hundred times as much.
    """
    random = np.random.default_rng(seed)
    chosen = random.choice(len(codes), min(len(codes), SAMPLE * n_lists), replace=False)
    sample = codes[chosen]
    centroids = sample[:n_lists].copy()
    for _ in range(_ROUNDS):
        lists = assign(sample, centroids, "training")
        order = np.argsort(lists, kind="stable")
        ends = np.cumsum(np.bincount(lists, minlength=n_lists)).tolist()
        for number, (start, end) in enumerate(pairwise([0, *ends])):
            if start < end:
                bits = np.unpackbits(sample[order[start:end]], axis=1)
                centroids[number] = np.packbits(2 * bits.sum(axis=0, dtype=np.int64) > end - start)
    return centroids


def assign(
    codes: NDArray[np.uint8], centroids: NDArray[np.uint8], what: str = "assigning"
) -> NDArray[np.uint16]:
    """The list of each code: (n,) uint16, the position of the nearest centroid.

    codes: (n, n_bytes) uint8. centroids: (n_lists, n_bytes) uint8; of equally near ones, the
    first. what: name of the progress that is reported.
    """
    quantizer = faiss.IndexBinaryFlat(8 * centroids.shape[1])
    quantizer.add(np.ascontiguousarray(centroids))
    lists = np.empty(len(codes), np.uint16)

    def nearest(start: int, end: int) -> None:
        block = np.ascontiguousarray(codes[start:end])
        lists[start:end] = quantizer.search(block, 1)[1][:, 0]

    starts = range(0, len(codes), _BLOCK * thread_count())
    with progress_report(what, len(codes), "codes") as report:
        for first in starts:
            end = min(first + starts.step, len(codes))
            parts = slices(end - first, thread_count())
            in_threads(nearest, *zip(*((first + a, first + b) for a, b in parts), strict=True))
            report.advance(end - first)
    return lists


def lists_for(n: int) -> int:
    """Number of lists for so many codes: a power of two, about the root of their number."""
    return int(min(max(2 ** round(np.log2(max(n, 1)) / 2), 1), max(n // 4, 1), MOST_LISTS))


def choose_nprobe(index: IvfIndex, held_out: HeldOut, wanted: float) -> int:
    """The fewest lists to visit for a wanted recall, from 0 to 1, by these queries.

    The mean of the queries' recall is at least its standard error above the wanted one, so that
    other queries are likely to have it too. All lists are visited where fewer do not suffice.
    """
    n_lists = len(index.centroids)

    def is_enough(nprobe: int) -> bool:
        index.nprobe = nprobe
        recall = held_out.recall(index)
        return bool(recall.mean() - recall.std() / np.sqrt(len(recall)) >= wanted)

    enough = 1
    while enough < n_lists and not is_enough(enough):
        enough = min(2 * enough, n_lists)
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if is_enough(middle) else (middle, enough)
    return enough


def require_lists(
    n: int, centroids: NDArray[np.uint8], lists: NDArray[np.integer[Any]], nprobe: int
) -> None:
    """Raise InvalidGallery unless stored arrays are those of an index of n codes.

    lists: (n,) integers, -1 for codes that are not assigned yet.
    """
    n_lists = len(centroids) if centroids.ndim == 2 else 0
    fits = (
        centroids.dtype == np.uint8
        and centroids.shape == (n_lists, CODE_BYTES)
        and 1 <= nprobe <= n_lists <= MOST_LISTS
        and lists.shape == (n,)
        and np.issubdtype(lists.dtype, np.integer)
        and (n == 0 or (lists.min() >= -1 and lists.max() < n_lists))
    )
    if not fits:
        raise InvalidGallery(
            f"the stored lists of the index ivf are not usable: centroids of shape "
            f"{centroids.shape} and type {centroids.dtype}, nprobe {nprobe}; build it again: "
            "hashsearch gallery build G --kind ivf"
        )
