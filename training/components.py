"""Principal components of tiny images."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.baselines.components import principal_directions
from hashsearch.models.autoencoder import Autoencoder

_CHUNK = 5000


def principal_components(
    model: Autoencoder, images: NDArray[np.uint8], count: int
) -> tuple[Tensor, Tensor]:
    """Compute the mean and the first principal components of the standardised pixels.

    Returns (3072,) and (count, 3072) float32 on the CPU, the components by decreasing variance.
    """
    chunks = (pixels.cpu().double().numpy() for pixels in standardized_chunks(model, images))
    mean, directions = principal_directions(chunks, len(images), count)
    return torch.from_numpy(mean).float(), torch.from_numpy(directions).float()


def standardized_chunks(model: Autoencoder, images: NDArray[np.uint8]) -> Iterator[Tensor]:
    """Standardise (n, 32, 32, 3) uint8 images to (m, 3072) float32 chunks on the model's device."""
    for start in range(0, len(images), _CHUNK):
        chunk = torch.from_numpy(images[start : start + _CHUNK])
        yield model.standardize(chunk.to(model.pixel_mean.device)).flatten(1)
