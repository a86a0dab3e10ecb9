"""Sets of positions of an index: the rows that a search may return."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# Copying the codes of a fifth of the positions and comparing them takes as long as comparing all
# codes: 5 ms if they lie together and 11 ms if they do not, where all take 7.5 ms (10 million
# codes, two cores of an AMD EPYC with AVX-512). So at most a fifth is held as a list.
_LISTED = 5


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Subset:
    """A set of positions from 0 to size - 1. The functions of this module make it.

    count: number of positions in it. positions: (count,) int64, ascending, of at most a fifth of
    the size; otherwise None. bits: otherwise (size / 8, rounded up,) uint8, a bit for each
    position, the lowest bit of a byte first.
    """

    size: int
    count: int
    positions: NDArray[np.int64] | None
    bits: NDArray[np.uint8] | None

    def contains(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of these positions is in the set: an array of bool of their shape."""
        if self.bits is not None:
            return (self.bits[positions >> 3] >> (positions & 7) & 1).astype(bool)
        assert self.positions is not None
        if len(self.positions) == 0:
            return np.zeros(positions.shape, bool)
        at = np.searchsorted(self.positions, positions)
        return self.positions[np.minimum(at, self.count - 1)] == positions

    def listed(self) -> NDArray[np.int64]:
        """All positions, (count,) int64, ascending."""
        return np.flatnonzero(self.mask()) if self.positions is None else self.positions

    def first(self, start: int, most: int) -> NDArray[np.int64]:
        """The first positions from `start` on, at most `most`, (n,) int64, ascending."""
        if self.positions is not None:
            at = int(np.searchsorted(self.positions, start))
            return self.positions[at : at + most]
        assert self.bits is not None
        byte = start >> 3
        counts = np.cumsum(np.bitwise_count(self.bits[byte:]), dtype=np.int64)
        end = byte + int(np.searchsorted(counts, most + 8)) + 1  # up to 7 are before `start`
        found = 8 * byte + np.flatnonzero(np.unpackbits(self.bits[byte:end], bitorder="little"))
        return found[found >= start][:most]

    def mask(self) -> NDArray[np.bool_]:
        """(size,) bool: whether each position is in the set."""
        return np.unpackbits(self._bits(), count=self.size, bitorder="little").astype(bool)

    def within(self, start: int, end: int) -> "Subset":
        """The members from start to end - 1, as positions from 0. start: a multiple of 8."""
        assert start % 8 == 0
        size = end - start
        if self.positions is not None:
            first, last = np.searchsorted(self.positions, (start, end)).tolist()
            return of_positions(self.positions[first:last] - start, size)
        assert self.bits is not None
        return _of_bits(_cut(self.bits[start // 8 : (end + 7) // 8], size), size)

    def packed(self) -> "Packed":
        """The set in few bytes, to be sent: its members, those that it lacks, or bits."""
        if 4 * self.count < self.size // 8:
            return self.size, "in", self.listed().astype(np.uint32)
        bits = self._bits()
        if 4 * (self.size - self.count) < self.size // 8:
            return (
                self.size,
                "out",
                _of_bits(_cut(~bits, self.size), self.size).listed().astype(np.uint32),
            )
        return self.size, "bits", bits

    def changed(self, positions: NDArray[np.int64], members: NDArray[np.bool_]) -> "Subset":
        """The set after some positions were put in or taken out.

        positions: (n,) int64, without repetitions; members: (n,) bool, whether each is in it now.
        """
        if len(positions) == 0:
            return self
        if self.positions is not None:
            kept = self.positions[~np.isin(self.positions, positions)]
            kept = np.sort(np.concatenate([kept, positions[members]]))
            return of_positions(kept, self.size)
        bits = self._bits().copy()
        flags = np.left_shift(1, positions & 7).astype(np.uint8)
        np.bitwise_or.at(bits, positions[members] >> 3, flags[members])
        np.bitwise_and.at(bits, positions[~members] >> 3, ~flags[~members])
        return _of_bits(bits, self.size)

    def _bits(self) -> NDArray[np.uint8]:
        if self.bits is not None:
            return self.bits
        assert self.positions is not None
        mask = np.zeros(self.size, bool)
        mask[self.positions] = True
        return np.packbits(mask, bitorder="little")


Packed = tuple[int, Literal["in", "out", "bits"], NDArray[Any]]  # the size, and what is sent


def of_packed(packed: Packed) -> Subset:
    """The set that `Subset.packed` was called of."""
    size, kind, values = packed
    if kind == "bits":
        return _of_bits(values, size)
    if kind == "in":
        return of_positions(values.astype(np.int64), size)
    mask = np.ones(size, bool)
    mask[values] = False
    return of_mask(mask)


def of_positions(positions: NDArray[np.int64], size: int) -> Subset:
    """The set of these positions, (n,) int64, ascending, without repetitions."""
    if len(positions) * _LISTED <= size:
        return Subset(size, len(positions), positions, None)
    mask = np.zeros(size, bool)
    mask[positions] = True
    return Subset(size, len(positions), None, np.packbits(mask, bitorder="little"))


def of_mask(mask: NDArray[np.bool_]) -> Subset:
    """The set of the positions at which a mask, (size,) bool, is True."""
    return _of_bits(np.packbits(mask, bitorder="little"), len(mask))


def whole(size: int) -> Subset:
    """The set of all positions."""
    return of_mask(np.ones(size, bool))


def common(first: Subset | None, second: Subset | None) -> Subset | None:
    """The positions in both sets; None stands for all positions."""
    if first is None or second is None:
        return first or second
    for few, other in ((first, second), (second, first)):
        if few.positions is not None:
            return of_positions(few.positions[other.contains(few.positions)], few.size)
    assert first.bits is not None
    assert second.bits is not None
    return _of_bits(first.bits & second.bits, first.size)


def _cut(bits: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The bits, without those of positions from `size` on in the last byte."""
    if size % 8:
        bits = bits.copy()
        bits[-1] &= (1 << size % 8) - 1
    return bits


def _of_bits(bits: NDArray[np.uint8], size: int) -> Subset:
    count = int(np.bitwise_count(bits).sum(dtype=np.int64))
    if count * _LISTED > size:
        return Subset(size, count, None, bits)
    places = np.flatnonzero(bits)  # bytes, of which few have a bit
    found = np.unpackbits(bits[places, np.newaxis], axis=1, bitorder="little")
    rows, columns = np.nonzero(found)
    return Subset(size, count, 8 * places[rows] + columns, None)
