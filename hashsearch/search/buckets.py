"""Semantic hashing: images at nearby 28-bit addresses are candidates, and codes rank them.

A look-up visits every address within a few bits of the query's. Its time depends on the number of
these addresses and on the number of images found there, not on the size of the gallery.
Source: Salakhutdinov and Hinton 2009, Semantic hashing; Krizhevsky and Hinton 2011.
"""

from math import comb
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import ADDRESS_BITS, ADDRESS_BYTES, require_code_bytes
from hashsearch.search import NO_DISTANCE, NO_POSITION
from hashsearch.search.exact import ExactIndex
from hashsearch.search.subset import Subset, common, of_positions

# Visiting an address of the ball takes as long as comparing the query's with about six addresses.
_COMPARED = 6


class BucketIndex:
    """Compares a query with the codes whose addresses lie within a radius of its address.

    A query is (4 + n_bytes,) uint8: its address, then its code. A bucket is the set of positions
    with one address.
    """

    def __init__(self, addresses: NDArray[np.uint8], codes: NDArray[np.uint8], radius: int):
        """addresses: (n, 4) uint8, packed; the last four bits are ignored.

        codes: (n, n_bytes) uint8, which are kept, not copied. radius: inclusive, in bits of the
        address; at 28 every code is compared. Raises CodeShapeError if an address is not 4 bytes.
        """
        numbers = _numbers(addresses)
        assert len(numbers) == len(codes) <= 2**32
        self.radius = radius
        self._query_bytes = ADDRESS_BYTES + codes.shape[1]
        self._exact = ExactIndex(codes)
        # Sorted by address, then by position, as one number: much faster than an argsort.
        keys = numbers.astype(np.uint64) << 32
        keys |= np.arange(len(keys), dtype=np.uint64)
        keys.sort()
        self._order = keys.astype(np.uint32)
        numbers = (keys >> 32).astype(np.uint32)
        firsts = np.flatnonzero(np.diff(numbers, prepend=np.uint32(2**ADDRESS_BITS)))
        self._starts = np.append(firsts, len(numbers)).astype(np.uint32)
        ball = sum(comb(ADDRESS_BITS, bits) for bits in range(radius + 1))
        table = _Ball if ball * _COMPARED < len(firsts) else _List
        self._table: _Table = table(numbers[firsts], radius)

    def __len__(self) -> int:
        return len(self._order)

    @property
    def nbytes(self) -> int:
        return self._order.nbytes + self._starts.nbytes + self._table.nbytes

    def candidates(self, address: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The positions whose addresses lie within the radius of this one.

        address: (4,) uint8. Returns (n_found,) int64, ascending. Raises CodeShapeError if it is
        not 4 bytes.
        """
        buckets = self._table.buckets(_numbers(address[np.newaxis])[0])
        starts = self._starts[buckets].astype(np.int64)
        sizes = self._starts[buckets + 1] - starts
        return np.sort(self._order[places(starts, sizes)]).astype(np.int64)

    def search(
        self, queries: NDArray[np.uint8], k: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find the k codes nearest to each query among its candidates; see Index.

        queries: (n_queries, 4 + n_bytes) uint8; distances are in bits of the code.
        Raises CodeShapeError if a query has another width.
        """
        require_code_bytes(queries, self._query_bytes)
        positions = np.full((len(queries), k), NO_POSITION, np.int64)
        distances = np.full((len(queries), k), NO_DISTANCE, np.int32)
        for row, query in enumerate(queries):
            code = query[np.newaxis, ADDRESS_BYTES:]
            found = self._exact.search(code, k, self._among(query, subset))
            positions[row], distances[row] = found[0][0], found[1][0]
        return positions, distances

    def search_radius(
        self, query: NDArray[np.uint8], radius: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find every candidate whose code lies within a radius in bits of one query; see Index.

        query: (4 + n_bytes,) uint8. Raises CodeShapeError if it has another width.
        """
        require_code_bytes(query[np.newaxis], self._query_bytes)
        return self._exact.search_radius(query[ADDRESS_BYTES:], radius, self._among(query, subset))

    def _among(self, query: NDArray[np.uint8], subset: Subset | None) -> Subset | None:
        """The query's candidates that are in the subset."""
        return common(of_positions(self.candidates(query[:ADDRESS_BYTES]), len(self)), subset)


class _Table(Protocol):
    """Finds which of n distinct addresses lie within a radius of one."""

    def __init__(self, addresses: NDArray[np.uint32], radius: int):
        """addresses: (n,) uint32, ascending."""

    @property
    def nbytes(self) -> int: ...

    def buckets(self, address: np.uint32) -> NDArray[np.int64]:
        """The places, from 0 to n - 1, of the addresses near this one: (n_found,) int64."""
        ...


class _List:
    """Compares all addresses, where there are few of them or the ball has many."""

    def __init__(self, addresses: NDArray[np.uint32], radius: int):
        self._addresses = addresses
        self._radius = radius

    @property
    def nbytes(self) -> int:
        return self._addresses.nbytes

    def buckets(self, address: np.uint32) -> NDArray[np.int64]:
        return np.flatnonzero(np.bitwise_count(self._addresses ^ address) <= self._radius)


class _Ball:
    """Visits every address of the ball, in a bitmap of all 2^28 addresses.

    The number of addresses before each 64 bits of the bitmap turns a bit into a place, so that
    a visit takes the same time however many addresses there are. The two have 48 MB.
    """

    def __init__(self, addresses: NDArray[np.uint32], radius: int):
        self._flips = flips(ADDRESS_BITS, radius)
        self._words = np.zeros(2**ADDRESS_BITS // 64, np.uint64)
        np.bitwise_or.at(self._words, addresses >> 6, _bits(addresses))
        counts = np.bitwise_count(self._words)
        self._before = np.cumsum(counts, dtype=np.uint32) - counts

    @property
    def nbytes(self) -> int:
        return self._flips.nbytes + self._words.nbytes + self._before.nbytes

    def buckets(self, address: np.uint32) -> NDArray[np.int64]:
        ball = self._flips ^ address
        found = ball[(self._words[ball >> 6] & _bits(ball)) > 0]
        before = self._words[found >> 6] & (_bits(found) - 1)
        return np.bitwise_count(before) + self._before[found >> 6].astype(np.int64)


def _numbers(addresses: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Packed addresses, (n, 4) uint8, as numbers below 2^28: (n,) uint32."""
    require_code_bytes(addresses, ADDRESS_BYTES)
    words = np.ascontiguousarray(addresses).view(">u4")[:, 0].astype(np.uint32)
    return words >> np.uint32(8 * ADDRESS_BYTES - ADDRESS_BITS)


def _bits(addresses: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """The bit of each address in the 64 bits of the bitmap that it belongs to."""
    return np.uint64(1) << (addresses & 63).astype(np.uint64)


def flips(bits: int, radius: int) -> NDArray[np.uint32]:
    """All numbers of so many bits of which at most `radius` are 1: (n,) uint32, ascending."""
    found = np.zeros(1, np.uint32)
    for bit in range(bits):
        fewer = found[np.bitwise_count(found) < radius]
        found = np.concatenate([found, fewer | np.uint32(1 << bit)])
    return found


def places(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places in slices of an array, one slice after another: (sum of sizes,) int64."""
    before = np.cumsum(sizes) - sizes
    return np.arange(sizes.sum()) + np.repeat(starts - before, sizes)
