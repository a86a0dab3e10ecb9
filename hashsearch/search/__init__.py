"""Nearest vectors: FAISS, and our own scan of pixels, behind one small interface."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

NO_POSITION = -1
NO_DISTANCE = np.iinfo(np.int32).max


class Block(NamedTuple):
    """Rows of one stored array, perhaps memory-mapped, that belong to an index.

    values: (n_stored, n_values) uint8. rows: (n,) int64, ascending, those that belong to it;
    positions: (n,) int64, their positions in the index.
    """

    values: NDArray[np.uint8]
    rows: NDArray[np.int64]
    positions: NDArray[np.int64]


def gathered(blocks: Sequence[Block], width: int) -> NDArray[np.uint8]:
    """Copy the blocks' rows into one (n, width) uint8 array, in the order of positions."""
    values = np.empty((sum(len(block.rows) for block in blocks), width), np.uint8)
    for block in blocks:
        values[block.positions] = block.values[block.rows]
    return values


class Index(Protocol):
    """An exact index of n vectors, each known by its position from 0 to n - 1.

    A selection is (n,) bool: only positions where it is True may be found; None means all.
    Equal distances come in order of position.
    """

    def __len__(self) -> int: ...

    def search(
        self, queries: Any, k: int, selection: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find the k nearest vectors of each query.

        queries: (n_queries, n_values). Returns (positions, distances), both (n_queries, k),
        nearest first, int64 and int32. A slot with no match holds NO_POSITION and NO_DISTANCE.
        """
        ...

    def search_radius(
        self, query: Any, radius: int, selection: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find every vector within an inclusive radius of one query.

        query: (n_values,). Returns (positions, distances), both (n_found,), nearest first.
        """
        ...
