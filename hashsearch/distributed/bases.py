"""Bases whose codes lie in parts on the nodes of a Ray cluster."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashsearch.distributed.asking import Tally
from hashsearch.distributed.holder import NOT_ASSIGNED
from hashsearch.distributed.loading import Slice
from hashsearch.distributed.parted import PartedExactIndex, PartedLists
from hashsearch.distributed.pieces import pieces_of
from hashsearch.distributed.replicas import Replicas
from hashsearch.retrieval.bases import exact_indexes
from hashsearch.retrieval.kinds import DEFAULT_KIND, Arrays, Parameters
from hashsearch.retrieval.methods import DEFAULT_METHOD, SERVED
from hashsearch.search import Block, Index
from hashsearch.search.ivf import IvfIndex, require_lists
from hashsearch.search.live import Segment
from hashsearch.search.parts import Part
from hashsearch.search.threads import slices


class ClusterBases:
    """Makes bases whose codes are on the cluster to which this process is connected.

    Ids, and whatever else is stored of the images, stay here: ids in memory, the rest on disk.
    """

    def __init__(self, parts: int, copies: int, *, partial: bool):
        """parts: into which the codes are divided. copies: of each part, on different nodes.

        partial: whether a search without a part is answered, and the part noted, or refused.
        """
        self._parts, self._copies, self._partial = parts, copies, partial
        self._tally = Tally()

    @property
    def kinds(self) -> Collection[str]:
        return DEFAULT_KIND, "ivf"

    def segment(self, ids: NDArray[np.int64], blocks: Mapping[str, Sequence[Block]]) -> Segment:
        """The base of these rows. Raises ClusterError if its codes cannot be loaded."""
        ranges = slices(len(ids), self._parts, multiple=8)
        every = [
            Slice(
                Part(number, len(ranges), int(ids[start]), int(ids[end - 1])),
                start,
                end - start,
                pieces,
            )
            for number, ((start, end), pieces) in enumerate(
                zip(ranges, pieces_of(blocks["codes"], ranges), strict=True), 1
            )
        ]
        codes = PartedExactIndex(Replicas(every, self._copies, self._tally, partial=self._partial))
        # Addresses are for the index buckets alone, which is not served.
        others = {name: parts for name, parts in blocks.items() if name == "pixels"}
        indexes = {
            name: codes for name, method in SERVED.items() if method.column == "codes"
        } | exact_indexes(others)
        columns = {**others, "codes": [_narrow(block) for block in blocks["codes"]]}
        return Segment(ids, columns, indexes)

    def of_kind(self, kind: str, base: Segment, stored: Arrays, parameters: Parameters) -> Index:
        assert kind == "ivf", kind  # the exact index is always there
        exact = base.indexes[DEFAULT_METHOD]
        assert isinstance(exact, PartedExactIndex)
        nothing: NDArray[Any] = np.empty(0)
        centroids, lists = stored.get("centroids", nothing), stored.get("lists", nothing)
        nprobe = parameters.get("nprobe", 0)
        require_lists(len(exact), centroids, lists, nprobe)
        lists = np.where(lists < 0, NOT_ASSIGNED, lists).astype(np.uint16)
        return IvfIndex(PartedLists(exact.replicas, centroids, lists, nprobe), exact)


def _narrow(block: Block) -> Block:
    """The same block, with rows and positions in few bytes: they stay in memory."""
    rows, positions = (
        values.astype(np.min_scalar_type(int(values.max(initial=0))))
        for values in (block.rows, block.positions)
    )
    return Block(block.values, rows, positions, block.stored)
