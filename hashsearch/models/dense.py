"""The paper's deep autoencoder: fully connected layers down to a binary code and back.

Source: Krizhevsky and Hinton, Using Very Deep Autoencoders for Content-Based
Image Retrieval, ESANN 2011.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from hashsearch.codes import ADDRESS_BITS, CODE_BITS
from hashsearch.errors import InvalidModel
from hashsearch.images import TINY_BYTES, TINY_SIDE
from hashsearch.models.autoencoder import Autoencoder

_HIDDEN_UNITS = {"logistic": nn.Sigmoid, "relu": nn.ReLU}
_MAX_WIDTH = 2**16
_BITS = (CODE_BITS, ADDRESS_BITS)


class DenseAutoencoder(Autoencoder):
    """Fully connected layers from 3072 pixels to the code, and mirrored layers back.

    widths: 3072, the units of each hidden layer, and the code's bits. hidden: the kind of
    hidden units, "logistic" as in the paper, or "relu". The code layer is logistic and
    rounded, the output layer linear. Pixels are standardised with one mean per pixel and
    colour and a single standard deviation.
    """

    kind = "dense"
    oldest_format = 1

    def __init__(self, widths: Sequence[int], hidden: str):
        super().__init__()
        _require_architecture(widths, hidden)
        self.widths = tuple(widths)
        self.hidden = hidden
        self.register_buffer("pixel_mean", torch.zeros(TINY_BYTES))
        self.register_buffer("pixel_std", torch.ones(()))
        self.encoder = _layers(self.widths, hidden)
        self.decoder = _layers(self.widths[::-1], hidden)

    @property
    def bits(self) -> int:
        return self.widths[-1]

    def architecture(self) -> dict[str, Any]:
        return {"widths": list(self.widths), "hidden": self.hidden}

    def standardize(self, tiny: Tensor) -> Tensor:
        """(n, 32, 32, 3) uint8 to (n, 3072) float of mean 0 and variance 1."""
        return (tiny.flatten(1) - self.pixel_mean) / self.pixel_std

    def code_logits(self, tiny: Tensor) -> Tensor:
        logits: Tensor = self.encoder(self.standardize(tiny))
        return logits

    def reconstruct(self, bits: Tensor) -> Tensor:
        standardized = self.decoder(bits)
        pixels: Tensor = standardized * self.pixel_std + self.pixel_mean
        return pixels.unflatten(1, (TINY_SIDE, TINY_SIDE, 3))


def _layers(widths: Sequence[int], hidden: str) -> nn.Sequential:
    """Linear layers of these widths, with hidden units between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), _HIDDEN_UNITS[hidden]()]
    return nn.Sequential(*layers[:-1])


def _require_architecture(widths: Sequence[int], hidden: str) -> None:
    whole = all(isinstance(width, int) and 0 < width <= _MAX_WIDTH for width in widths)
    if len(widths) < 2 or not whole or widths[0] != TINY_BYTES or widths[-1] not in _BITS:
        raise InvalidModel(
            f"widths from {TINY_BYTES} to {CODE_BITS} or {ADDRESS_BITS}, "
            f"each at most {_MAX_WIDTH}, were wanted; got {list(widths)}"
        )
    if hidden not in _HIDDEN_UNITS:
        raise InvalidModel(f"hidden units are {' or '.join(_HIDDEN_UNITS)}; got {hidden!r}")
