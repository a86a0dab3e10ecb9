"""Fit a linear autoencoder in closed form: principal components, rounded to bits."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hashsearch.images import TINY_BYTES
from hashsearch.models.dense import DenseAutoencoder
from hashsearch.models.folder import Autoencoder
from training.device import exact

_CHUNK = 5000
_FEW = 1000  # images whose own products cost less than those of their pixels


@torch.no_grad()
def fit_linear(model: DenseAutoencoder, images: NDArray[np.uint8]) -> None:
    """Set the weights of an autoencoder without hidden layers.

    A bit is the sign of one component. It decodes to plus or minus the mean of
    that component's absolute value, which of all pairs of values has the least
    squared error.
    """
    _, components = principal_components(model, images, model.bits)
    components = components.to(model.pixel_mean.device)
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
    model: Autoencoder, images: NDArray[np.uint8], count: int
) -> tuple[Tensor, Tensor]:
    """The mean of the standardised pixels, and the directions around it of the most variance.

    Returns (3072,) and (count, 3072) float32, the most variance first.
    """
    device = model.pixel_mean.device
    if count <= len(images) <= _FEW:  # the same in less time
        rows = torch.cat([exact(pixels) for pixels in standardized_chunks(model, images)])
        mean = rows.mean(dim=0)
        _, _, directions = torch.linalg.svd(rows - mean, full_matrices=False)
        return mean.float(), directions[:count].float()
    total, products = torch.zeros(TINY_BYTES), torch.zeros(TINY_BYTES, TINY_BYTES)
    total, products = (exact(part.to(device)) for part in (total, products))
    for pixels in standardized_chunks(model, images):
        rows = exact(pixels)
        total += rows.sum(dim=0)
        products += rows.T @ rows
    mean = total / len(images)
    covariance = products / len(images) - mean[:, None] * mean
    _, vectors = torch.linalg.eigh(covariance)  # in order of variance, the smallest first
    return mean.float(), vectors.flip(1)[:, :count].T.float().contiguous()


def standardized_chunks(model: Autoencoder, images: NDArray[np.uint8]) -> Iterator[Tensor]:
    """(n, 32, 32, 3) uint8 to pieces of (n, 3072) float32, on the model's device."""
    for start in range(0, len(images), _CHUNK):
        chunk = torch.from_numpy(images[start : start + _CHUNK])
        yield model.standardize(chunk.to(model.pixel_mean.device)).flatten(1)
