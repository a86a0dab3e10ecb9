"""Who holds the base of a gallery: the memory of this process, or others."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hashsearch.gallery.shards import WIDTHS
from hashsearch.retrieval.kinds import KINDS, Arrays, Parameters
from hashsearch.retrieval.methods import DEFAULT_METHOD, SERVED
from hashsearch.search import Block, CombinedIndex, Index
from hashsearch.search.live import Segment, segment_of


class Bases(Protocol):
    """Makes bases: the segments that hold most of a gallery's rows.

    kinds: of indexes that they may have.
    """

    @property
    def kinds(self) -> Collection[str]: ...

    def segment(self, ids: NDArray[np.int64], blocks: Mapping[str, Sequence[Block]]) -> Segment:
        """The base of these rows; see `segment_of`."""
        ...

    def of_kind(self, kind: str, base: Segment, stored: Arrays, parameters: Parameters) -> Index:
        """An index of one of the kinds, of a base's codes; see IndexKind."""
        ...


class InMemory:
    """Bases whose codes and indexes are in the memory of this process."""

    kinds: Collection[str] = KINDS

    def segment(self, ids: NDArray[np.int64], blocks: Mapping[str, Sequence[Block]]) -> Segment:
        return segment_of(ids, blocks, exact_indexes)

    def of_kind(self, kind: str, base: Segment, stored: Arrays, parameters: Parameters) -> Index:
        from hashsearch.search.exact import ExactIndex

        columns = {column: base.column(column, WIDTHS[column]) for column in KINDS[kind].columns}
        exact = base.indexes[DEFAULT_METHOD]
        assert isinstance(exact, ExactIndex)
        return KINDS[kind].build(columns, stored, parameters, exact)


IN_MEMORY = InMemory()


def exact_indexes(blocks: Mapping[str, Sequence[Block]]) -> dict[str, CombinedIndex]:
    """The exact index of each method whose column is there."""
    return {
        name: method.index(blocks[method.column])
        for name, method in SERVED.items()
        if method.column in blocks
    }
