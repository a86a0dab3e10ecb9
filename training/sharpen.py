"""Make the code of what training made: fewer bits, that tell more. In closed form."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hashsearch.errors import TrainingError
from hashsearch.models.binarize import binarize
from hashsearch.models.convolutional import ConvolutionalAutoencoder
from hashsearch.progress import progress_report
from training.device import exact
from training.likeness import agreement
from training.targets import Targets

_SAMPLE = 50_000  # images at most, the first of a job's shuffled ones
_CHUNK = 500
_ROUNDS = 50  # of rotation at most; a sample of 50,000 images then changes by a few bits a round
_HIGHEST_POWER = 16.0
_ROUNDING = 1e-9  # shares of variance below it may be rounding alone


@torch.no_grad()
def make_code(
    model: ConvolutionalAutoencoder, images: NDArray[np.uint8], directions: float
) -> None:
    """Make the bits of what was seen of the head's logits, see `sharpened`.

    Code and address are centred on the images as they are; they had been on random views.
    Raises TrainingError if the logits are not numbers, or alike for all images.
    """
    model.eval()
    features = features_of(model, images[:_SAMPLE])
    weight, *_ = _parts(model.code)
    weight.copy_(sharpened(model, features, directions))
    _centre(model, features)


@torch.no_grad()
def choose_code(
    model: ConvolutionalAutoencoder,
    images: NDArray[np.uint8],
    directions: float,
    targets: Targets,
    held_out: NDArray[np.uint8],
) -> bool:
    """Keep the bits that a teacher's targets trained, or make others of the head's logits.

    Those are kept whose nearest neighbours are more alike to the teacher, of images held
    out of the training; no label is asked. Returns whether they are the trained ones.
    """
    model.eval()
    device = str(model.pixel_mean.device)
    features, asked = features_of(model, images[:_SAMPLE]), features_of(model, held_out)
    own, *_ = _parts(model.code)
    made = sharpened(model, features, directions)

    def agrees(weight: Tensor) -> float:
        gallery, queries = features @ weight.T, asked @ weight.T
        middle = gallery.mean(dim=0)
        wanted = (targets.of(part, device) for part in (images[: len(features)], held_out))
        return agreement(gallery >= middle, next(wanted), queries >= middle, next(wanted))

    kept = agrees(own) > agrees(made)
    if not kept:
        own.copy_(made)
    _centre(model, features)
    return kept


def _centre(model: ConvolutionalAutoencoder, features: Tensor) -> None:
    for layers in (model.code, model.address):
        weight, mean, variance, _ = _parts(layers)
        logits = features @ weight.T
        mean.copy_(logits.mean(dim=0))
        variance.copy_(logits.var(dim=0))


def sharpened(model: ConvolutionalAutoencoder, features: Tensor, directions: float) -> Tensor:
    """(bits, features): the code's weight, made of the head's, which has more logits.

    The coding rate has spread the head's over nearly all directions alike. The main
    principal components are kept, as many as there are bits, and each multiplied by a
    power of its variance: the least with which no more than `directions` effective
    ones are left (the exponential of the entropy of the variances' shares). Then they
    are rotated so that rounding to bits changes them least. docs/experiments.md tells
    what that gains.
    """
    head, _, variance, eps = _parts(model.head)
    code, *_ = _parts(model.code)
    sharp = sharper(model.head(features), len(code), directions)
    weight = sharp.T @ (head / (variance + eps).sqrt()[:, None])
    return weight / (features @ weight.T).std(dim=0)[:, None]


def sharper(logits: Tensor, bits: int, directions: float) -> Tensor:
    """(n_logits, bits): what amplifies the main directions of (n, n_logits) and rotates them.

    Raises TrainingError if the logits are not numbers, or alike in every row.
    """
    centred = logits - logits.mean(dim=0)
    rows = exact(centred)
    covariance = rows.T @ rows / len(rows)
    if not covariance.trace() > _ROUNDING * exact(logits).square().sum(dim=1).mean():  # or NaN
        raise TrainingError("the code is no number, or the same for all images; no model was saved")
    variances, components = (part[..., -bits:] for part in torch.linalg.eigh(covariance))
    amplified = (components * _amplification(variances, directions)).to(logits)
    return amplified @ itq_rotation(centred @ amplified, _some_rotation(bits).to(amplified))


def effective_directions(variances: Tensor) -> float:
    """Over how many directions variances are spread: from 1 to their number, were they equal."""
    shares = variances / variances.sum()
    return float(torch.special.entr(shares).sum().exp())


def itq_rotation(rows: Tensor, rotation: Tensor) -> Tensor:
    """Rotate rows so that they come nearer to their signs, from `rotation`, until none changes.

    rows: (n, n_bits) float; rotation and what is returned: (n_bits, n_bits), orthogonal.
    Source: iterative quantization, Gong and Lazebnik 2011.
    """
    signs = _signs(rows @ rotation)
    for _ in range(_ROUNDS):
        left, _, right = torch.linalg.svd(rows.T @ signs)
        rotation = left @ right
        before, signs = signs, _signs(rows @ rotation)
        if torch.equal(signs, before):
            break
    return rotation


def _some_rotation(size: int) -> Tensor:
    """Any one, always the same: components themselves are where rounding is far from best."""
    gaussian = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    rotation, _ = torch.linalg.qr(gaussian)
    return rotation


def _amplification(variances: Tensor, directions: float) -> Tensor:
    """What to multiply each component by: its variance to the least power that suffices."""
    shares = (variances / variances.max()).clamp_min(_ROUNDING)

    def left(power: float) -> float:
        return effective_directions(shares ** (2 * power + 1))

    low, high = 0.0, _HIGHEST_POWER
    if left(low) <= directions:
        return torch.ones_like(shares)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) > directions else (low, middle)
    return shares**high


def features_of(model: ConvolutionalAutoencoder, images: NDArray[np.uint8]) -> Tensor:
    device = model.pixel_mean.device
    chunks = []
    with progress_report("sharpening", len(images)) as report:
        for start in range(0, len(images), _CHUNK):
            chunk = torch.from_numpy(images[start : start + _CHUNK]).to(device)
            chunks.append(model.features(model.standardize(chunk)))
            report.advance(len(chunk))
    return torch.cat(chunks)


def _parts(layers: nn.Sequential) -> tuple[Tensor, Tensor, Tensor, float]:
    """Weight, and the mean, variance and epsilon of its normalisation."""
    product, norm = layers
    assert isinstance(product, nn.Linear)
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return product.weight, norm.running_mean, norm.running_var, norm.eps


def _signs(logits: Tensor) -> Tensor:
    return binarize(logits) * 2 - 1
