"""Indexes of codes that lie in parts on the nodes of a cluster, with the answers of one machine."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import CODE_BITS, CODE_BYTES, require_code_bytes
from hashsearch.distributed.replicas import Replicas
from hashsearch.search import least_sums, nearest_of
from hashsearch.search.parts import PartState
from hashsearch.search.subset import Subset

_LARGE = 100_000  # bytes, above which each node is sent a value once, and not with each call


class PartedExactIndex:
    """Compares every query with every code, wherever it is; answers as ExactIndex does.

    Each part answers for its own positions, and what the parts find is merged by the same rule:
    by distance, then by position. Raises PartMissing where a part cannot be searched and that may
    not be noted.
    """

    def __init__(self, replicas: Replicas):
        self.replicas = replicas
        self._size = sum(one.size for one in replicas.slices)
        # What is sent of subsets that are searched again, as that of what was not removed is.
        self._packed: WeakKeyDictionary[Subset, dict[int, Any]] = WeakKeyDictionary()

    def __len__(self) -> int:
        return self._size

    @property
    def nbytes(self) -> int:
        return 0

    @property
    def retries(self) -> int:
        """See PartedIndex."""
        return self.replicas.tally.retries

    def part_states(self) -> list[PartState]:
        """See PartedIndex."""
        return self.replicas.states()

    def search(
        self, queries: NDArray[np.uint8], k: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find the k codes nearest to each query; see Index."""
        require_code_bytes(queries, CODE_BYTES)
        found = self._ask("search", subset, queries, k)
        return merged_nearest(self.replicas, found, len(queries), k)

    def search_radius(
        self, query: NDArray[np.uint8], radius: int, subset: Subset | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Find every code within a radius in bits of one query; see Index."""
        require_code_bytes(query[np.newaxis], CODE_BYTES)
        return merged_within(self.replicas, self._ask("search_radius", subset, query, radius))

    def search_combined(
        self,
        queries: NDArray[np.uint8],
        weights: NDArray[np.int32],
        k: int,
        subset: Subset | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the k codes with the least weighted sum of distances; see CombinedIndex."""
        require_code_bytes(queries, CODE_BYTES)
        found = self._ask("search_combined", subset, queries, weights, k)
        positions, sums = _joined(self.replicas, found)
        return least_sums(positions, sums, k)

    def distance_counts(
        self, queries: NDArray[np.uint8], subset: Subset | None = None
    ) -> NDArray[np.int64]:
        """Count the codes at each distance from the nearest of the queries; see CountingIndex."""
        require_code_bytes(queries, CODE_BYTES)
        found = self._ask("distance_counts", subset, queries)
        return np.sum([np.zeros(CODE_BITS + 1, np.int64), *found.values()], axis=0, dtype=np.int64)

    def _ask(self, method: str, subset: Subset | None, *arguments: Any) -> dict[int, Any]:
        """Ask the parts in which the subset has positions."""
        wanted: Mapping[int, Any] = dict.fromkeys(range(len(self.replicas.slices)))
        if subset is not None:
            if (packed := self._packed.get(subset)) is None:
                packed = self._packed[subset] = self._pack(subset)
            wanted = packed
        calls = {number: (packed, *arguments) for number, packed in wanted.items()}
        return self.replicas.ask(method, calls)

    def _pack(self, subset: Subset) -> dict[int, Any]:
        """What is sent of a subset to each part in which it has positions; None means all there."""
        found: dict[int, Any] = {}
        for number, one in enumerate(self.replicas.slices):
            within = subset.within(one.start, one.start + one.size)
            if within.count:
                packed = None if within.count == one.size else within.packed()
                is_large = packed is not None and packed[2].nbytes > _LARGE
                found[number] = self.replicas.put(packed) if is_large else packed
        return found


class PartedLists:
    """The lists of an index, of which each part has its own codes; see Lists."""

    def __init__(
        self,
        replicas: Replicas,
        centroids: NDArray[np.uint8],
        lists: NDArray[np.uint16],
        nprobe: int,
    ):
        """centroids, lists: as of `Replicas.add_lists`. nprobe: number of lists visited."""
        self._replicas = replicas
        self._number = replicas.add_lists(centroids, lists, nprobe)
        self.number = len(centroids)
        self.nbytes = lists.nbytes
        weakref.finalize(self, replicas.drop_lists, self._number)

    def nearest(
        self, queries: NDArray[np.uint8], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The nearest k codes of the visited lists; see Lists."""
        found = self._ask("nearest", queries, k)
        return merged_nearest(self._replicas, found, len(queries), k)

    def within(
        self, query: NDArray[np.uint8], radius: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The codes of the visited lists within a radius; see Lists."""
        return merged_within(self._replicas, self._ask("within", query, radius))

    def _ask(self, method: str, *arguments: Any) -> dict[int, Any]:
        wanted = dict.fromkeys(range(len(self._replicas.slices)), (self._number, *arguments))
        return self._replicas.ask(method, wanted)


def merged_nearest(
    replicas: Replicas, found: dict[int, Any], n_queries: int, k: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The k nearest of what the parts found, as `nearest_of` sorts them."""
    positions = [np.empty((n_queries, 0), np.int64)]
    distances = [np.empty((n_queries, 0), np.int32)]
    for number in found:
        positions.append(found[number][0] + replicas.slices[number].start)
        distances.append(found[number][1])
    return nearest_of(np.concatenate(positions, axis=1), np.concatenate(distances, axis=1), k)


def merged_within(
    replicas: Replicas, found: dict[int, Any]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """All that the parts found, nearest first, equal distances in order of position."""
    positions, distances = _joined(replicas, found)
    order = np.lexsort((positions, distances))
    return positions[order], distances[order].astype(np.int32)


def _joined(
    replicas: Replicas, found: dict[int, Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    parts: Sequence[tuple[int, Any]] = list(found.items())
    positions = [part[0] + replicas.slices[number].start for number, part in parts]
    nothing = np.empty(0, np.int64)
    return (
        np.concatenate([nothing, *positions]),
        np.concatenate([nothing, *(part[1] for _, part in parts)]),
    )
