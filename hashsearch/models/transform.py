"""An autoencoder for pictures alone: transform coding, and what a network adds to it."""

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from hashsearch.codes import CODE_BITS
from hashsearch.errors import InvalidModel
from hashsearch.images import TINY_BYTES, TINY_SIDE

_MAX_DEPTH, _MAX_WIDTH = 8, 4096
_PATCH = 4  # pixels a side: the networks work on 8×8 places
_PATCH_VALUES = 3 * _PATCH**2


class TransformAutoencoder(nn.Module):
    """Coefficients of the picture, each rounded to one of its own few values, as bits.

    depths: pairs, how many coefficients have how many bits, 256 together, the most
    bits first. A coefficient is linear in the pixels, and what a small convolutional
    network adds; so is the picture in the rounded coefficients. Its values are
    numbered in Gray code, so that neighbouring ones differ in one bit. width:
    channels of the two networks.
    Pixels are standardised with a mean for each of the 3072 and one standard
    deviation for all.
    """

    kind = "transform"
    bits = CODE_BITS
    address_bits = 0
    pixel_mean: Tensor
    pixel_std: Tensor
    _owner: Tensor
    _shift: Tensor
    _unused: Tensor

    def __init__(self, depths: Sequence[tuple[int, int]], width: int):
        super().__init__()
        _require_architecture(depths, width)
        self.width = width
        self.depths = tuple(depth for count, depth in depths for _ in range(count))
        self.register_buffer("pixel_mean", torch.zeros(TINY_BYTES))
        self.register_buffer("pixel_std", torch.ones(()))
        count, most = len(self.depths), 2 ** self.depths[0]
        self.analysis = nn.Linear(TINY_BYTES, count)
        self.analysis_network = _network(width, nn.Flatten(), nn.Linear(64 * width, count))
        self.values = nn.Parameter(torch.zeros(count, most))
        self.synthesis = nn.Linear(count, TINY_BYTES)
        self.synthesis_network = _network(
            width, nn.Conv2d(width, _PATCH_VALUES, 3, padding=1), nn.PixelShuffle(_PATCH)
        )
        places = [(i, shift) for i, d in enumerate(self.depths) for shift in reversed(range(d))]
        # On the CPU even where the weights are not there yet: these are in no file.
        owner, shift = torch.tensor(places, device="cpu").T
        used = 2 ** torch.tensor(self.depths, device="cpu")[:, None]
        unused = torch.arange(most, device="cpu") >= used
        for name, buffer in (("_owner", owner), ("_shift", shift), ("_unused", unused)):
            self.register_buffer(name, buffer, persistent=False)

    def architecture(self) -> dict[str, Any]:
        """The settings that `__init__` takes, as the card keeps them."""
        pairs = [[len(list(same)), depth] for depth, same in groupby(self.depths)]
        return {"depths": pairs, "width": self.width}

    def standardize(self, tiny: Tensor) -> Tensor:
        """(n, 32, 32, 3) uint8 to (n, 3072) float of mean 0 and variance 1."""
        return (tiny.flatten(1) - self.pixel_mean) / self.pixel_std

    def coefficients(self, pixels: Tensor) -> Tensor:
        """(n, 3072) standardised to (n, coefficients) float, not rounded yet."""
        linear: Tensor = self.analysis(pixels)
        return linear + self.analysis_network(_as_planes(pixels))

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

    def picture(self, rounded: Tensor) -> Tensor:
        """(n, coefficients) float to (n, 3072) float, standardised."""
        linear: Tensor = self.synthesis(rounded)
        added = self.synthesis_network(_as_planes(linear)).permute(0, 2, 3, 1)
        return linear + added.flatten(1)

    def code_logits(self, tiny: Tensor) -> Tensor:
        """(n, 32, 32, 3) uint8 to (n, 256) float, 1 or -1; a bit is 1 where that is ≥ 0."""
        numbers = self.levels(self.coefficients(self.standardize(tiny)))
        gray = numbers ^ (numbers >> 1)
        bits = gray[:, self._owner] >> self._shift & 1
        return bits.float() * 2 - 1

    def reconstruct(self, bits: Tensor) -> Tensor:
        """(n, 256) float zeros and ones to (n, 32, 32, 3) float, in grey levels, unclipped."""
        gray = torch.zeros(len(bits), len(self.depths), dtype=torch.int64, device=bits.device)
        gray.index_add_(1, self._owner, bits.long() << self._shift)
        numbers = gray
        for shift in (1, 2, 4):  # a level's bit is the parity of the Gray bits from it up
            numbers = numbers ^ (numbers >> shift)
        pixels = self.picture(self.rounded(numbers)) * self.pixel_std + self.pixel_mean
        return pixels.unflatten(1, (TINY_SIDE, TINY_SIDE, 3))


class _Residual(nn.Module):
    """Without normalisation: what the network adds should depend on one image alone."""

    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        added: Tensor = self.outer(torch.relu(self.inner(maps)))
        return maps + added


def _network(width: int, *last: nn.Module) -> nn.Sequential:
    """Patches of the picture through residual blocks; what it gives at first is 0."""
    network = nn.Sequential(
        nn.PixelUnshuffle(_PATCH),
        nn.Conv2d(_PATCH_VALUES, width, 3, padding=1),
        _Residual(width),
        _Residual(width),
        nn.ReLU(),
        *last,
    )
    for module in last:
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
    return network


def _as_planes(pixels: Tensor) -> Tensor:
    """(n, 3072) pixel by pixel to (n, 3, 32, 32), as convolutions take it."""
    return pixels.unflatten(1, (TINY_SIDE, TINY_SIDE, 3)).permute(0, 3, 1, 2)


def _require_architecture(depths: Sequence[tuple[int, int]], width: int) -> None:
    if (
        not isinstance(width, int)
        or not 0 < width <= _MAX_WIDTH
        or not all(len(pair) == 2 for pair in depths)
        or not all(isinstance(n, int) and n > 0 for pair in depths for n in pair)
        or not all(depth <= _MAX_DEPTH for _, depth in depths)
        or not all(one > other for (_, one), (_, other) in pairwise(depths))
        or sum(count * depth for count, depth in depths) != CODE_BITS
    ):
        raise InvalidModel(
            f"pairs of a number of coefficients and their bits, from {_MAX_DEPTH} bits down to 1 "
            f"and {CODE_BITS} bits together, and a width up to {_MAX_WIDTH} were wanted; "
            f"got {depths} and {width}"
        )
