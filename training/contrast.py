"""Train a convolutional autoencoder whose codes are alike for views of one image."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.models.binarize import binarize
from hashsearch.models.convolutional import ConvolutionalAutoencoder
from training.augment import random_views
from training.data import Batches
from training.device import generator, has_bfloat16
from training.neighbours import Targets
from training.objectives import spread_and_alike, variance_lost
from training.presets import ConvolutionalPreset
from training.run import Run
from training.schedule import set_rate

_VIEWS = 3  # a part of what is drawn at random, beside the seed and the step


def learn_views(
    run: Run,
    model: ConvolutionalAutoencoder,
    preset: ConvolutionalPreset,
    images: NDArray[np.uint8],
    *,
    seed: int,
    device: str,
    minutes: float | None,
) -> None:
    """Train code, address and decoder together on two views of each image."""
    optimizer = _optimizer(model.parameters(), preset)
    run.stage(
        "views",
        {"model": model, "optimizer": optimizer},
        _joint_update(model, optimizer, preset, images, (seed,), device, preset.learning_rate),
        batch=preset.batch,
        steps=preset.steps,
        minutes=minutes,
    )


def learn_neighbours(
    run: Run,
    model: ConvolutionalAutoencoder,
    preset: ConvolutionalPreset,
    images: NDArray[np.uint8],
    *,
    seed: int,
    device: str,
    minutes: float | None,
) -> None:
    """Go on with them, every view led to its image's neighbours, which are found anew each round.

    The neighbours are found on top of the minutes.
    """
    for number in range(1, preset.rounds + 1):
        targets = Targets(device)
        learn_round(
            run,
            model,
            preset,
            images,
            number,
            targets,
            prepare=partial(targets.find, model, images, weight=preset.neighbours),
            seed=seed,
            device=device,
            minutes=None if minutes is None else minutes / preset.rounds,
        )


def learn_round(
    run: Run,
    model: ConvolutionalAutoencoder,
    preset: ConvolutionalPreset,
    images: NDArray[np.uint8],
    number: int,
    targets: Targets,
    *,
    prepare: Callable[[], None] | None = None,
    seed: int,
    device: str,
    minutes: float | None,
) -> None:
    """One of these rounds. prepare: finds the targets, unless they are found already."""
    optimizer = _optimizer(model.parameters(), preset)
    rate = preset.learning_rate / 2
    run.stage(
        f"neighbours, round {number}",
        {"model": model, "optimizer": optimizer, "targets": targets},
        _joint_update(model, optimizer, preset, images, (seed, number), device, rate, targets),
        prepare=prepare,
        batch=preset.batch,
        steps=preset.round_steps,
        minutes=minutes,
    )


def _joint_update(
    model: ConvolutionalAutoencoder,
    optimizer: torch.optim.Optimizer,
    preset: ConvolutionalPreset,
    images: NDArray[np.uint8],
    seed: tuple[int, ...],
    device: str,
    rate: float,
    targets: Targets | None = None,
) -> Callable[[int, int], dict[str, float]]:
    """A step for code, address and decoder; codes of views come near the targets, if given."""
    batches = Batches(np.arange(len(images)), preset.batch, seed)

    def update(step: int, steps: int) -> dict[str, float]:
        set_rate(optimizer, rate, step, steps)
        rows = batches[step]
        tiny = torch.from_numpy(images[rows]).to(device)
        random = generator(device, *seed, _VIEWS, step)
        views = [random_views(tiny, preset.views, random) for _ in range(2)]
        pixels = model.standardize(torch.cat(views).permute(0, 2, 3, 1))
        with _autocast(device):
            features = model.features(pixels)
            code, address = model.code(features), model.address(features)
            picture = model.decode(binarize(code[: preset.decoded]))
        terms = _weighted(code, preset)
        if targets is not None:
            wanted = targets[rows].repeat(2, 1)
            terms["invariance"] = preset.invariance * variance_lost(code.float(), wanted)
        terms["address"] = preset.address * _total(_weighted(address, preset))
        terms["reconstruction"] = F.mse_loss(picture.float(), pixels[: preset.decoded])
        terms["reconstruction"] = preset.reconstruction * terms["reconstruction"]
        return _descend(optimizer, terms)

    return update


def refine_decoder(
    run: Run,
    model: ConvolutionalAutoencoder,
    preset: ConvolutionalPreset,
    images: NDArray[np.uint8],
    *,
    seed: int,
    device: str,
    minutes: float | None,
) -> None:
    """Train the decoder alone, on the codes of whole images, which from now on stay."""
    batches = Batches(images, preset.batch, (seed,))
    optimizer = _optimizer(model.decoder.parameters(), preset)

    def update(step: int, steps: int) -> dict[str, float]:
        set_rate(optimizer, preset.learning_rate, step, steps)
        tiny = torch.from_numpy(batches[step]).to(device)
        model.eval()  # the codes are those that the finished model gives
        with torch.no_grad():
            bits = (model.code_logits(tiny) >= 0).float()
        model.train()
        with _autocast(device):
            picture = model.decode(bits)
        error = F.mse_loss(picture.float(), model.standardize(tiny))
        return _descend(optimizer, {"reconstruction": error})

    run.stage(
        "decoder",
        {"model": model, "optimizer": optimizer},
        update,
        batch=preset.batch,
        steps=preset.decoder_steps,
        minutes=minutes,
    )


def _optimizer(parameters: object, preset: ConvolutionalPreset) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        parameters,  # type: ignore[arg-type]  # an iterator of them, as modules give it
        lr=preset.learning_rate,
        weight_decay=preset.weight_decay,
        fused=True,
    )


def _autocast(device: str) -> torch.autocast:
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=has_bfloat16(device))


def _weighted(logits: Tensor, preset: ConvolutionalPreset) -> dict[str, Tensor]:
    terms = spread_and_alike(*logits.float().chunk(2))
    return {name: getattr(preset, name) * term for name, term in terms.items()}


def _total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def _descend(optimizer: torch.optim.Optimizer, terms: dict[str, Tensor]) -> dict[str, float]:
    """Take one step down their sum; returns it as the loss, and each of them."""
    loss = _total(terms)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return {"loss": loss.item()} | {name: term.item() for name, term in terms.items()}
