"""Nearest vectors: FAISS, and our own scan of pixels, behind one small interface."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

NO_POSITION = -1
NO_DISTANCE = np.iinfo(np.int32).max


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
