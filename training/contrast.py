"""Train a convolutional autoencoder whose codes are alike for views of one image."""

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
from training.objectives import spread_and_alike
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
    batches = Batches(images, preset.batch, seed)
    optimizer = _optimizer(model.parameters(), preset)

    def update(step: int, steps: int) -> dict[str, float]:
        set_rate(optimizer, preset.learning_rate, step, steps)
        tiny = torch.from_numpy(batches[step]).to(device)
        random = generator(device, seed, _VIEWS, step)
        views = [random_views(tiny, preset.views, random) for _ in range(2)]
        pixels = model.standardize(torch.cat(views).permute(0, 2, 3, 1))
        with _autocast(device):
            features = model.features(pixels)
            code, address = model.code(features), model.address(features)
            picture = model.decode(binarize(code[: preset.decoded]))
        terms = _weighted(code, preset)
        terms["address"] = preset.address * _total(_weighted(address, preset))
        terms["reconstruction"] = F.mse_loss(picture.float(), pixels[: preset.decoded])
        terms["reconstruction"] = preset.reconstruction * terms["reconstruction"]
        return _descend(optimizer, terms)

    run.stage(
        "views",
        {"model": model, "optimizer": optimizer},
        update,
        batch=preset.batch,
        steps=preset.steps,
        minutes=minutes,
    )


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
    batches = Batches(images, preset.batch, seed)
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
