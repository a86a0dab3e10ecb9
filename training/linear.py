"""Fit a linear autoencoder in closed form: principal components, rounded to bits."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hashsearch.models.dense import DenseAutoencoder

_CHUNK = 5000


@torch.no_grad()
def fit_linear(model: DenseAutoencoder, images: NDArray[np.uint8]) -> None:
    """Set the weights of an autoencoder without hidden layers.

    A bit is the sign of one component. It decodes to plus or minus the mean of
    that component's absolute value, which of all pairs of values has the least
    squared error.
    """
    covariance = torch.zeros(model.widths[0], model.widths[0], dtype=torch.float64)
    chunks = range(0, len(images), _CHUNK)
    for start in chunks:
        pixels = model.standardize(torch.from_numpy(images[start : start + _CHUNK])).double()
        covariance += pixels.T @ pixels
    _, vectors = torch.linalg.eigh(covariance)  # in order of variance, the smallest first
    components = vectors.flip(1)[:, : model.bits].T.float()
    sizes = torch.zeros(model.bits)
    for start in chunks:
        pixels = model.standardize(torch.from_numpy(images[start : start + _CHUNK]))
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
