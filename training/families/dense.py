"""The paper's deep autoencoder: layer-wise pre-training, then training by reconstruction."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hashsearch.images import TINY_SIDE
from hashsearch.models.dense import DenseAutoencoder
from training.augment import flipped
from training.binarize import binarize
from training.data import Batches
from training.device import autocast, generator
from training.families.base import AutoencoderPreset, Work
from training.optimizers import adam, descend
from training.rbm import RestrictedBoltzmannMachine

_RECONSTRUCTION, _HIDDEN = range(2)  # random streams, see Work.stage
_INITIAL_DEVIATION = 0.01  # standard deviation of the weights before pre-training
_PRETRAINING_SHARE = 0.4  # of a time budget


@dataclass(frozen=True, slots=True)
class Pretraining:
    """Greedy layer-wise pre-training with restricted Boltzmann machines.

    steps: updates of each layer, on `batch` images each. gaussian_rate: learning rate of
    the first layer, whose visible units are Gaussian; binary_rate: of the other layers.
    early_momentum is used in the first tenth of the steps, momentum afterwards.
    """

    steps: int
    batch: int = 128
    gaussian_rate: float = 0.001
    binary_rate: float = 0.01
    early_momentum: float = 0.5
    momentum: float = 0.9
    weight_cost: float = 0.0002


@dataclass(frozen=True)
class DensePreset(AutoencoderPreset[DenseAutoencoder]):
    """Settings of a dense autoencoder trained by reconstruction alone.

    widths: pixels, hidden layers, code bits. hidden: kind of the hidden units.
    steps: updates on `batch` images each; the learning rate rises over the first 3% of them
    and then falls along a cosine to zero. flip: mirror each image with probability one half.
    noise: standard deviation of Gaussian noise added to the standardised input pixels; the
    target has no noise (denoising). activity: the share of images for which each bit should
    be 1, enforced by a Kullback-Leibler penalty of weight sparsity; with sparsity 0 there is
    no penalty.
    """

    widths: tuple[int, ...]
    hidden: str
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.01
    flip: bool = True
    noise: float = 0.0
    activity: float = 0.1
    sparsity: float = 0.0
    pretraining: Pretraining | None = None

    def build(self) -> DenseAutoencoder:
        return DenseAutoencoder(self.widths, self.hidden)

    @property
    def images_needed(self) -> int:
        return max(self.batch, self.pretraining.batch if self.pretraining else 1)

    def learn(self, model: DenseAutoencoder, work: Work) -> None:
        if self.pretraining and not work.begun:
            pretrain(model, self.pretraining, work)
        fine_tune(model, self, work)

    def filters(self, model: DenseAutoencoder) -> NDArray[np.float32]:
        return first_layer(model)


def pretrain(model: DenseAutoencoder, settings: Pretraining, work: Work) -> None:
    """Fit each layer as a restricted Boltzmann machine on the layer below, then unroll.

    The decoder gets the encoder's transposed weights; later training does not keep them
    tied. A time budget is divided so that each layer takes about the same number of steps.
    """
    encoders = [layer for layer in model.encoder if isinstance(layer, nn.Linear)]
    decoders = [layer for layer in model.decoder if isinstance(layer, nn.Linear)][::-1]
    images = work.resident()
    batches = Batches(len(images), settings.batch, work.seed, work.device)
    sizes = [wide * narrow for wide, narrow in pairwise(model.widths)]
    # Matrix products per step: five with the layer's own weights, one with each layer below.
    costs = [5 * size + sum(sizes[:number]) for number, size in enumerate(sizes)]
    total_cost = sum(costs) / _PRETRAINING_SHARE
    for layer in encoders:
        nn.init.normal_(layer.weight, std=_INITIAL_DEVIATION)
    for layer in (*encoders, *decoders):
        nn.init.zeros_(layer.bias)
    for number, (encoder, decoder) in enumerate(zip(encoders, decoders, strict=True)):
        machine = RestrictedBoltzmannMachine(
            encoder.weight.data, encoder.bias.data, decoder.bias.data, gaussian=number == 0
        )
        rate = settings.binary_rate if number else settings.gaussian_rate

        @torch.no_grad()
        def update(
            step: int,
            progress: float,
            number: int = number,
            machine: RestrictedBoltzmannMachine = machine,
            rate: float = rate,
        ) -> dict[str, Tensor]:
            data = model.standardize(images[batches[step]])
            for below in encoders[:number]:
                data = torch.sigmoid(below(data))
            early = progress < 0.1
            loss = machine.learn(
                data,
                rate=rate,
                momentum=settings.early_momentum if early else settings.momentum,
                weight_cost=settings.weight_cost,
                generator=generator(work.device, work.seed, _HIDDEN, number, step),
            )
            return {"loss": loss}

        work.run.stage(
            f"layer {number + 1} of {len(encoders)}",
            {"model": model, "machine": machine},
            update,
            batch=settings.batch,
            steps=settings.steps,
            share=costs[number] / (total_cost - sum(costs[:number])),
        )
        with torch.no_grad():
            decoder.weight.copy_(encoder.weight.T)


def fine_tune(model: DenseAutoencoder, preset: DensePreset, work: Work) -> None:
    """Minimise the reconstruction's squared error by backpropagation through the bits."""
    images = work.resident()
    optimizer = adam(model.parameters(), work.device, decay=preset.weight_decay)

    def compute(rows: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        tiny = images[rows]
        if preset.flip:
            tiny = flipped(tiny, random)
        with autocast(work.device):
            loss = _loss(model, preset, tiny, random)
        return {"loss": descend([optimizer], loss)}

    work.stage(
        "reconstruction",
        {"model": model},
        {"optimizer": (optimizer, preset.learning_rate)},
        compute,
        batch=preset.batch,
        steps=preset.steps,
        part=_RECONSTRUCTION,
    )


def _loss(
    model: DenseAutoencoder, preset: DensePreset, tiny: Tensor, noise: torch.Generator
) -> Tensor:
    """Mean squared error of the standardised reconstruction, plus the sparsity penalty."""
    pixels = model.standardize(tiny)
    inputs = pixels
    if preset.noise:
        drawn = torch.randn(pixels.shape, generator=noise, device=pixels.device)
        inputs = pixels + preset.noise * drawn
    logits = model.encoder(inputs)
    loss = F.mse_loss(model.decoder(binarize(logits)), pixels)
    if preset.sparsity:
        wanted, found = preset.activity, torch.sigmoid(logits.float()).mean(dim=0)
        found = found.clamp(1e-4, 1 - 1e-4)
        divergence = (
            wanted * (wanted / found).log() + (1 - wanted) * ((1 - wanted) / (1 - found)).log()
        )
        loss = loss + preset.sparsity * divergence.sum()
    return loss


def first_layer(model: DenseAutoencoder) -> NDArray[np.float32]:
    """(n, 32, 32, 3) float32: the first layer's weights as images."""
    weights: NDArray[np.float32] = next(model.encoder.parameters()).detach().cpu().numpy()
    return weights.reshape(-1, TINY_SIDE, TINY_SIDE, 3)


# Krizhevsky and Hinton (2011). We do not have the full paper: widths, CD-1, and the
# pre-training's learning rates, batch and momenta are recalled from it. The rest is ours:
# numbers of steps, weight cost, and AdamW for fine-tuning instead of plain gradient descent.
# The fine-tuning rate was chosen for kh256.
_PAPER = (3072, 8192, 4096, 2048, 1024, 512, 256)
_SMALL = (3072, 2048, 1024, 512, 256)
_QUICK = (3072, 1024, 512, 256)

PRESETS = {
    "kh256": DensePreset(
        _PAPER, "logistic", 3_300, 256, 1.5e-4, pretraining=Pretraining(steps=1_000)
    ),
    "kh28": DensePreset(
        (*_PAPER, 64, 28), "logistic", 3_300, 256, 1.5e-4, pretraining=Pretraining(steps=1_000)
    ),
    "kh256-small": DensePreset(
        _SMALL, "logistic", 8_000, 128, 5e-4, pretraining=Pretraining(steps=2_000)
    ),
    # A first model in about three minutes on two cores. It is smaller than the paper's and
    # has rectified units, which need no layer-wise pre-training, unlike deep logistic ones.
    "dense256-quick": DensePreset(_QUICK, "relu", 3_000, 256, 2e-3),
    "dense256-sparse": DensePreset(_QUICK, "relu", 3_000, 256, 2e-3, sparsity=0.01),
    "dense256-denoising": DensePreset(_QUICK, "relu", 3_000, 256, 2e-3, noise=0.5),
}
