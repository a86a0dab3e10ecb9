"""Train an autoencoder for pictures alone: transform coding first, then what networks add."""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.models.transform import TransformAutoencoder
from training.augment import flipped
from training.data import Batches
from training.device import has_bfloat16
from training.linear import principal_components, standardized_chunks
from training.presets import TransformPreset
from training.run import Run
from training.schedule import set_rate

_SAMPLE = 50_000  # images that the values are fitted to
_LLOYD_ROUNDS = 100
_LEAST_ERROR = 1e-4  # of standardised pixels, squared; a picture of one colour would count for all


@torch.no_grad()
def fit_transform(model: TransformAutoencoder, images: NDArray[np.uint8]) -> None:
    """Make a coefficient a principal component, and its values the quantiser of least error.

    This is all of transform coding; the networks add nothing yet.
    """
    components = principal_components(model, images, len(model.depths))
    model.analysis.weight.copy_(components)
    model.synthesis.weight.copy_(components.T)
    for layer in (model.analysis, model.synthesis):
        layer.bias.zero_()
    chunks = standardized_chunks(model, images[:_SAMPLE])
    found = torch.cat([model.analysis(pixels) for pixels in chunks]).double().cpu().numpy()
    for number, depth in enumerate(model.depths):
        model.values[number, : 2**depth] = torch.from_numpy(lloyd(found[:, number], 2**depth))


def lloyd(samples: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The values, in order, that samples are rounded to with a least squared error, a local one.

    Source: Lloyd 1982, Least squares quantization in PCM; started from quantiles.
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


def fit_networks(
    run: Run,
    model: TransformAutoencoder,
    preset: TransformPreset,
    images: NDArray[np.uint8],
    *,
    fit: bool,
    seed: int,
    device: str,
    minutes: float | None,
) -> None:
    """Raise the mean PSNR by the networks and the values; the linear parts stay.

    fit: whether `fit_transform` comes first. Rounding is ignored backwards.
    """
    batches = Batches(images, preset.batch, seed)
    for layer in (model.analysis, model.synthesis):
        layer.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [part for part in model.parameters() if part.requires_grad],
        lr=preset.learning_rate,
        weight_decay=0.0,
        fused=True,
    )
    bfloat16 = has_bfloat16(device)

    def update(step: int, steps: int) -> dict[str, float]:
        set_rate(optimizer, preset.learning_rate, step, steps)
        batch = flipped(batches[step], np.random.default_rng((seed, step)))
        pixels = model.standardize(torch.from_numpy(batch).to(device))
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
            picture = model.picture(_straight_through(model, model.coefficients(pixels).float()))
        errors = (picture.float() - pixels).square().mean(dim=1)
        loss = errors.clamp_min(_LEAST_ERROR).log().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return {"loss": loss.exp().item()}  # the geometric mean of the images' errors

    run.stage(
        "reconstruction",
        {"model": model, "optimizer": optimizer},
        update,
        prepare=partial(fit_transform, model, images) if fit else None,
        batch=preset.batch,
        steps=preset.steps,
        minutes=minutes,
    )
    _put_in_order(model)


def _straight_through(model: TransformAutoencoder, coefficients: Tensor) -> Tensor:
    """The values that coefficients are rounded to; gradients pass to both.

    To a coefficient only while it lies between its outermost values: one beyond them
    would run away, since however far it goes, what it is rounded to stays.
    """
    rounded = model.rounded(model.levels(coefficients))
    lowest, highest = (part.detach() for part in model.extremes())
    within = torch.maximum(torch.minimum(coefficients, highest), lowest)
    return rounded + (within - within.detach())


@torch.no_grad()
def _put_in_order(model: TransformAutoencoder) -> None:
    """Number a coefficient's values by size again, should training have changed their order."""
    for values, depth in zip(model.values, model.depths, strict=True):
        used = values[: 2**depth]
        used.copy_(used.sort().values)
