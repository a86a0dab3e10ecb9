"""Train a convolutional autoencoder whose codes are alike for views of one image."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hashsearch.models.convolutional import ENCODER, ConvolutionalAutoencoder
from training.augment import flipped, random_views
from training.data import Batches
from training.device import generator, has_bfloat16
from training.muon import Muon
from training.objectives import spread_and_alike
from training.presets import ConvolutionalPreset
from training.run import Run
from training.schedule import set_rate
from training.sharpen import sharpen
from training.transform import fit_transform, mean_log_error

VIEWS, _FLIP = 3, 4  # parts of what is drawn at random, beside the seed and the step


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
    """Train trunk, head and address on two views of each image."""
    batches = Batches(images, preset.batch, seed)
    muon, adam = optimizers(model, preset, device)

    def update(step: int, steps: int) -> dict[str, float]:
        set_rate(muon, preset.kernel_rate, step, steps)
        set_rate(adam, preset.learning_rate, step, steps)
        tiny = torch.from_numpy(batches[step]).to(device)
        random = generator(device, seed, VIEWS, step)
        views = [random_views(tiny, preset.views, random) for _ in range(2)]
        pixels = model.standardize(torch.cat(views).permute(0, 2, 3, 1))
        with _autocast(device):
            features = model.features(pixels)
            seen, address = model.head(features), model.address(features)
        terms = _weighted(seen, preset)
        terms["address"] = preset.address * _total(_weighted(address, preset))
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
    """Make the code, in closed form, and train the decoder alone on whole images' codes.

    The loss is the geometric mean over images of the squared error of standardised pixels.
    """
    model.eval()  # the codes are those that the finished model gives
    batches = Batches(images, preset.decoder_batch, seed)
    adam = _adam(model.decoder.parameters(), preset.decoder_rate, 0.0)

    def make_code() -> None:
        fit_transform(model, images)
        sharpen(model, images, preset.directions)

    def update(step: int, steps: int) -> dict[str, float]:
        set_rate(adam, preset.decoder_rate, step, steps)
        batch = flipped(batches[step], np.random.default_rng((seed, _FLIP, step)))
        tiny = torch.from_numpy(batch).to(device)
        with torch.no_grad():
            bits = (model.code_logits(tiny) >= 0).float()
        with _autocast(device):
            picture = model.decode(bits)
        logarithm = mean_log_error(picture, model.standardize(tiny))
        return {"loss": math.exp(_descend((adam,), {"error": logarithm})["loss"])}

    run.stage(
        "decoder",
        {"model": model, "adam": adam},
        update,
        batch=preset.decoder_batch,
        steps=preset.decoder_steps,
        minutes=minutes,
        prepare=make_code,
        scale=0.0,
    )


def optimizers(
    model: ConvolutionalAutoencoder, preset: ConvolutionalPreset, device: str
) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the encoder's kernels and matrices, AdamW for its other weights."""
    kernels: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        if name.split(".")[0] in ENCODER:
            (kernels if weight.ndim > 1 else others).append(weight)
    dtype = torch.bfloat16 if has_bfloat16(device) else torch.float32
    muon = Muon(kernels, rate=preset.kernel_rate, decay=preset.kernel_decay, dtype=dtype)
    return muon, _adam(others, preset.learning_rate, preset.weight_decay)


def _adam(weights: Iterable[nn.Parameter], rate: float, decay: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(weights, lr=rate, weight_decay=decay, fused=True)


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
