"""Transform coding: a picture as a few coefficients of a few bits each."""

import reprlib
from collections.abc import Sequence
from itertools import groupby, pairwise

import torch
from torch import Tensor, nn

from hashsearch.errors import InvalidModel
from hashsearch.images import TINY_BYTES
from hashsearch.models.rows import in_eight_rows

_MAX_DEPTH = 8  # bits of a Gray code that `from_bits` can decode


class Coefficients(nn.Module):
    """Coordinates of a picture along orthonormal components, rounded and written as bits.

    depths: pairs (number of coefficients, bits of each), in decreasing order of bits. A
    coefficient is rounded to the nearest of its own 2**depth values, whose numbers, the
    levels, are written in Gray code: neighbouring values differ in one bit.
    """

    mean: Tensor
    components: Tensor
    _owner: Tensor
    _shift: Tensor
    _unused: Tensor

    def __init__(self, depths: Sequence[tuple[int, int]]):
        super().__init__()
        self.depths = tuple(depth for count, depth in depths for _ in range(count))
        self.bits = sum(self.depths)
        count, most = len(self.depths), 2 ** max(self.depths, default=0)
        self.register_buffer("mean", torch.zeros(TINY_BYTES))
        self.register_buffer("components", torch.zeros(count, TINY_BYTES))
        self.values = nn.Parameter(torch.zeros(count, most))
        places = [(i, shift) for i, d in enumerate(self.depths) for shift in reversed(range(d))]
        # On the CPU even under torch.device("meta"): loading weights does not fill these.
        owner, shift = torch.tensor(places, dtype=torch.int64, device="cpu").reshape(-1, 2).T
        used = 2 ** torch.tensor(self.depths, dtype=torch.int64, device="cpu")[:, None]
        unused = torch.arange(most, device="cpu") >= used
        for name, buffer in (("_owner", owner), ("_shift", shift), ("_unused", unused)):
            self.register_buffer(name, buffer, persistent=False)

    def pairs(self) -> list[list[int]]:
        """The depths in the form that `__init__` takes."""
        return [[len(list(same)), depth] for depth, same in groupby(self.depths)]

    def of(self, pixels: Tensor) -> Tensor:
        """(n, 3072) float to (n, coefficients) float, before rounding."""
        with torch.autocast(pixels.device.type, enabled=False):  # the finest levels need float32
            centred = pixels.float() - self.mean
            return in_eight_rows(lambda rows: rows @ self.components.T, centred)

    def picture(self, coefficients: Tensor) -> Tensor:
        """(n, coefficients) float to (n, 3072) float: the mean plus these parts of it."""
        with torch.autocast(coefficients.device.type, enabled=False):
            return coefficients.float() @ self.components + self.mean

    def levels(self, coefficients: Tensor) -> Tensor:
        """(n, coefficients) float to int64 of the same shape: the levels of the nearest values."""
        distances = (coefficients[:, :, None] - self.values).abs()
        return distances.masked_fill(self._unused, torch.inf).argmin(dim=2)

    def rounded(self, levels: Tensor) -> Tensor:
        """(n, coefficients) levels to their values, float."""
        return self.values.expand(len(levels), -1, -1).gather(2, levels[:, :, None]).squeeze(2)

    def extremes(self) -> tuple[Tensor, Tensor]:
        """The lowest and the highest value of each coefficient, (coefficients,) float each."""
        lowest = self.values.masked_fill(self._unused, torch.inf).amin(dim=1)
        return lowest, self.values.masked_fill(self._unused, -torch.inf).amax(dim=1)

    def to_bits(self, levels: Tensor) -> Tensor:
        """(n, coefficients) levels to (n, bits) float zeros and ones."""
        gray = levels ^ (levels >> 1)
        return (gray[:, self._owner] >> self._shift & 1).float()

    def from_bits(self, bits: Tensor) -> Tensor:
        """(n, bits) float zeros and ones to (n, coefficients) levels."""
        gray = torch.zeros(len(bits), len(self.depths), dtype=torch.int64, device=bits.device)
        gray.index_add_(1, self._owner, bits.long() << self._shift)
        levels = gray
        for shift in (1, 2, 4):  # a level's bit is the parity of this Gray bit and all higher ones
            levels = levels ^ (levels >> shift)
        return levels


def require_depths(depths: Sequence[tuple[int, int]], least: int, most: int) -> None:
    """Raise InvalidModel unless these are depths with `least` to `most` bits in total."""
    if (
        not isinstance(depths, list | tuple)
        or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in depths)
        or not all(type(n) is int and n > 0 for pair in depths for n in pair)
        or not all(depth <= _MAX_DEPTH for _, depth in depths)
        or not all(one > other for (_, one), (_, other) in pairwise(depths))
        or not least <= sum(count * depth for count, depth in depths) <= most
    ):
        total = f"{least}" if least == most else f"{least} to {most}"
        raise InvalidModel(
            "depths must be pairs (number of coefficients, bits of each), in decreasing order of "
            f"bits from at most {_MAX_DEPTH}, with {total} bits in total; got "
            f"{reprlib.repr(depths)}"
        )
