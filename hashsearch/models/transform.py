"""An autoencoder for pictures alone: transform coding, and what a network adds to it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hashsearch.codes import CODE_BITS
from hashsearch.errors import InvalidModel
from hashsearch.images import TINY_BYTES, TINY_SIDE
from hashsearch.models.autoencoder import Autoencoder
from hashsearch.models.coefficients import Coefficients, require_depths
from hashsearch.models.patches import adding, from_patches, into_patches

_MAX_WIDTH = 4096


class TransformAutoencoder(Autoencoder):
    """Coefficients of the picture, 256 bits together, and what networks add.

    depths: see Coefficients. To each coefficient a small convolutional network adds
    something before it is rounded, to the picture another one. width: their channels.
    Pixels are standardised with a mean for each of the 3072 and one standard
    deviation for all.
    """

    kind = "transform"
    bits = CODE_BITS

    def __init__(self, depths: Sequence[tuple[int, int]], width: int):
        super().__init__()
        _require_architecture(depths, width)
        self.width = width
        self.register_buffer("pixel_mean", torch.zeros(TINY_BYTES))
        self.register_buffer("pixel_std", torch.ones(()))
        self.transform = Coefficients(depths)
        count = len(self.transform.depths)
        flat = (nn.Flatten(), nn.Linear(64 * width, count))
        self.analysis = nn.Sequential(into_patches(width), adding(width, *flat))
        self.synthesis = nn.Sequential(into_patches(width), adding(width, *from_patches(width)))

    def architecture(self) -> dict[str, Any]:
        """The settings that `__init__` takes, as the card keeps them."""
        return {"depths": self.transform.pairs(), "width": self.width}

    def standardize(self, tiny: Tensor) -> Tensor:
        """(n, 32, 32, 3) uint8 to (n, 3072) float of mean 0 and variance 1."""
        return (tiny.flatten(1) - self.pixel_mean) / self.pixel_std

    def coefficients(self, pixels: Tensor) -> Tensor:
        """(n, 3072) standardised to (n, coefficients) float, not rounded yet."""
        added: Tensor = self.analysis(_as_planes(pixels))
        return self.transform.of(pixels) + added

    def picture(self, rounded: Tensor) -> Tensor:
        """(n, coefficients) float to (n, 3072) float, standardised."""
        linear = self.transform.picture(rounded)
        added: Tensor = self.synthesis(_as_planes(linear))
        return linear + added.permute(0, 2, 3, 1).flatten(1)

    def code_logits(self, tiny: Tensor) -> Tensor:
        """(n, 32, 32, 3) uint8 to (n, 256) float, 1 or -1; a bit is 1 where that is ≥ 0."""
        coefficients = self.coefficients(self.standardize(tiny))
        return self.transform.to_bits(self.transform.levels(coefficients)) * 2 - 1

    def reconstruct(self, bits: Tensor) -> Tensor:
        """(n, 256) float zeros and ones to (n, 32, 32, 3) float, in grey levels, unclipped."""
        rounded = self.transform.rounded(self.transform.from_bits(bits))
        pixels = self.picture(rounded) * self.pixel_std + self.pixel_mean
        return pixels.unflatten(1, (TINY_SIDE, TINY_SIDE, 3))


def _as_planes(pixels: Tensor) -> Tensor:
    """(n, 3072) pixel by pixel to (n, 3, 32, 32), as convolutions take it."""
    return pixels.unflatten(1, (TINY_SIDE, TINY_SIDE, 3)).permute(0, 3, 1, 2)


def _require_architecture(depths: Sequence[tuple[int, int]], width: int) -> None:
    require_depths(depths, CODE_BITS, CODE_BITS)
    if not isinstance(width, int) or not 0 < width <= _MAX_WIDTH:
        raise InvalidModel(f"a width up to {_MAX_WIDTH} was wanted; got {width}")
