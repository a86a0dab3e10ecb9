"""An autoencoder for reconstruction only: transform coding, refined by two networks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hashsearch.codes import CODE_BITS
from hashsearch.errors import InvalidModel
from hashsearch.images import TINY_BYTES, TINY_SIDE
from hashsearch.models.autoencoder import Autoencoder
from hashsearch.models.coefficients import Coefficients, require_depths
from hashsearch.models.patches import from_patches, into_patches, refinement
from hashsearch.models.rows import EightRows

_MAX_WIDTH = 4096


class TransformAutoencoder(Autoencoder):
    """A code of 256 bits of coefficients, and convolutional networks around it.

    depths: see Coefficients. One network corrects the coefficients before they are
    rounded, the other one refines the decoded picture. width: channels of both. Pixels are
    standardised with one mean per pixel and colour and a single standard deviation.
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
        flat = (nn.Flatten(), EightRows(64 * width, count))
        self.analysis = nn.Sequential(into_patches(width), refinement(width, *flat))
        pixels = from_patches(width)
        self.synthesis = nn.Sequential(into_patches(width), refinement(width, *pixels))

    def architecture(self) -> dict[str, Any]:
        return {"depths": self.transform.pairs(), "width": self.width}

    def standardize(self, tiny: Tensor) -> Tensor:
        """(n, 32, 32, 3) uint8 to (n, 3072) float of mean 0 and variance 1."""
        return (tiny.flatten(1) - self.pixel_mean) / self.pixel_std

    def coefficients(self, pixels: Tensor) -> Tensor:
        """(n, 3072) standardised to (n, coefficients) float, before rounding."""
        added: Tensor = self.analysis(_as_planes(pixels))
        return self.transform.of(pixels) + added

    def picture(self, rounded: Tensor) -> Tensor:
        """(n, coefficients) float to (n, 3072) float, standardised."""
        linear = self.transform.picture(rounded)
        added: Tensor = self.synthesis(_as_planes(linear))
        return linear + added.permute(0, 2, 3, 1).flatten(1)

    def code_logits(self, tiny: Tensor) -> Tensor:
        """(n, 32, 32, 3) uint8 to (n, 256) float, each 1 or -1."""
        coefficients = self.coefficients(self.standardize(tiny))
        return self.transform.to_bits(self.transform.levels(coefficients)) * 2 - 1

    def reconstruct(self, bits: Tensor) -> Tensor:
        rounded = self.transform.rounded(self.transform.from_bits(bits))
        pixels = self.picture(rounded) * self.pixel_std + self.pixel_mean
        return pixels.unflatten(1, (TINY_SIDE, TINY_SIDE, 3))


def _as_planes(pixels: Tensor) -> Tensor:
    """(n, 3072), colours of one pixel side by side, to (n, 3, 32, 32)."""
    return pixels.unflatten(1, (TINY_SIDE, TINY_SIDE, 3)).permute(0, 3, 1, 2)


def _require_architecture(depths: Sequence[tuple[int, int]], width: int) -> None:
    require_depths(depths, CODE_BITS, CODE_BITS)
    if not isinstance(width, int) or not 0 < width <= _MAX_WIDTH:
        raise InvalidModel(f"a width up to {_MAX_WIDTH} was wanted; got {width}")
