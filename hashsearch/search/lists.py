"""Codes in lists, of which a query visits those whose centroids are nearest to it."""

from itertools import pairwise
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from hashsearch.search import NO_DISTANCE, nearest_of
from hashsearch.search.threads import in_threads, one_thread, slices, thread_count

# More neighbours than wanted are found: nearly always, all codes at the last distance are among
# them, and the first of these can be chosen.
SPARE = 16


class Lists(Protocol):
    """n codes, each in one list. What is found is known by its position from 0 to n - 1.

    number: of the lists.
    """

    number: int

    @property
    def nbytes(self) -> int:
        """Bytes of memory that they take beside the codes."""
        ...

    def nearest(
        self, queries: NDArray[np.uint8], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The nearest k codes of the visited lists, as of `Index.search`.

        queries: (n_queries, n_bytes) uint8.
        """
        ...

    def within(
        self, query: NDArray[np.uint8], radius: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The codes of the visited lists within an inclusive radius, as of `Index.search_radius`.

        query: (n_bytes,) uint8.
        """
        ...


class InvertedLists:
    """Lists in memory: FAISS holds a copy of the codes, list by list.

    FAISS does not say which of equally distant codes it finds; that is settled here.
    """

    def __init__(
        self,
        codes: NDArray[np.uint8],
        centroids: NDArray[np.uint8],
        lists: NDArray[np.integer[Any]],
        nprobe: int,
    ):
        """Fill the lists; nothing is trained or assigned.

        codes: (n, n_bytes) uint8. centroids: (n_lists, n_bytes) uint8. lists: (n,) integers from
        0 to n_lists - 1, the list of each code. nprobe: number of lists visited for a query.
        """
        self.number, self._code_bytes = centroids.shape
        self._size = len(codes)
        self._quantizer = faiss.IndexBinaryFlat(8 * self._code_bytes)
        self._quantizer.add(np.ascontiguousarray(centroids))
        self._ivf = faiss.IndexBinaryIVF(self._quantizer, 8 * self._code_bytes, self.number)
        order = np.argsort(lists.astype(np.uint16), kind="stable")  # in order of position
        ends = np.cumsum(np.bincount(lists, minlength=self.number)).tolist()
        for number, (start, end) in enumerate(pairwise([0, *ends])):
            if start < end:
                positions = order[start:end]
                part = codes[positions]  # has a name, so that it lives until FAISS has copied it
                self._ivf.invlists.add_entries(
                    number, end - start, faiss.swig_ptr(positions), faiss.swig_ptr(part)
                )
        self._ivf.ntotal = len(codes)
        self.nprobe = nprobe

    @property
    def nprobe(self) -> int:
        """Number of lists visited for a query, from 1 to all."""
        return int(self._ivf.nprobe)

    @nprobe.setter
    def nprobe(self, lists: int) -> None:
        self._ivf.nprobe = lists

    @property
    def nbytes(self) -> int:
        codes = self._size * (self._code_bytes + 8)  # FAISS's copy, positions
        return self.number * self._code_bytes + codes

    def nearest(
        self, queries: NDArray[np.uint8], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The nearest k codes of the visited lists; see Lists."""
        queries = np.ascontiguousarray(queries)
        parts = _in_slices(lambda start, end: self._nearest(queries[start:end], k), len(queries))
        positions = np.concatenate([part for part, _ in parts])
        return positions, np.concatenate([part for _, part in parts])

    def _nearest(
        self, queries: NDArray[np.uint8], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        to_lists, lists = self._quantizer.search(queries, self.nprobe)
        distances, positions = self._ivf.search_preassigned(queries, k + SPARE, lists, to_lists)
        positions, distances = nearest_of(positions, distances, k + SPARE)
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

    def within(
        self, query: NDArray[np.uint8], radius: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The codes of the visited lists within a radius; see Lists."""
        queries = np.ascontiguousarray(query[np.newaxis])
        strict = min(radius, 8 * self._code_bytes) + 1  # FAISS's radius is exclusive
        with one_thread():
            to_lists, lists = self._quantizer.search(queries, self.nprobe)
            _, distances, positions = self._ivf.range_search_preassigned(
                queries, strict, lists, to_lists
            )
        order = np.lexsort((positions, distances))
        return positions[order], distances[order].astype(np.int32)


def _in_slices(task: Any, n_queries: int) -> list[Any]:
    """A task's result for each slice of the queries; one query is not worth waking a thread."""
    parts = slices(n_queries, thread_count())
    if len(parts) > 1:
        return in_threads(task, *zip(*parts, strict=True))
    with one_thread():
        return [task(0, n_queries)]
