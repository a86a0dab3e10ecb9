"""The default model: a convolutional autoencoder with a code and an address."""

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from hashsearch.codes import ADDRESS_BITS, CODE_BITS
from hashsearch.errors import InvalidModel
from hashsearch.images import TINY_SIDE
from hashsearch.models.autoencoder import Autoencoder
from hashsearch.models.coefficients import Coefficients, require_depths
from hashsearch.models.patches import from_patches, into_patches, refinement
from hashsearch.models.rows import EightAtATime, EightRows

_MAX_WIDTH, _MAX_BLOCKS = 4096, 16
_CORNER_WIDTH = 64  # features of each of the 4×4 positions
_HINTS = 4  # the decoder turns the semantic bits into maps of 4×4 positions

# The parts that are trained on views; code and decoder are made afterwards.
ENCODER = ("trunk", "corners", "head", "address")


class ConvolutionalAutoencoder(Autoencoder):
    """A code of picture bits and semantic bits, an address, and a decoder.

    widths: channels at 16×16, 8×8 and 4×4 positions. blocks: residual blocks at each.
    depths: of the coefficients (see Coefficients) that the picture bits encode; these bits
    come first in the code.
    The features are a strided convolutional trunk's means over the 4×4 positions, and a
    narrower map of the positions themselves. Semantic bits and address are linear in the
    features; their logits are normalised over the training images, so that each bit is 1 for
    about half of these. Training first learns the 256 logits of `head`, and then computes
    the semantic bits from them (training/sharpen.py); `head` is kept so that a training can
    start from it. The decoder refines the picture of the coefficients, using all bits.
    Pixels are standardised with one mean per colour and a single standard deviation.
    """

    kind = "convolutional"
    stored = torch.float16
    bits = CODE_BITS
    address_bits = ADDRESS_BITS
    picture_bits: int

    def __init__(
        self, widths: Sequence[int], blocks: Sequence[int], depths: Sequence[tuple[int, int]]
    ):
        super().__init__()
        _require_architecture(widths, blocks)
        require_depths(depths, 0, CODE_BITS - 1)
        self.widths, self.blocks = tuple(widths), tuple(blocks)
        self.register_buffer("pixel_mean", torch.zeros(3))
        self.register_buffer("pixel_std", torch.ones(()))
        top = widths[-1]
        positions = (TINY_SIDE // 2 ** len(widths)) ** 2
        self.trunk = _trunk(self.widths, self.blocks)
        self.corners: nn.Module = _convolution(top, _CORNER_WIDTH, kernel=1)
        features = top + positions * _CORNER_WIDTH
        self.transform = Coefficients(depths).requires_grad_(False)  # fitted in closed form
        self.picture_bits = self.transform.bits
        semantic_bits = CODE_BITS - self.picture_bits
        self.head = _head(features, CODE_BITS)
        self.code = _head(features, semantic_bits)
        self.address = _head(features, ADDRESS_BITS)
        self.decoder = _Decoder(semantic_bits, widths[1])

    def channels_last(self) -> Self:
        """Use the memory layout in which convolutions run fastest; rounding may differ."""
        moved: Self = self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return moved

    def for_inference(self) -> Self:
        """A copy with normalisation fused into the convolutions; it cannot be trained or saved."""
        model = copy.deepcopy(self).eval()
        del model.head
        for layers in [part for part in model.modules() if isinstance(part, nn.Sequential)]:
            for number, (product, norm) in enumerate(pairwise(layers)):
                if isinstance(product, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    layers[number] = fuse_conv_bn_eval(product, norm)
                    layers[number + 1] = nn.Identity()
        # On one thread, PyTorch computes 1 × 1 convolutions of 16 images by other kernels.
        model.corners = EightAtATime(model.corners)
        return model.channels_last()

    def architecture(self) -> dict[str, Any]:
        return {"widths": list(self.widths), "blocks": list(self.blocks)} | {
            "depths": self.transform.pairs()
        }

    def standardize(self, tiny: Tensor) -> Tensor:
        """(n, 32, 32, 3) uint8 to (n, 3, 32, 32) float of mean 0 and variance 1."""
        return ((tiny - self.pixel_mean) / self.pixel_std).permute(0, 3, 1, 2)

    def features(self, pixels: Tensor) -> Tensor:
        """(n, 3, 32, 32) standardised to (n, features) float."""
        maps = self.trunk(pixels)
        return torch.cat((maps.mean(dim=(2, 3)), self.corners(maps).flatten(1)), dim=1)

    def code_logits(self, tiny: Tensor) -> Tensor:
        pixels = self.standardize(tiny)
        return self.code_of(pixels, self.features(pixels))

    def code_of(self, pixels: Tensor, features: Tensor) -> Tensor:
        """The code's (n, 256) logits, from standardised pixels and their features."""
        levels = self.transform.levels(self.transform.of(pixels.flatten(1)))
        picture_bits = self.transform.to_bits(levels)
        semantic_logits: Tensor = self.code(features)
        return torch.cat((picture_bits * 2 - 1, semantic_logits), dim=1)

    def address_logits(self, tiny: Tensor) -> Tensor:
        logits: Tensor = self.address(self.features(self.standardize(tiny)))
        return logits

    def code_and_address_logits(self, tiny: Tensor) -> tuple[Tensor, Tensor]:
        pixels = self.standardize(tiny)
        features = self.features(pixels)
        return self.code_of(pixels, features), self.address(features)

    def decode(self, bits: Tensor) -> Tensor:
        """(n, 256) float zeros and ones to (n, 3, 32, 32) float, standardised."""
        picture_bits, semantic_bits = bits.tensor_split([self.picture_bits], dim=1)
        rounded = self.transform.rounded(self.transform.from_bits(picture_bits))
        picture = self.transform.picture(rounded).unflatten(1, (3, TINY_SIDE, TINY_SIDE))
        decoded: Tensor = self.decoder(picture, semantic_bits * 2 - 1)
        return decoded

    def reconstruct(self, bits: Tensor) -> Tensor:
        return self.decode(bits).permute(0, 2, 3, 1) * self.pixel_std + self.pixel_mean


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.inner = _convolution(width, width)
        self.outer = _convolution(width, width, rectified=False)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(maps + self.outer(self.inner(maps)))


class _Decoder(nn.Module):
    """Refines the picture of the coefficients, using the semantic bits."""

    def __init__(self, semantic_bits: int, width: int):
        super().__init__()
        self.width = width
        self.patches = into_patches(width)
        # The tensors of saved models, over whose names fingerprints go, are called decoder.seen.*
        self.seen = nn.Linear(semantic_bits, width * _HINTS**2)
        self.network = refinement(width, *from_patches(width))

    def forward(self, picture: Tensor, semantic_signs: Tensor) -> Tensor:
        """picture: (n, 3, 32, 32) float; semantic_signs: (n, semantic_bits) float, -1. or 1."""
        hints = self.seen(semantic_signs).unflatten(1, (self.width, _HINTS, _HINTS))
        maps = self.patches(picture)
        added: Tensor = self.network(maps + F.interpolate(hints, maps.shape[2:], mode="bilinear"))
        return picture + added


def _convolution(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, rectified: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if rectified else []))


def _trunk(widths: tuple[int, ...], blocks: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        before = widths[number - 1] if number else 3
        layers.append(_convolution(before, width, kernel=3 if number else 4, stride=2))
        layers += [_Residual(width) for _ in range(count)]
    return nn.Sequential(*layers)


def _head(features: int, bits: int) -> nn.Sequential:
    return nn.Sequential(EightRows(features, bits, bias=False), nn.BatchNorm1d(bits, affine=False))


def _require_architecture(widths: Sequence[int], blocks: Sequence[int]) -> None:
    whole = all(isinstance(n, int) for n in (*widths, *blocks))
    if (
        not whole
        or len(widths) != 3
        or len(blocks) != 3
        or not all(0 < width <= _MAX_WIDTH for width in widths)
        or not all(0 <= count <= _MAX_BLOCKS for count in blocks)
    ):
        raise InvalidModel(
            f"three widths up to {_MAX_WIDTH} and three numbers of blocks up to {_MAX_BLOCKS} "
            f"were wanted; got {list(widths)} and {list(blocks)}"
        )
