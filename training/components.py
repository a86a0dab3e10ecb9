"""Principal components of tiny images."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.images import TINY_BYTES
from hashsearch.models.autoencoder import Autoencoder
from training.device import exact

_CHUNK = 5000
_FEW = 1000  # up to this many images an SVD costs less than the pixels' covariance


def principal_components(
    model: Autoencoder, images: NDArray[np.uint8], count: int
) -> tuple[Tensor, Tensor]:
    """Compute the mean and the first principal components of the standardised pixels.

    Returns (3072,) and (count, 3072) float32, the components by decreasing variance.
    """
    device = model.pixel_mean.device
    if count <= len(images) <= _FEW:  # the same result in less time
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
    _, vectors = torch.linalg.eigh(covariance)  # by increasing variance
    return mean.float(), vectors.flip(1)[:, :count].T.float().contiguous()


def standardized_chunks(model: Autoencoder, images: NDArray[np.uint8]) -> Iterator[Tensor]:
    """Standardise (n, 32, 32, 3) uint8 images to (m, 3072) float32 chunks on the model's device."""
    for start in range(0, len(images), _CHUNK):
        chunk = torch.from_numpy(images[start : start + _CHUNK])
        yield model.standardize(chunk.to(model.pixel_mean.device)).flatten(1)
