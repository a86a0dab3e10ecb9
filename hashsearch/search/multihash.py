"""Multi-index hashing: exact search within small distances, without a scan.

The bits are dealt into parts, and for each part a table finds the codes by their bits there. If a
part i is searched within t_i bits, and the sum of all t_i + 1 is greater than r, then a code within
r bits of the query is found by one part at least: a code that no part finds differs from the query
in t_i + 1 bits or more of every part. So only codes found by a part are compared.
Source: Norouzi, Punjani and Fleet 2012, Fast search in Hamming space with multi-index hashing.
"""

from math import comb, inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import require_code_bytes
from hashsearch.search.buckets import flips, places
from hashsearch.search.exact import ExactIndex, hamming_distances
from hashsearch.search.linking import dealt, part_values, sampled
from hashsearch.search.subset import Subset
from hashsearch.search.threads import in_threads

# Measured on two cores of an AMD EPYC with AVX-512; only their ratios matter.
_SECONDS_TO_START = 80e-6  # a search by the tables
_SECONDS_TO_LOOK_UP = 20e-9  # a key
_SECONDS_TO_COMPARE = 30e-9  # a code that was looked up
_SECONDS_TO_SCAN = 0.8e-9  # a code, where all are compared
_SECONDS_TO_SCAN_LISTED = 5e-9  # a code of a list
_TRIED = 0.1  # of a scan's time, in which the nearest are searched by the tables
_BLOCK = 2**14  # codes that fit into the cache, whose keys are computed together


class MultiHashIndex:
    """Finds what the exact index finds, which itself answers where a scan takes less time.

    The time is estimated before it is spent: the number of keys is known, and the sizes of their
    buckets are read before the codes in them. The tables have as many bits to a key as the number
    of codes has, and hold 6 to 8 bytes a code and part.
    """

    def __init__(self, codes: NDArray[np.uint8], exact: ExactIndex):
        """codes: (n, n_bytes) uint8, which are kept, not copied. exact: their exact index."""
        n = len(codes)
        assert n == len(exact) <= 2**32
        self._codes = np.ascontiguousarray(codes)
        self._exact = exact
        most = n * _SECONDS_TO_SCAN
        if most <= _SECONDS_TO_START:
            self._parts = 0  # a scan always takes less time
            return
        bits = 8 * exact.code_bytes
        self._parts = round(bits / max(np.log2(n), 1))
        self._width = min(bits // self._parts, max(int(np.log2(n)), 1))
        parts = dealt(sampled(self._codes, np.random.default_rng(0)), self._parts)
        self._bits = np.array([part[: self._width] for part in parts])
        # The bits that a key differs in, fewest first, as far as looking them up is worth it.
        each = most / (self._parts * _SECONDS_TO_LOOK_UP)
        self._keys = [1]  # within 0, 1, 2 … bits
        while self._keys[-1] < 2**self._width and self._keys[-1] <= each:
            self._keys.append(self._keys[-1] + comb(self._width, len(self._keys)))
        flipped = flips(self._width, len(self._keys) - 1)
        self._flips = flipped[np.argsort(np.bitwise_count(flipped), kind="stable")]
        # For each part the positions in order of key, and where in them each key starts.
        self._order = np.empty((self._parts, n), np.uint32)
        self._starts = np.empty((self._parts, 2**self._width + 1), np.uint32)
        in_threads(self._fill, range(self._parts))

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def nbytes(self) -> int:
        return self._order.nbytes + self._starts.nbytes + self._flips.nbytes if self._parts else 0

    def search(
        self, queries: NDArray[np.uint8], k: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find the k codes nearest to each query; see Index.

        The radius grows until k codes are within it, or a tenth of a scan's time is spent: then
        the exact index answers. Among 10 million real codes, it grows to about 32 bits in it.
        queries: (n_queries, n_bytes) uint8 packed codes; distances are in bits.
        Raises CodeShapeError if a query is not as wide as the codes.
        """
        require_code_bytes(queries, self._exact.code_bytes)
        positions = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.int32)
        scanned = []
        for row, query in enumerate(queries):
            found = self._nearest(query, k, subset)
            if found is None:
                scanned.append(row)
            else:
                positions[row], distances[row] = found
        if scanned:
            positions[scanned], distances[scanned] = self._exact.search(queries[scanned], k, subset)
        return positions, distances

    def search_radius(
        self, query: NDArray[np.uint8], radius: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find every code within a radius in bits of one query; see Index.

        query: (n_bytes,) uint8. Raises CodeShapeError if it is not as wide as the codes.
        """
        require_code_bytes(query[np.newaxis], self._exact.code_bytes)
        buckets = self._buckets(query, radius, self._seconds_to_scan(subset))
        if buckets is None:
            return self._exact.search_radius(query, radius, subset)
        positions, distances = self._compare(query, buckets, subset)
        return _sorted(positions, distances, radius)

    def _nearest(
        self, query: NDArray[np.uint8], k: int, subset: Subset | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]] | None:
        """The k nearest codes; None if a scan takes less time, or there are fewer codes."""
        if k > (len(self) if subset is None else subset.count):
            return None
        left = _TRIED * self._seconds_to_scan(subset)
        radius = self._parts - 1  # for which each part is looked up within 0 bits
        while True:
            buckets = self._buckets(query, radius, left)
            if buckets is None:
                return None
            left -= buckets.seconds
            positions, distances = self._compare(query, buckets, subset)
            found = int((distances <= radius).sum())
            if found >= k:
                nearest = _sorted(positions, distances, radius)
                return nearest[0][:k], nearest[1][:k]
            # The k nearest are not farther than the k nearest known by now.
            known = int(np.partition(distances, k - 1)[k - 1]) if len(distances) >= k else inf
            radius = int(min(radius + self._parts, known))

    def _buckets(
        self, query: NDArray[np.uint8], radius: int, most_seconds: float
    ) -> "_Buckets | None":
        """The buckets with every code within a radius; None if reading them takes too long.

        With r = m s + a, a + 1 of the m parts are looked up within s bits, those where that finds
        fewest codes, and the others within s - 1.
        """
        within, more = divmod(radius, max(self._parts, 1))
        if not self._parts or not 0 <= within < len(self._keys):
            return None
        number = self._keys[within]
        seconds = _SECONDS_TO_START + self._parts * number * _SECONDS_TO_LOOK_UP
        if seconds > most_seconds:
            return None
        key = np.packbits(np.unpackbits(query)[self._bits], axis=1, bitorder="little")
        key = np.pad(key, ((0, 0), (0, 4 - key.shape[1]))).view("<u4")
        at = (key ^ self._flips[:number]).astype(np.int64)
        parts = np.arange(self._parts)[:, np.newaxis]
        at += parts * self._starts.shape[1]
        starts = self._starts.ravel()[at].astype(np.int64)
        sizes = self._starts.ravel()[at + 1] - starts
        last = self._keys[within - 1] if within else 0
        fewest = np.argsort(sizes[:, last:].sum(axis=1), kind="stable")
        sizes[fewest[more + 1 :], last:] = 0
        seconds += float(sizes.sum()) * _SECONDS_TO_COMPARE
        if seconds > most_seconds:
            return None
        return _Buckets((starts + parts * len(self)).ravel(), sizes.ravel(), seconds)

    def _compare(
        self, query: NDArray[np.uint8], buckets: "_Buckets", subset: Subset | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Positions, ascending, and distances of the codes in buckets and in the subset."""
        positions = np.sort(self._order.ravel()[places(buckets.starts, buckets.sizes)])
        positions = positions[np.diff(positions, prepend=len(self)) != 0].astype(np.int64)
        if subset is not None:
            positions = positions[subset.contains(positions)]
        # take() copies rows several times faster than an index does.
        codes = self._codes.take(positions, axis=0)
        return positions, hamming_distances(np.ascontiguousarray(query[np.newaxis]), codes)[0]

    def _seconds_to_scan(self, subset: Subset | None) -> float:
        if subset is None or subset.positions is None:
            return len(self) * _SECONDS_TO_SCAN
        return subset.count * _SECONDS_TO_SCAN_LISTED

    def _fill(self, part: int) -> None:
        """Sort the positions of a part's table."""
        n = len(self)
        # Sorted by key, then by position, as one number: much faster than an argsort.
        keys = np.empty(n, np.uint64)
        for start in range(0, n, _BLOCK):
            codes = self._codes[start : start + _BLOCK]
            keys[start : start + _BLOCK] = part_values(codes, self._bits[part, ::-1])
        keys <<= 32
        keys |= np.arange(n, dtype=np.uint64)
        keys.sort()
        self._order[part] = keys & 2**32 - 1
        keys >>= 32
        sizes = np.bincount(keys.view(np.int64), minlength=2**self._width)
        self._starts[part, 0] = 0
        np.cumsum(sizes, out=self._starts[part, 1:])


class _Buckets(NamedTuple):
    """Slices of the tables' positions, one after another, and the time to compare their codes.

    starts, sizes: (n_buckets,) int64.
    """

    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    seconds: float


def _sorted(
    positions: NDArray[np.int64], distances: NDArray[np.int32], radius: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """What lies within a radius, nearest first. positions: (n,), ascending."""
    positions, distances = positions[distances <= radius], distances[distances <= radius]
    order = np.argsort(distances, kind="stable")
    return positions[order], distances[order]
