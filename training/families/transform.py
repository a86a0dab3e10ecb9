"""An autoencoder for reconstruction only: transform coding, refined by networks."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.images import TINY_SIDE
from hashsearch.models.coefficients import Coefficients
from hashsearch.models.transform import TransformAutoencoder
from training.augment import flipped
from training.device import autocast
from training.families.base import AutoencoderPreset, Work
from training.objectives import mean_log_error
from training.optimizers import adam, descend
from training.transform_coding import fit_transform

_RECONSTRUCTION = 0  # random stream, see Work.stage


@dataclass(frozen=True)
class TransformPreset(AutoencoderPreset[TransformAutoencoder]):
    """Settings of an autoencoder for reconstruction only, initialised with transform coding.

    depths, width: see TransformAutoencoder. steps: updates on `batch` images each.
    """

    depths: tuple[tuple[int, int], ...]
    width: int
    steps: int
    batch: int = 128
    learning_rate: float = 1e-3

    def build(self) -> TransformAutoencoder:
        return TransformAutoencoder(self.depths, self.width)

    @property
    def images_needed(self) -> int:
        components = sum(count for count, _ in self.depths)
        return max(self.batch, components + 1)

    def learn(self, model: TransformAutoencoder, work: Work) -> None:
        fit_networks(model, self, work)

    def filters(self, model: TransformAutoencoder) -> NDArray[np.float32]:
        components: NDArray[np.float32] = model.transform.components.cpu().numpy()
        return components.reshape(-1, TINY_SIDE, TINY_SIDE, 3)


PRESETS = {
    "transform256": TransformPreset(
        depths=((1, 6), (3, 5), (9, 4), (21, 3), (41, 2), (54, 1)),
        width=128,
        steps=8_000,
        learning_rate=3e-4,
    ),
}


def fit_networks(model: TransformAutoencoder, preset: TransformPreset, work: Work) -> None:
    """Train the networks and the quantizer values to raise the mean PSNR.

    The components stay fixed. The backward pass ignores rounding (straight-through).
    """
    images = work.resident()
    optimizer = adam(model.parameters(), work.device, decay=0.0)

    def compute(rows: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        pixels = model.standardize(flipped(images[rows], random))
        with autocast(work.device):
            coefficients = model.coefficients(pixels)
            picture = model.picture(_straight_through(model.transform, coefficients))
        error = descend([optimizer], mean_log_error(picture, pixels))
        return {"loss": error.exp()}  # the geometric mean of the images' errors

    work.stage(
        "reconstruction",
        {"model": model},
        {"optimizer": (optimizer, preset.learning_rate)},
        compute,
        batch=preset.batch,
        steps=preset.steps,
        part=_RECONSTRUCTION,
        prepare=None if work.begun else partial(fit_transform, model, work.images),
        scale=0.0,
    )
    _sort_values(model.transform)


def _straight_through(transform: Coefficients, coefficients: Tensor) -> Tensor:
    """Round coefficients to their values; gradients pass to the values and the coefficients.

    A coefficient gets gradients only between its outermost values. Beyond them it could
    diverge, because its rounded value no longer changes.
    """
    rounded = transform.rounded(transform.levels(coefficients))
    lowest, highest = (part.detach() for part in transform.extremes())
    within = torch.maximum(torch.minimum(coefficients, highest), lowest)
    return rounded + (within - within.detach())


@torch.no_grad()
def _sort_values(transform: Coefficients) -> None:
    """Sort each coefficient's values again; training may have changed their order."""
    for values, depth in zip(transform.values, transform.depths, strict=True):
        used = values[: 2**depth]
        used.copy_(used.sort().values)
