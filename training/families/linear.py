"""A linear autoencoder in closed form: principal components rounded to bits."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hashsearch.errors import TrainingError
from hashsearch.images import TINY_BYTES
from hashsearch.models.card import model_name
from hashsearch.models.dense import DenseAutoencoder
from training.components import principal_components, standardized_chunks
from training.families.base import AutoencoderPreset, Start, Work
from training.families.dense import first_layer


@dataclass(frozen=True)
class LinearPreset(AutoencoderPreset[DenseAutoencoder]):
    """Principal components, in closed form: the linear autoencoder with the least error."""

    bits: int

    def build(self) -> DenseAutoencoder:
        return DenseAutoencoder((TINY_BYTES, self.bits), "relu")  # no hidden units

    def start(self, folder: Path | None) -> Start | None:
        if folder is not None:
            raise TrainingError(
                f"{model_name(folder)} is a model from which this preset cannot start: it has no "
                "steps"
            )
        return None

    @property
    def images_needed(self) -> int:
        return self.bits + 1  # fewer leave some components to chance

    def learn(self, model: DenseAutoencoder, work: Work) -> None:
        fit_linear(model, work.images)

    def filters(self, model: DenseAutoencoder) -> NDArray[np.float32]:
        return first_layer(model)


PRESETS = {"pca256": LinearPreset(bits=256)}


@torch.no_grad()
def fit_linear(model: DenseAutoencoder, images: NDArray[np.uint8]) -> None:
    """Set the weights of an autoencoder without hidden layers.

    Each bit is the sign of one component. It decodes to plus or minus the mean absolute
    value of that component, the symmetric pair of values with the least squared error.
    """
    _, components = principal_components(model, images, model.bits)
    components = components.to(model.pixel_mean.device)
    mean_sizes = torch.zeros(model.bits, device=components.device)
    for pixels in standardized_chunks(model, images):
        mean_sizes += (pixels @ components.T).abs().sum(dim=0)
    mean_sizes /= len(images)
    scaled = components * mean_sizes[:, None]
    (encode,), (decode,) = model.encoder, model.decoder
    assert isinstance(encode, nn.Linear)
    assert isinstance(decode, nn.Linear)
    encode.weight.copy_(components)
    encode.bias.zero_()
    decode.weight.copy_(2 * scaled.T)
    decode.bias.copy_(-scaled.sum(dim=0))
