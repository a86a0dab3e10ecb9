"""Train a dense autoencoder to reconstruct its input through a binary code."""

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hashsearch.models.binarize import binarize
from hashsearch.models.dense import DenseAutoencoder
from training.augment import flipped
from training.data import Batches
from training.device import generator, has_bfloat16
from training.presets import DensePreset, Pretraining
from training.rbm import RestrictedBoltzmannMachine
from training.run import Run
from training.schedule import set_rate

# A part of what is drawn at random, beside the seed and the step.
_FLIP, _NOISE, _HIDDEN = range(3)
_INITIAL_DEVIATION = 0.01  # of weights before pre-training


def pretrain(
    run: Run,
    model: DenseAutoencoder,
    settings: Pretraining,
    images: NDArray[np.uint8],
    *,
    seed: int,
    device: str,
    minutes: float | None,
) -> None:
    """Fit each layer as a restricted Boltzmann machine on the layer below, then unroll.

    Leaves the decoder with the encoder's weights transposed; nothing ties them
    afterwards. minutes: for all layers together, dealt out so that each takes
    about the same number of steps.
    """
    encoders = [layer for layer in model.encoder if isinstance(layer, nn.Linear)]
    decoders = [layer for layer in model.decoder if isinstance(layer, nn.Linear)][::-1]
    batches = Batches(images, settings.batch, seed)
    sizes = [wide * narrow for wide, narrow in pairwise(model.widths)]
    # Products a step: five with the layer's own weights, one with each below.
    costs = [5 * size + sum(sizes[:number]) for number, size in enumerate(sizes)]
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
            steps: int,
            number: int = number,
            machine: RestrictedBoltzmannMachine = machine,
            rate: float = rate,
        ) -> dict[str, float]:
            data = model.standardize(torch.from_numpy(batches[step]).to(device))
            for below in encoders[:number]:
                data = torch.sigmoid(below(data))
            early = step < steps / 10
            loss = machine.learn(
                data,
                rate=rate,
                momentum=settings.early_momentum if early else settings.momentum,
                weight_cost=settings.weight_cost,
                generator=generator(device, seed, _HIDDEN, number, step),
            )
            return {"loss": loss}

        run.stage(
            f"layer {number + 1} of {len(encoders)}",
            {"model": model, "machine": machine},
            update,
            batch=settings.batch,
            steps=settings.steps,
            minutes=None if minutes is None else minutes * costs[number] / sum(costs),
        )
        with torch.no_grad():
            decoder.weight.copy_(encoder.weight.T)


def fine_tune(
    run: Run,
    model: DenseAutoencoder,
    preset: DensePreset,
    images: NDArray[np.uint8],
    *,
    seed: int,
    device: str,
    minutes: float | None,
) -> None:
    """Lower the squared error of the reconstruction by backpropagation through the bits."""
    batches = Batches(images, preset.batch, seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=preset.learning_rate, weight_decay=preset.weight_decay, fused=True
    )
    bfloat16 = has_bfloat16(device)

    def update(step: int, steps: int) -> dict[str, float]:
        set_rate(optimizer, preset.learning_rate, step, steps)
        batch = batches[step]
        if preset.flip:
            batch = flipped(batch, np.random.default_rng((seed, _FLIP, step)))
        noise = generator(device, seed, _NOISE, step)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
            loss = _loss(model, preset, torch.from_numpy(batch).to(device), noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return {"loss": loss.item()}

    run.stage(
        "reconstruction",
        {"model": model, "optimizer": optimizer},
        update,
        batch=preset.batch,
        steps=preset.steps,
        minutes=minutes,
    )


def _loss(
    model: DenseAutoencoder, preset: DensePreset, tiny: Tensor, noise: torch.Generator
) -> Tensor:
    """Squared error of the standardised reconstruction, and what sparsity costs."""
    pixels = model.standardize(tiny)
    given = pixels
    if preset.noise:
        drawn = torch.randn(pixels.shape, generator=noise, device=pixels.device)
        given = pixels + preset.noise * drawn
    logits = model.encoder(given)
    loss = F.mse_loss(model.decoder(binarize(logits)), pixels)
    if preset.sparsity:
        wanted, found = preset.activity, torch.sigmoid(logits.float()).mean(dim=0)
        found = found.clamp(1e-4, 1 - 1e-4)
        divergence = (
            wanted * (wanted / found).log() + (1 - wanted) * ((1 - wanted) / (1 - found)).log()
        )
        loss = loss + preset.sparsity * divergence.sum()
    return loss
