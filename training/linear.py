"""Fit a linear autoencoder in closed form: principal components, rounded to bits."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hashsearch.images import TINY_BYTES
from hashsearch.models.dense import DenseAutoencoder
from hashsearch.models.transform import TransformAutoencoder

_CHUNK = 5000


@torch.no_grad()
def fit_linear(model: DenseAutoencoder, images: NDArray[np.uint8]) -> None:
    """Set the weights of an autoencoder without hidden layers.

    A bit is the sign of one component. It decodes to plus or minus the mean of
    that component's absolute value, which of all pairs of values has the least
    squared error.
    """
    components = principal_components(model, images, model.bits)
    sizes = torch.zeros(model.bits, device=components.device)
    for pixels in standardized_chunks(model, images):
        sizes += (pixels @ components.T).abs().sum(dim=0)
    sizes /= len(images)
    scaled = components * sizes[:, None]
    (encode,), (decode,) = model.encoder, model.decoder
    assert isinstance(encode, nn.Linear)
    assert isinstance(decode, nn.Linear)
    encode.weight.copy_(components)
    encode.bias.zero_()
    decode.weight.copy_(2 * scaled.T)
    decode.bias.copy_(-scaled.sum(dim=0))


def principal_components(
    model: DenseAutoencoder | TransformAutoencoder, images: NDArray[np.uint8], count: int
) -> Tensor:
    """(count, 3072) float32: directions of the standardised pixels, the most variance first."""
    covariance = torch.zeros(
        TINY_BYTES, TINY_BYTES, dtype=torch.float64, device=model.pixel_mean.device
    )
    for pixels in standardized_chunks(model, images):
        covariance += pixels.double().T @ pixels.double()
    _, vectors = torch.linalg.eigh(covariance)  # in order of variance, the smallest first
    return vectors.flip(1)[:, :count].T.float().contiguous()


def standardized_chunks(
    model: DenseAutoencoder | TransformAutoencoder, images: NDArray[np.uint8]
) -> Iterator[Tensor]:
    """(n, 32, 32, 3) uint8 to pieces of (n, 3072) float32, on the model's device."""
    for start in range(0, len(images), _CHUNK):
        chunk = torch.from_numpy(images[start : start + _CHUNK])
        yield model.standardize(chunk.to(model.pixel_mean.device))
