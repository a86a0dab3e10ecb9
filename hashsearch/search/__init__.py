"""Nearest codes: FAISS behind one small interface."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Index(Protocol):
    """A gallery that can be searched exactly, whatever it keeps of an image."""

    unit: str
    """What distances are in."""

    def __len__(self) -> int: ...

    def search(self, queries: Any, k: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """(n_queries, n_values) to ids and distances, both (n_queries, k), nearest first.

        k: from 1 to the number of images.
        """
        ...


class RadiusIndex(Index, Protocol):
    """One that finds all within a radius too."""

    def search_radius(self, query: Any, radius: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """(n_values,) and an inclusive radius to ids and distances, both (n_found,)."""
        ...
