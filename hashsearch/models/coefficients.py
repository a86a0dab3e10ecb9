"""Transform coding: a few numbers of a picture, each in a few bits."""

import reprlib
from collections.abc import Sequence
from itertools import groupby, pairwise

import torch
from torch import Tensor, nn

from hashsearch.errors import InvalidModel
from hashsearch.images import TINY_BYTES

_MAX_DEPTH = 8  # which `from_bits` counts on


class Coefficients(nn.Module):
    """Coordinates of a picture along orthonormal components, rounded, as bits.

    depths: pairs, how many coefficients have how many bits, the most bits first.
    A coefficient is rounded to the nearest of its own 2**depth values, which are
    numbered in Gray code: neighbouring ones differ in one bit.
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
        # On the CPU even where the weights are not there yet: these are in no file.
        owner, shift = torch.tensor(places, dtype=torch.int64, device="cpu").reshape(-1, 2).T
        used = 2 ** torch.tensor(self.depths, dtype=torch.int64, device="cpu")[:, None]
        unused = torch.arange(most, device="cpu") >= used
        for name, buffer in (("_owner", owner), ("_shift", shift), ("_unused", unused)):
            self.register_buffer(name, buffer, persistent=False)

    def pairs(self) -> list[list[int]]:
        """The depths as `__init__` takes them."""
        return [[len(list(same)), depth] for depth, same in groupby(self.depths)]

    def of(self, pixels: Tensor) -> Tensor:
        """(n, 3072) float to (n, coefficients) float, not rounded yet."""
        with torch.autocast(pixels.device.type, enabled=False):  # a few of its bits are fine ones
            return (pixels.float() - self.mean) @ self.components.T

    def picture(self, coefficients: Tensor) -> Tensor:
        """(n, coefficients) float to (n, 3072) float: the nearest picture that has them."""
        with torch.autocast(coefficients.device.type, enabled=False):
            return coefficients.float() @ self.components + self.mean

    def levels(self, coefficients: Tensor) -> Tensor:
        """(n, coefficients) float to int64 of that shape: the number of the nearest value."""
        away = (coefficients[:, :, None] - self.values).abs()
        return away.masked_fill(self._unused, torch.inf).argmin(dim=2)

    def rounded(self, levels: Tensor) -> Tensor:
        """(n, coefficients) numbers of values to the values, float."""
        return self.values.expand(len(levels), -1, -1).gather(2, levels[:, :, None]).squeeze(2)

    def extremes(self) -> tuple[Tensor, Tensor]:
        """(coefficients,) float: the lowest and the highest value of each."""
        lowest = self.values.masked_fill(self._unused, torch.inf).amin(dim=1)
        return lowest, self.values.masked_fill(self._unused, -torch.inf).amax(dim=1)

    def to_bits(self, levels: Tensor) -> Tensor:
        """(n, coefficients) numbers of values to (n, bits) float zeros and ones."""
        gray = levels ^ (levels >> 1)
        return (gray[:, self._owner] >> self._shift & 1).float()

    def from_bits(self, bits: Tensor) -> Tensor:
        """(n, bits) float zeros and ones to (n, coefficients) numbers of values."""
        gray = torch.zeros(len(bits), len(self.depths), dtype=torch.int64, device=bits.device)
        gray.index_add_(1, self._owner, bits.long() << self._shift)
        levels = gray
        for shift in (1, 2, 4):  # a level's bit is the parity of the Gray bits from it up
            levels = levels ^ (levels >> shift)
        return levels


def require_depths(depths: Sequence[tuple[int, int]], least: int, most: int) -> None:
    """Raise InvalidModel if these are no depths of from `least` to `most` bits together."""
    if (
        not isinstance(depths, list | tuple)
        or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in depths)
        or not all(type(n) is int and n > 0 for pair in depths for n in pair)
        or not all(depth <= _MAX_DEPTH for _, depth in depths)
        or not all(one > other for (_, one), (_, other) in pairwise(depths))
        or not least <= sum(count * depth for count, depth in depths) <= most
    ):
        together = f"{least}" if least == most else f"{least} to {most}"
        raise InvalidModel(
            f"pairs of a number of coefficients and their bits, from {_MAX_DEPTH} bits down to 1 "
            f"and {together} bits together, were wanted; got {reprlib.repr(depths)}"
        )
