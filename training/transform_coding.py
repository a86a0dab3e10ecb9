"""Fit transform coding: principal components and a scalar quantizer for each."""

import numpy as np
import torch
from numpy.typing import NDArray

from hashsearch.models.convolutional import ConvolutionalAutoencoder
from hashsearch.models.transform import TransformAutoencoder
from training.components import principal_components, standardized_chunks

_SAMPLE = 50_000  # images that the quantizers are fitted to, at most
_LLOYD_ROUNDS = 100


@torch.no_grad()
def fit_transform(
    model: TransformAutoencoder | ConvolutionalAutoencoder, images: NDArray[np.uint8]
) -> None:
    """Set the coefficients to principal components, and their values to Lloyd quantizers.

    This is plain transform coding; the networks are not trained here.
    """
    transform = model.transform
    mean, components = principal_components(model, images, len(transform.depths))
    transform.mean.copy_(mean)
    transform.components.copy_(components)
    chunks = standardized_chunks(model, images[:_SAMPLE])
    found = torch.cat([transform.of(pixels) for pixels in chunks]).cpu().double().numpy()
    for number, depth in enumerate(transform.depths):
        transform.values[number, : 2**depth] = torch.from_numpy(lloyd(found[:, number], 2**depth))


def lloyd(samples: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Fit a scalar quantizer with a locally minimal squared error; returns its values, ascending.

    Source: Lloyd 1982, Least squares quantization in PCM; initialised with quantiles.
    """
    ordered = np.sort(samples)
    sums = np.concatenate([[0], np.cumsum(ordered)])
    values = np.quantile(ordered, (np.arange(count) + 0.5) / count)
    for _ in range(_LLOYD_ROUNDS):
        inner = np.searchsorted(ordered, (values[1:] + values[:-1]) / 2)
        ends = np.concatenate([[0], inner, [len(ordered)]])
        held = np.diff(ends)
        values = np.where(held > 0, np.diff(sums[ends]) / np.maximum(held, 1), values)
    return values
