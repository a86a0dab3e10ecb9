"""Compute the code's bits from the trained head's logits, in closed form (PCA and ITQ)."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hashsearch.errors import TrainingError
from hashsearch.models.convolutional import ConvolutionalAutoencoder
from hashsearch.progress import progress_report
from training.binarize import binarize
from training.device import exact
from training.likeness import agreement
from training.targets import Targets

_SAMPLE = 50_000  # images at most, the first in the job's shuffled order
_CHUNK = 500
_ROUNDS = 50  # ITQ iterations at most; 50,000 images then change by a few bits per iteration
_HIGHEST_POWER = 16.0
_ROUNDING = 1e-9  # a smaller share of the variance may be rounding error


@torch.no_grad()
def make_code(
    model: ConvolutionalAutoencoder, images: NDArray[np.uint8], directions: float
) -> None:
    """Compute the weight of the code from the head's logits, see `sharpened`.

    Code and address are centred on unaugmented images; in training they were centred on
    random views. Raises TrainingError if the logits are not finite, or equal for all images.
    """
    model.eval()
    features = features_of(model, images[:_SAMPLE])
    weight, *_ = _weight_and_norm(model.code)
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
    """Choose between the bits trained on a teacher's targets and bits computed from the head.

    The better bits are those whose nearest neighbours of held-out images have the more
    similar targets (see `agreement`); no labels are used. Returns whether the trained bits
    were kept.
    """
    model.eval()
    device = str(model.pixel_mean.device)
    features, query_features = features_of(model, images[:_SAMPLE]), features_of(model, held_out)
    trained, *_ = _weight_and_norm(model.code)
    computed = sharpened(model, features, directions)

    def agrees(weight: Tensor) -> float:
        gallery, queries = features @ weight.T, query_features @ weight.T
        mean = gallery.mean(dim=0)
        wanted = (targets.of(part, device) for part in (images[: len(features)], held_out))
        return agreement(gallery >= mean, next(wanted), queries >= mean, next(wanted))

    kept = agrees(trained) > agrees(computed)
    if not kept:
        trained.copy_(computed)
    _centre(model, features)
    return kept


@torch.no_grad()
def centre_code(model: ConvolutionalAutoencoder, images: NDArray[np.uint8]) -> None:
    """Centre the trained code and address on unaugmented images, as `make_code` does."""
    model.eval()
    _centre(model, features_of(model, images[:_SAMPLE]))


def _centre(model: ConvolutionalAutoencoder, features: Tensor) -> None:
    for layers in (model.code, model.address):
        weight, mean, variance, _ = _weight_and_norm(layers)
        logits = features @ weight.T
        mean.copy_(logits.mean(dim=0))
        variance.copy_(logits.var(dim=0))


def sharpened(model: ConvolutionalAutoencoder, features: Tensor, directions: float) -> Tensor:
    """Compute the code's weight, (bits, features), from the head, which has more logits.

    The coding rate has spread the head's logits almost evenly over all directions. The first
    principal components, one per bit, are kept, and each is multiplied by a power of its
    variance: the smallest power that leaves at most `directions` effective directions (see
    `effective_directions`). Then ITQ rotates them to minimise the error of rounding to bits.
    docs/experiments.md reports the gain.
    """
    head, _, variance, eps = _weight_and_norm(model.head)
    code, *_ = _weight_and_norm(model.code)
    sharp = sharper(model.head(features), len(code), directions)
    weight = sharp.T @ (head / (variance + eps).sqrt()[:, None])
    return weight / (features @ weight.T).std(dim=0)[:, None]


def sharper(logits: Tensor, bits: int, directions: float) -> Tensor:
    """Projection (n_logits, bits) that amplifies and rotates the first principal components.

    logits: (n, n_logits). Raises TrainingError if they are not finite, or equal in all rows.
    """
    given = exact(logits)
    rows = given - given.mean(dim=0)
    covariance = rows.T @ rows / len(rows)
    if not covariance.trace() > _ROUNDING * given.square().sum(dim=1).mean():  # or NaN
        raise TrainingError("the code is not finite, or equal for all images; no model was saved")
    variances, components = (part[..., -bits:] for part in torch.linalg.eigh(covariance))
    # Either sign is an eigenvector; which one LAPACK returns depends on the number of threads.
    largest = components.abs().argmax(dim=0, keepdim=True)
    components = components * components.gather(0, largest).sign()
    amplified = components * _amplification(variances, directions)
    # In float64 too, because ITQ magnifies rounding errors, and these vary in the same way.
    rotation = itq_rotation(rows @ amplified, _initial_rotation(bits).to(rows))
    return (amplified @ rotation).to(logits)


def effective_directions(variances: Tensor) -> float:
    """Exponential of the entropy of the variances' shares: 1 to their number, if all are equal."""
    shares = variances / variances.sum()
    return float(torch.special.entr(shares).sum().exp())


def itq_rotation(rows: Tensor, rotation: Tensor) -> Tensor:
    """Find a rotation that brings rows closer to their signs (iterative quantization).

    rows: (n, n_bits) float; rotation: the initial one, (n_bits, n_bits) orthogonal. Returns
    a rotation of the same shape, after at most 50 iterations or when no sign changes.
    Source: Gong and Lazebnik 2011.
    """
    signs = _signs(rows @ rotation)
    for _ in range(_ROUNDS):
        left, _, right = torch.linalg.svd(rows.T @ signs)
        rotation = left @ right
        before, signs = signs, _signs(rows @ rotation)
        if torch.equal(signs, before):
            break
    return rotation


def _initial_rotation(size: int) -> Tensor:
    """A fixed random rotation: ITQ starts badly from unrotated principal components."""
    gaussian = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    rotation, _ = torch.linalg.qr(gaussian.double())
    return rotation


def _amplification(variances: Tensor, directions: float) -> Tensor:
    """Factor of each component: its variance share to the smallest power that suffices."""
    shares = (variances / variances.max()).clamp_min(_ROUNDING)

    def remaining(power: float) -> float:
        return effective_directions(shares ** (2 * power + 1))

    low, high = 0.0, _HIGHEST_POWER
    if remaining(low) <= directions:
        return torch.ones_like(shares)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if remaining(middle) > directions else (low, middle)
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


def _weight_and_norm(layers: nn.Sequential) -> tuple[Tensor, Tensor, Tensor, float]:
    """The weight of a linear layer, and its batch norm's mean, variance and epsilon."""
    product, norm = layers
    assert isinstance(product, nn.Linear)
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return product.weight, norm.running_mean, norm.running_var, norm.eps


def _signs(logits: Tensor) -> Tensor:
    return binarize(logits) * 2 - 1
