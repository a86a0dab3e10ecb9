"""Nearest vectors: FAISS, and our own scan of pixels, behind one small interface."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hashsearch.search.subset import Subset

NO_POSITION = -1
NO_DISTANCE = np.iinfo(np.int32).max
_POSITION = 2**32 - 1  # the bits of a position; an index holds fewer vectors


class Stored(NamedTuple):
    """Where an array is stored: the path of a .npy file, and its SHA-256 in hexadecimal."""

    path: Path
    sha256: str


class Block(NamedTuple):
    """Rows of one stored array, perhaps memory-mapped, that belong to an index.

    values: (n_stored, n_values) uint8. rows: (n,) int64, ascending, those that belong to it;
    positions: (n,) int64, their positions in the index. stored: where values are, if it is known.
    """

    values: NDArray[np.uint8]
    rows: NDArray[np.int64]
    positions: NDArray[np.int64]
    stored: Stored | None = None

    @classmethod
    def of_array(cls, values: NDArray[np.uint8]) -> "Block":
        """All rows of an array, in the order of their positions."""
        rows = np.arange(len(values))
        return cls(values, rows, rows)

    @property
    def is_whole_array(self) -> bool:
        """Whether each row's position is its number, as `of_array` makes it."""
        return self.rows is self.positions and len(self.rows) == len(self.values)


def gathered(blocks: Sequence[Block], width: int) -> NDArray[np.uint8]:
    """The blocks' rows as one (n, width) uint8 array, in the order of positions.

    They are copied, unless there is one block that `of_array` made.
    """
    if len(blocks) == 1 and blocks[0].is_whole_array:
        return blocks[0].values
    values = np.empty((sum(len(block.rows) for block in blocks), width), np.uint8)
    for block in blocks:
        values[block.positions] = block.values.take(block.rows, axis=0)
    return values


def nearest_of(
    positions: NDArray[np.int64], distances: NDArray[np.int32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The k nearest of what was found, equal distances in order of position.

    positions, distances: (n_queries, n_found); what has NO_DISTANCE was not found. Returns two
    arrays of (n_queries, k), filled up with NO_POSITION and NO_DISTANCE.
    """
    keys = distances.astype(np.int64)  # one number that sorts by distance, then by position
    keys <<= 32
    keys |= positions & _POSITION
    if k < keys.shape[1]:
        keys.partition(k - 1, axis=1)
    elif k > keys.shape[1]:
        missing = np.full((len(keys), k - keys.shape[1]), NO_DISTANCE << 32)
        keys = np.concatenate([keys, missing], axis=1)
    keys = keys[:, :k]
    keys.sort(axis=1)
    distances = (keys >> 32).astype(np.int32)
    positions = keys & _POSITION
    positions[distances == NO_DISTANCE] = NO_POSITION
    return positions, distances


def least_sums(
    positions: NDArray[np.int64], sums: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The k least sums and their positions, least first, equal sums in order of position.

    positions, sums: (n,) int64. Returns two arrays of (min(k, n),).
    """
    if k < len(sums):
        near = sums <= np.partition(sums, k - 1)[k - 1]
        positions, sums = positions[near], sums[near]
    order = np.lexsort((positions, sums))[:k]
    return positions[order], sums[order]


class Index(Protocol):
    """An index of n vectors, each known by its position from 0 to n - 1.

    A subset is the set of positions that may be found; None means all. Equal distances come in
    order of position.
    """

    def __len__(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes beside the vectors."""
        ...

    def search(
        self, queries: Any, k: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find the k nearest vectors of each query.

        queries: (n_queries, n_values). Returns (positions, distances), both (n_queries, k),
        nearest first, int64 and int32. A slot with no match holds NO_POSITION and NO_DISTANCE.
        """
        ...

    def search_radius(
        self, query: Any, radius: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find every vector within an inclusive radius of one query.

        query: (n_values,). Returns (positions, distances), both (n_found,), nearest first.
        """
        ...


@runtime_checkable
class CombinedIndex(Index, Protocol):
    """An index that can add up the distances to several queries."""

    def search_combined(
        self, queries: Any, weights: NDArray[np.int32], k: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the k vectors with the least weighted sum of distances to all queries.

        weights: (n_queries,) int32, such as 1 for an example and -1 for a counterexample. Returns
        (positions, sums), both int64, least first, equal sums in order of position. Both have k
        entries, or fewer where fewer vectors may be found.
        """
        ...


@runtime_checkable
class CountingIndex(Index, Protocol):
    """An index of codes that can count them by their distance."""

    def distance_counts(
        self, queries: NDArray[np.uint8], subset: Subset | None = None
    ) -> NDArray[np.int64]:
        """Count the codes at each distance from the nearest of the queries.

        queries: (n_queries, n_bytes) uint8, at least one. Returns (bits + 1,) int64: at position
        d, the number of codes, of those that may be found, whose least distance is d bits.
        """
        ...
