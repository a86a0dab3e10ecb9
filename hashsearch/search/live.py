"""Search in a gallery that changes: a base, segments of what was added since, and masks.

A change makes a new `Live` and leaves the former one as it is, so that searches that are at
work go on in the state in which they began.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import CODE_BYTES
from hashsearch.search import (
    NO_POSITION,
    Block,
    CombinedIndex,
    CountingIndex,
    Index,
    gathered,
)
from hashsearch.search.subset import Subset, common, whole

# Searches one index of a segment; the last argument says whether it is of the wanted kind.
Ask = Callable[[Index, Subset | None, bool], tuple[NDArray[np.int64], NDArray[Any]]]
# Makes the exact indexes of rows, by the name of their method.
Build = Callable[[Mapping[str, Sequence[Block]]], Mapping[str, CombinedIndex]]


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Rows of a gallery that are searched together.

    ids: (n,) int64, ascending. columns: their values, by column: in memory as an array of
    (n, width) uint8, or as blocks where they are stored. indexes: exact ones, by the name
    of their method. kinds: further indexes of the codes, by the name of their kind. present: the
    positions of images that were not removed; None means all.
    """

    ids: NDArray[np.int64]
    columns: Mapping[str, NDArray[np.uint8] | Sequence[Block]]
    indexes: Mapping[str, CombinedIndex]
    kinds: Mapping[str, Index] = field(default_factory=dict)
    present: Subset | None = None

    def __len__(self) -> int:
        return len(self.ids) if self.present is None else self.present.count

    def positions_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The position of each id, in the shape of `ids`; NO_POSITION for one that it lacks."""
        if len(self.ids) == 0:
            return np.full(ids.shape, NO_POSITION)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, at, NO_POSITION)

    def ids_after(self, after: int, most: int, subset: Subset | None) -> NDArray[np.int64]:
        """The first ids above `after` of images that were not removed, (n,) int64, ascending.

        most: how many at most. subset: of the positions; None means all.
        """
        start = int(np.searchsorted(self.ids, after, side="right"))
        chosen = common(self.present, subset)
        if chosen is None:
            return self.ids[start : start + most]
        return self.ids[chosen.first(start, most)]

    def changed(self, ids: NDArray[np.int64], *, present: bool) -> "Segment":
        """The segment after images were removed or restored; ids that it lacks are left out."""
        positions = self.positions_of(ids)
        positions = positions[positions != NO_POSITION]
        if len(positions) == 0 or (present and self.present is None):
            return self
        members = np.full(len(positions), present)
        return replace(
            self, present=(self.present or whole(len(self.ids))).changed(positions, members)
        )

    def column(self, name: str, width: int) -> NDArray[np.uint8]:
        """All values of a column, (n, width) uint8, in order of position."""
        values = self.columns[name]
        return values if isinstance(values, np.ndarray) else gathered(values, width)

    def values(self, name: str, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The values of a column at some positions, (n, width) uint8, in their order."""
        values = self.columns[name]
        if isinstance(values, np.ndarray):
            return values.take(positions, axis=0)
        found = np.empty((len(positions), values[0].values.shape[1]), np.uint8)
        left = np.arange(len(positions))  # of those that are not found yet
        for block in values:
            if len(left) and len(block.positions):
                ends = block.positions[[0, -1]].astype(np.int64)  # if they ascend
                near = left[(positions[left] >= ends[0]) & (positions[left] <= ends[1])]
                left = np.setdiff1d(left, _copied(block, positions, near, None, found))
        for block in values:
            if len(left) and len(block.positions):  # then the positions of some do not ascend
                order = np.argsort(block.positions)
                left = np.setdiff1d(left, _copied(block, positions, left, order, found))
        return found

    def value(self, column: str, position: int) -> NDArray[np.uint8]:
        """The value of a column at a position, (width,) uint8."""
        return self.values(column, np.array([position]))[0]


def _copied(
    block: Block,
    positions: NDArray[np.int64],
    wanted: NDArray[np.int64],
    order: NDArray[np.int64] | None,
    into: NDArray[np.uint8],
) -> NDArray[np.int64]:
    """Copy a block's values at positions[wanted] to into[wanted]; return those that it has.

    order: in which the block's positions ascend; None means that they do.
    """
    if len(wanted) == 0:
        return wanted
    within = positions[wanted]
    if order is None:  # all of them are in its range, and so in its type, which saves converting
        within = within.astype(block.positions.dtype)
    at = np.searchsorted(block.positions, within, sorter=order)
    at = np.minimum(at, len(block.positions) - 1)
    if order is not None:
        at = order[at]
    is_there = block.positions[at] == within
    into[wanted[is_there]] = block.values[block.rows[at[is_there]]]
    return wanted[is_there]


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """A gallery's rows in one state: the base, then segments of what was added since."""

    segments: tuple[Segment, ...]

    def __len__(self) -> int:
        return sum(map(len, self.segments))

    @property
    def base(self) -> Segment:
        return self.segments[0]

    def with_kind(self, kind: str, index: Index | None) -> "Live":
        """The same rows, with an index of a further kind of the base's codes, or without it."""
        kinds = {name: one for name, one in self.base.kinds.items() if name != kind}
        if index is not None:
            kinds[kind] = index
        return Live((replace(self.base, kinds=kinds), *self.segments[1:]))

    @property
    def added(self) -> int:
        """Number of rows that are not in the base, also of those that were removed again."""
        return sum(len(segment.ids) for segment in self.segments[1:])

    @property
    def removed_of_base(self) -> int:
        """Number of rows of the base that were removed."""
        return len(self.base.ids) - len(self.base)

    def ids(self) -> NDArray[np.int64]:
        """The ids of all images, (n,) int64, ascending."""
        every = [
            segment.ids if segment.present is None else segment.ids[segment.present.mask()]
            for segment in self.segments
        ]
        return every[0] if len(every) == 1 else np.sort(np.concatenate(every))

    def find(self, image_id: int) -> tuple[Segment, int] | None:
        """The segment and position of an image; None if it is unknown or was removed."""
        for segment in self.segments:
            position = segment.positions_of(np.array([image_id]))
            if position[0] != NO_POSITION and (
                segment.present is None or segment.present.contains(position)[0]
            ):
                return segment, int(position[0])
        return None

    def codes(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The codes of images, (n, 32) uint8, in the order of `ids`.

        Each id must have a row, which may be of an image that was removed.
        """
        codes, missing = np.empty((len(ids), CODE_BYTES), np.uint8), np.ones(len(ids), bool)
        for segment in self.segments:
            positions = segment.positions_of(ids)
            held = positions != NO_POSITION
            codes[held] = segment.values("codes", positions[held])
            missing &= ~held
        assert not missing.any(), ids[missing]
        return codes

    def removed(self, ids: NDArray[np.int64]) -> "Live":
        """The state after images were removed."""
        if len(ids) == 0:
            return self
        return Live(tuple(one.changed(ids, present=False) for one in self.segments))

    def restored(self, ids: NDArray[np.int64]) -> tuple["Live", NDArray[np.int64]]:
        """The state in which images are there again, and the ids that no segment has."""
        unknown = ids
        for segment in self.segments:
            unknown = unknown[segment.positions_of(unknown) == NO_POSITION]
        return Live(tuple(one.changed(ids, present=True) for one in self.segments)), unknown

    def extended(self, segment: Segment, build: Build) -> "Live":
        """The state with one more segment, joined with small ones before it.

        Each is joined when what follows has grown to half its size, so that few segments stay and
        each code is copied a few times only. build: makes the joined segment's indexes.
        """
        segments = list(self.segments)
        while len(segments) > 1 and _are_joined(segments[-1], segment):
            segment = _joined(segments.pop(), segment, build)
        return Live((*segments, segment))

    def search_each(
        self, queries: NDArray[np.uint8], name: str, k: int
    ) -> list[tuple[NDArray[np.int64], NDArray[Any]]]:
        """The k nearest of several queries by the exact indexes of a method: for each its ids and
        distances, equal distances by id. queries: (n, width) uint8.
        """
        ids, distances = [], []
        for segment in self.segments:
            index = segment.indexes[name]
            positions, found = index.search(queries, min(k, len(index)), segment.present)
            near = positions != NO_POSITION
            segment_ids = np.full(positions.shape, _NO_ID)
            segment_ids[near] = segment.ids[positions[near]]
            ids.append(segment_ids)
            distances.append(found)
        every_id, every_distance = np.hstack(ids), np.hstack(distances)
        order = np.lexsort((every_id, every_distance))[:, :k]
        each_id = np.take_along_axis(every_id, order, axis=1)
        each_distance = np.take_along_axis(every_distance, order, axis=1)
        return [
            (one[one != _NO_ID], other[one != _NO_ID])
            for one, other in zip(each_id, each_distance, strict=True)
        ]

    def search(
        self, ask: Ask, name: str, subsets: Sequence[Subset | None], kind: str = ""
    ) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Ask every segment's index, and merge: ids and distances, equal distances by id.

        ask: searches an index for one query. name: of the method. subsets: of each segment's
        positions; None means all. kind: of the index of the base, if it has one of it.
        """
        ids, distances = [], []
        for segment, subset in zip(self.segments, subsets, strict=True):
            is_kind = kind in segment.kinds
            index: Index = segment.kinds[kind] if is_kind else segment.indexes[name]
            positions, found = ask(index, common(segment.present, subset), is_kind)
            near = positions != NO_POSITION
            ids.append(segment.ids[positions[near]])
            distances.append(found[near])
        every_id, every_distance = np.concatenate(ids), np.concatenate(distances)
        order = np.lexsort((every_id, every_distance))
        return every_id[order], every_distance[order]

    def distance_counts(
        self, codes: NDArray[np.uint8], name: str, subsets: Sequence[Subset | None]
    ) -> NDArray[np.int64]:
        """Count the images at each distance from the nearest of some codes, (257,) int64.

        codes: (n_codes, 32) uint8. name: of the method that compares codes. subsets: as of
        `search`.
        """
        each = []
        for segment, subset in zip(self.segments, subsets, strict=True):
            index = segment.indexes[name]
            assert isinstance(index, CountingIndex)
            each.append(index.distance_counts(codes, common(segment.present, subset)))
        return np.sum(each, axis=0, dtype=np.int64)


_NO_ID = -1  # where there is no match
MOST_COPIED = 4096  # rows of a segment of which all values are in memory
_MOST_JOINED = 2**19  # rows; joining them takes 50 ms, in which searches wait


def segment_of(
    ids: NDArray[np.int64], blocks: Mapping[str, Sequence[Block]], build: Build
) -> Segment:
    """A segment of these rows, with at least one block of each column, perhaps an empty one.

    Codes, and all values of a small segment, are copied into memory.
    """
    columns: dict[str, NDArray[np.uint8] | Sequence[Block]] = {
        column: gathered(parts, parts[0].values.shape[1])
        if column == "codes" or len(ids) <= MOST_COPIED
        else parts
        for column, parts in blocks.items()
    }
    return Segment(ids, columns, build({name: _blocks(values) for name, values in columns.items()}))


def _blocks(values: NDArray[np.uint8] | Sequence[Block]) -> Sequence[Block]:
    return [Block.of_array(values)] if isinstance(values, np.ndarray) else values


def _are_joined(first: Segment, second: Segment) -> bool:
    sizes = len(first.ids), len(second.ids)
    return sizes[0] <= 2 * sizes[1] and sum(sizes) <= _MOST_JOINED


def _joined(first: Segment, second: Segment, build: Build) -> Segment:
    """One segment of the images of two that were not removed."""
    kept = [
        np.arange(len(one.ids)) if one.present is None else one.present.listed()
        for one in (first, second)
    ]
    ids = np.concatenate([first.ids[kept[0]], second.ids[kept[1]]])
    order = np.argsort(ids, kind="stable")
    positions = np.empty_like(order)
    positions[order] = np.arange(len(order))
    blocks: dict[str, list[Block]] = {
        column: [] for column in first.columns.keys() & second.columns.keys()
    }
    for one, rows in zip((first, second), kept, strict=True):
        moved = np.full(len(one.ids), NO_POSITION)
        moved[rows], positions = positions[: len(rows)], positions[len(rows) :]
        for column in blocks:
            for block in _blocks(one.columns[column]):
                at = moved[block.positions]
                is_kept = at != NO_POSITION
                blocks[column].append(
                    block._replace(rows=block.rows[is_kept], positions=at[is_kept])
                )
    return segment_of(ids[order], blocks, build)
