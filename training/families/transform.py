"""Train an autoencoder for pictures alone: transform coding first, then what networks add."""

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.models.coefficients import Coefficients
from hashsearch.models.convolutional import ConvolutionalAutoencoder
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
_FLIP = 0  # a part of what is drawn at random, beside the seed and the step
_LEAST_ERROR = 1e-4  # of standardised pixels, squared; a picture of one colour would count for all


@torch.no_grad()
def fit_transform(
    model: TransformAutoencoder | ConvolutionalAutoencoder, images: NDArray[np.uint8]
) -> None:
    """Make a coefficient a principal component, and its values the quantiser of least error.

    This is all of transform coding; networks add nothing yet.
    """
    transform = model.transform
    mean, components = principal_components(model, images, len(transform.depths))
    transform.mean.copy_(mean)
    transform.components.copy_(components)
    chunks = standardized_chunks(model, images[:_SAMPLE])
    found = torch.cat([transform.of(pixels) for pixels in chunks]).cpu().double().numpy()
    for number, depth in enumerate(transform.depths):
        transform.values[number, : 2**depth] = torch.from_numpy(lloyd(found[:, number], 2**depth))


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
    """Raise the mean PSNR by the networks and the values; the components stay.

    fit: whether `fit_transform` comes first. Rounding is ignored backwards.
    """
    batches = Batches(images, preset.batch, seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=preset.learning_rate, weight_decay=0.0, fused=True
    )
    bfloat16 = has_bfloat16(device)

    def update(step: int, steps: int) -> dict[str, float]:
        set_rate(optimizer, preset.learning_rate, step, steps)
        batch = flipped(batches[step], np.random.default_rng((seed, _FLIP, step)))
        pixels = model.standardize(torch.from_numpy(batch).to(device))
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
            coefficients = model.coefficients(pixels)
            picture = model.picture(_straight_through(model.transform, coefficients))
        loss = mean_log_error(picture, pixels)
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
        scale=0.0,
        steps=preset.steps,
        minutes=minutes,
    )
    _put_in_order(model.transform)


def mean_log_error(pictures: Tensor, pixels: Tensor) -> Tensor:
    """The mean over images of the logarithm of the squared error: what PSNR is the negative of.

    pictures, pixels: float, standardised, of one shape.
    """
    errors = (pictures.float() - pixels).square().flatten(1).mean(dim=1)
    return errors.clamp_min(_LEAST_ERROR).log().mean()


def _straight_through(transform: Coefficients, coefficients: Tensor) -> Tensor:
    """The values that coefficients are rounded to; gradients pass to both.

    To a coefficient only while it lies between its outermost values: one beyond them
    would run away, since however far it goes, what it is rounded to stays.
    """
    rounded = transform.rounded(transform.levels(coefficients))
    lowest, highest = (part.detach() for part in transform.extremes())
    within = torch.maximum(torch.minimum(coefficients, highest), lowest)
    return rounded + (within - within.detach())


@torch.no_grad()
def _put_in_order(transform: Coefficients) -> None:
    """Number a coefficient's values by size again, should training have changed their order."""
    for values, depth in zip(transform.values, transform.depths, strict=True):
        used = values[: 2**depth]
        used.copy_(used.sort().values)
