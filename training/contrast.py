"""Train a convolutional autoencoder whose codes are alike for views of one image."""

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hashsearch.models.binarize import binarize
from hashsearch.models.convolutional import ConvolutionalAutoencoder
from training.augment import random_views
from training.data import Batches
from training.device import generator, has_bfloat16
from training.muon import Muon
from training.objectives import spread_and_alike
from training.presets import ConvolutionalPreset
from training.run import Run
from training.schedule import set_rate
from training.sharpen import sharpen

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
    muon, adam = optimizers(model, preset, device)

    def update(step: int, steps: int) -> dict[str, float]:
        set_rate(muon, preset.kernel_rate, step, steps)
        set_rate(adam, preset.learning_rate, step, steps)
        tiny = torch.from_numpy(batches[step]).to(device)
        random = generator(device, seed, _VIEWS, step)
        pixels = model.standardize(draw_views(tiny, preset, random).permute(0, 2, 3, 1))
        with _autocast(device):
            features = model.features(pixels)
            code, address = model.code(features), model.address(features)
            picture = model.decode(bits_to_decode(code[: preset.decoded], preset))
        terms = _weighted(code[:, preset.pictured :], preset)
        terms["address"] = preset.address * _total(_weighted(address, preset))
        terms["reconstruction"] = F.mse_loss(picture.float(), pixels[: preset.decoded])
        terms["reconstruction"] = preset.reconstruction * terms["reconstruction"]
        return _descend((muon, adam), terms)

    run.stage(
        "views",
        {"model": model, "muon": muon, "adam": adam},
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
    """Sharpen the code, which stays then, and train the decoder alone on whole images' codes."""
    batches = Batches(images, preset.batch, seed)
    adam = _adam(model.decoder.parameters(), preset)

    def update(step: int, steps: int) -> dict[str, float]:
        set_rate(adam, preset.learning_rate, step, steps)
        tiny = torch.from_numpy(batches[step]).to(device)
        model.eval()  # the codes are those that the finished model gives
        with torch.no_grad():
            bits = (model.code_logits(tiny) >= 0).float()
        model.train()
        with _autocast(device):
            picture = model.decode(bits)
        error = F.mse_loss(picture.float(), model.standardize(tiny))
        return _descend((adam,), {"reconstruction": error})

    run.stage(
        "decoder",
        {"model": model, "adam": adam},
        update,
        batch=preset.batch,
        steps=preset.decoder_steps,
        minutes=minutes,
        prepare=partial(sharpen, model, images, preset.pictured, preset.directions),
    )


def draw_views(
    tiny: Tensor, preset: ConvolutionalPreset, random: torch.Generator, count: int = 2
) -> Tensor:
    """(n, 32, 32, 3) uint8 to (count · n, 3, 32, 32) float32: the first view of each, and so on.

    The first view of the `decoded` first images is the image as it is, so that
    what is decoded in training is what will be.
    """
    assert preset.decoded <= len(tiny), "every image that is decoded has a first view"
    views = torch.cat([random_views(tiny, preset.views, random) for _ in range(count)])
    views[: preset.decoded] = tiny[: preset.decoded].permute(0, 3, 1, 2)
    return views


def bits_to_decode(logits: Tensor, preset: ConvolutionalPreset) -> Tensor:
    """(n, n_bits) float zeros and ones, of which the first alone are taught by the picture."""
    bits = binarize(logits)
    told, others = bits[:, : preset.pictured], bits[:, preset.pictured :]
    return torch.cat((told, others.detach()), dim=1)


def optimizers(
    model: ConvolutionalAutoencoder, preset: ConvolutionalPreset, device: str
) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the encoder's kernels, AdamW for all else."""
    kernels: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        of_encoder = weight.ndim > 1 and not name.startswith("decoder.")
        (kernels if of_encoder else others).append(weight)
    dtype = torch.bfloat16 if has_bfloat16(device) else torch.float32
    muon = Muon(kernels, rate=preset.kernel_rate, decay=preset.kernel_decay, dtype=dtype)
    return muon, _adam(others, preset)


def _adam(weights: Iterable[nn.Parameter], preset: ConvolutionalPreset) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        weights, lr=preset.learning_rate, weight_decay=preset.weight_decay, fused=True
    )


def _autocast(device: str) -> torch.autocast:
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=has_bfloat16(device))


def _weighted(logits: Tensor, preset: ConvolutionalPreset) -> dict[str, Tensor]:
    terms = spread_and_alike(*logits.float().chunk(2))
    return {name: getattr(preset, name) * term for name, term in terms.items()}


def _total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def _descend(
    optimizers: Sequence[torch.optim.Optimizer], terms: dict[str, Tensor]
) -> dict[str, float]:
    """Take one step down their sum; returns it as the loss, and each of them."""
    loss = _total(terms)
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    return {"loss": loss.item()} | {name: term.item() for name, term in terms.items()}
