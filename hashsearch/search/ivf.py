"""Approximate search by Hamming distance: FAISS's inverted file of binary codes."""

from itertools import pairwise
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import CODE_BYTES, require_code_bytes
from hashsearch.errors import InvalidGallery
from hashsearch.progress import progress_report
from hashsearch.search import NO_DISTANCE, NO_POSITION, Index
from hashsearch.search.held_out import HeldOut
from hashsearch.search.lists import SPARE, InvertedLists, Lists
from hashsearch.search.subset import Subset
from hashsearch.search.threads import in_threads, slices, thread_count

MOST_LISTS = 2**16 - 1  # so that a list's number takes two bytes
# Positions that a subset may leave out and still be searched in the lists: so many, or a tenth.
_LEFT_OUT, _SHARE_LEFT_OUT = 64, 0.1
SAMPLE = 32  # codes that are trained on, for each list
_ROUNDS = 10  # of k-means
_BLOCK = 2**14  # codes that a thread assigns at once


class IvfIndex:
    """Compares a query with the codes of the lists whose centroids are nearest to it.

    Lists take no subset and may hold too few codes; both is settled here, so that a query always
    has the same answer. With all lists visited, it is the exact one.
    """

    def __init__(self, lists: Lists, exact: Index):
        """lists: of all codes. exact: index of the same codes, which answers what they cannot."""
        self.lists = lists
        self._exact = exact

    def __len__(self) -> int:
        return len(self._exact)

    @property
    def nbytes(self) -> int:
        return self.lists.nbytes

    def search(
        self, queries: NDArray[np.uint8], k: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find the k codes nearest to each query in the lists that are visited; see Index.

        queries: (n_queries, 32) uint8 packed codes; distances are in bits. Searched exactly
        instead are a subset that leaves out many positions, and a query for which the lists hold
        fewer than k codes. Raises CodeShapeError if a query is not as wide as the codes.
        """
        require_code_bytes(queries, CODE_BYTES)
        left_out = 0 if subset is None else len(self) - subset.count
        wanted = k + min(left_out, 3 * k + 4 * SPARE)
        if self._is_narrow(subset) or wanted + SPARE > len(self):
            return self._exact.search(queries, k, subset)
        positions, distances = self.lists.nearest(queries, wanted)
        if subset is not None:
            positions, distances = _kept(positions, distances, subset)
        positions, distances = positions[:, :k], distances[:, :k]
        short = np.flatnonzero(distances[:, k - 1] == NO_DISTANCE)
        if len(short):
            positions[short], distances[short] = self._exact.search(queries[short], k, subset)
        return positions, distances

    def search_radius(
        self, query: NDArray[np.uint8], radius: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find the codes within a radius in bits in the lists that are visited; see Index.

        query: (32,) uint8. A subset that leaves out many positions is searched exactly.
        Raises CodeShapeError if the query is not as wide as the codes.
        """
        require_code_bytes(query[np.newaxis], CODE_BYTES)
        if self._is_narrow(subset):
            return self._exact.search_radius(query, radius, subset)
        positions, distances = self.lists.within(query, radius)
        if subset is None:
            return positions, distances
        inside = subset.contains(positions)
        return positions[inside], distances[inside]

    def _is_narrow(self, subset: Subset | None) -> bool:
        """Whether a subset leaves out too much to be searched in the lists."""
        most = max(_LEFT_OUT, _SHARE_LEFT_OUT * len(self))
        return subset is not None and len(self) - subset.count > most


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


def choose_nprobe(lists: InvertedLists, exact: Index, held_out: HeldOut, wanted: float) -> int:
    """The fewest lists to visit for a wanted recall, from 0 to 1, by these queries.

    The mean of the queries' recall is at least its standard error above the wanted one, so that
    other queries are likely to have it too. All lists are visited where fewer do not suffice.
    """
    index, n_lists = IvfIndex(lists, exact), lists.number

    def is_enough(nprobe: int) -> bool:
        lists.nprobe = nprobe
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
