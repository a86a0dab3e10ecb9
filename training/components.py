"""Principal components of tiny images."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.images import TINY_BYTES
from hashsearch.models.folder import Autoencoder
from training.device import exact

_CHUNK = 5000
_FEW = 1000  # images whose own products cost less than those of their pixels


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
