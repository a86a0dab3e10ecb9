"""What runs on the nodes of a cluster: the holder of a part's codes, which searches them."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hashsearch
from hashsearch.codes import CODE_BYTES
from hashsearch.distributed.pieces import Piece, read_pieces
from hashsearch.errors import ClusterError
from hashsearch.search.exact import ExactIndex
from hashsearch.search.ivf import assign
from hashsearch.search.lists import InvertedLists
from hashsearch.search.subset import Packed, Subset, of_packed

NOT_ASSIGNED = 2**16 - 1  # the list of a code that was added after the lists were made


class Holder:
    """A Ray actor that holds the codes of a part; its methods run in several threads.

    Positions are those within the part. Subsets are packed, and None means all.
    """

    def __init__(self) -> None:
        self._codes: NDArray[np.uint8] | None = None  # while they are sent
        self._exact: ExactIndex | None = None
        self._lists: dict[int, InvertedLists] = {}

    def read(self, version: str, pieces: Sequence[Piece], size: int) -> str | None:
        """Read the part from the gallery's folder. Returns why that is not possible, or None.

        version: of the service; raises ClusterError if another one is installed here.
        """
        if version != hashsearch.__version__:
            raise ClusterError(
                f"a node has HashSearch {hashsearch.__version__}, and the service {version}; "
                "install the same version on every node"
            )
        try:
            self._exact = ExactIndex(read_pieces(pieces, size))
        except (OSError, ValueError, IndexError) as error:
            return str(error)
        return None

    def begin(self, size: int) -> None:
        """Get ready for so many codes, which are sent."""
        self._codes = np.empty((size, CODE_BYTES), np.uint8)

    def take(self, positions: Any, codes: NDArray[np.uint8]) -> None:
        """Some of the codes, (n, 32) uint8. positions: a slice or (n,) integers."""
        assert self._codes is not None
        self._codes[positions] = codes

    def end(self) -> None:
        """All codes were sent."""
        assert self._codes is not None
        self._exact, self._codes = ExactIndex(self._codes), None

    def take_lists(
        self, number: int, centroids: NDArray[np.uint8], lists: NDArray[np.uint16], nprobe: int
    ) -> None:
        """Make the lists of an index. number: by which they are asked for. lists: of each code."""
        assert self._exact is not None
        added = np.flatnonzero(lists == NOT_ASSIGNED)
        if len(added):
            lists = lists.copy()
            lists[added] = assign(self._exact.codes[added], centroids)
        self._lists[number] = InvertedLists(self._exact.codes, centroids, lists, nprobe)

    def is_whole(self, wanted: Collection[int], dropped: Collection[int]) -> bool:
        """Whether it can be searched, and has the wanted lists. dropped: lists to forget."""
        for number in dropped:
            self._lists.pop(number, None)
        return self._exact is not None and all(number in self._lists for number in wanted)

    def search(self, packed: Packed | None, queries: NDArray[np.uint8], k: int) -> Any:
        """As `ExactIndex.search`; at most as many columns as there are codes."""
        exact = self._loaded()
        return exact.search(queries, min(k, len(exact)), _subset(packed))

    def search_radius(self, packed: Packed | None, query: NDArray[np.uint8], radius: int) -> Any:
        return self._loaded().search_radius(query, radius, _subset(packed))

    def search_combined(
        self,
        packed: Packed | None,
        queries: NDArray[np.uint8],
        weights: NDArray[np.int32],
        k: int,
    ) -> Any:
        return self._loaded().search_combined(queries, weights, k, _subset(packed))

    def distance_counts(self, packed: Packed | None, queries: NDArray[np.uint8]) -> Any:
        return self._loaded().distance_counts(queries, _subset(packed))

    def nearest(self, number: int, queries: NDArray[np.uint8], k: int) -> Any:
        """As `Lists.nearest`. number: of the lists."""
        return self._lists[number].nearest(queries, k)

    def within(self, number: int, query: NDArray[np.uint8], radius: int) -> Any:
        """As `Lists.within`. number: of the lists."""
        return self._lists[number].within(query, radius)

    def _loaded(self) -> ExactIndex:
        assert self._exact is not None
        return self._exact


def _subset(packed: Packed | None) -> Subset | None:
    return None if packed is None else of_packed(packed)
