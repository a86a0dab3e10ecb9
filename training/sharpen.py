"""Read a code anew from the same features, so that its bits tell more: in closed form."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hashsearch.errors import TrainingError
from hashsearch.models.binarize import binarize
from hashsearch.models.convolutional import ConvolutionalAutoencoder
from hashsearch.progress import progress_report

_SAMPLE = 50_000  # images at most, the first of a job's shuffled ones
_CHUNK = 500
_ROUNDS = 50  # of rotation at most; a sample of 50,000 images then changes by a few bits a round
_HIGHEST_POWER = 16.0
_ROUNDING = 1e-9  # shares of variance below it may be rounding alone
_RIDGE = 1e-3  # of the features' mean variance


@torch.no_grad()
def sharpen(
    model: ConvolutionalAutoencoder, images: NDArray[np.uint8], pictured: int, directions: float
) -> None:
    """Replace the code's linear map of the features by a better one.

    The first `pictured` bits then tell of the picture: what a linear map of the
    features tells of the pixels, by its principal components.

    The others had been spread over nearly all directions alike by the coding rate.
    Every principal component of their logits is multiplied by a power of its
    variance, the least with which no more than `directions` effective ones are left
    (the exponential of the entropy of the variances' shares), so that a code that is
    as sharp already is only rotated.

    Both are rotated so that rounding to bits changes them least. docs/experiments.md
    tells what that gains and costs. The decoder's first layer is led from the new bits
    to the old ones, as well as a linear map can.
    Raises TrainingError if the logits are not numbers, or alike for all images.
    """
    training = model.training
    model.eval()
    sample = images[:_SAMPLE]
    features = _features(model, sample)
    before = model.code(features)
    product, norm = model.code
    assert isinstance(product, nn.Linear)
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None
    assert norm.running_var is not None

    scale = (norm.running_var + norm.eps).rsqrt()[pictured:]
    sharp = sharper(before[:, pictured:], directions)
    maps = [sharp.T @ (scale[:, None] * product.weight[pictured:])]
    if pictured:
        pixels = model.standardize(torch.from_numpy(sample).to(features.device)).flatten(1)
        maps.insert(0, picture_map(features, pixels, pictured).T)
    weight = torch.cat(maps)
    weight /= (features @ weight.T).std(dim=0)[:, None]
    weight *= product.weight.norm() / weight.norm()  # for further training; bits do not tell
    logits = features @ weight.T
    product.weight.copy_(weight)
    norm.running_mean.copy_(logits.mean(dim=0))
    norm.running_var.copy_(logits.var(dim=0))
    _reread(model.decoder[0], _signs(before), _signs(logits - logits.mean(dim=0)))
    model.train(training)


def sharper(logits: Tensor, directions: float) -> Tensor:
    """(n_bits, n_bits): what amplifies the main directions of (n, n_bits) logits and rotates them.

    Raises TrainingError if the logits are not numbers, or alike in every row.
    """
    centred = logits - logits.mean(dim=0)
    exact = centred.double()
    covariance = exact.T @ exact / len(exact)
    if not covariance.trace() > _ROUNDING * logits.double().square().sum(dim=1).mean():  # or NaN
        raise TrainingError("the code is no number, or the same for all images; no model was saved")
    variances, components = torch.linalg.eigh(covariance)
    amplified = (components * _amplification(variances, directions)).to(logits.dtype)
    return amplified @ itq_rotation(centred @ amplified, components.T.to(logits.dtype))


def picture_map(features: Tensor, pixels: Tensor, count: int) -> Tensor:
    """(n_features, count): what features tell of pixels, in as many numbers, rotated.

    Reduced-rank regression: pixels predicted by ridge regression, then the principal
    components of the prediction. Each is divided by the square root of its deviation,
    halfway to weighing alike, since a bit tells as much of the last as of the first.
    """
    centred = features - features.mean(dim=0)
    products = centred.T @ centred / len(centred)
    products.diagonal().add_(_RIDGE * products.diagonal().mean())
    slopes = torch.linalg.solve(products, centred.T @ (pixels - pixels.mean(dim=0)) / len(centred))
    predicted = (slopes.T @ products @ slopes).double()  # its covariance
    variances, components = torch.linalg.eigh(predicted)
    kept = components[:, -count:] * variances[-count:].clamp_min(_ROUNDING) ** -0.25
    told = slopes @ kept.to(slopes.dtype)
    return told @ itq_rotation(centred @ told, _some_rotation(count).to(told))


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


def _features(model: ConvolutionalAutoencoder, images: NDArray[np.uint8]) -> Tensor:
    device = model.pixel_mean.device
    chunks = []
    with progress_report("sharpening", len(images)) as report:
        for start in range(0, len(images), _CHUNK):
            chunk = torch.from_numpy(images[start : start + _CHUNK]).to(device)
            chunks.append(model.features(model.standardize(chunk)))
            report.advance(len(chunk))
    return torch.cat(chunks)


def _signs(logits: Tensor) -> Tensor:
    return binarize(logits) * 2 - 1


def _reread(first: nn.Module, before: Tensor, after: Tensor) -> None:
    """Let the decoder's first layer, which read signs `before`, read `after`, (n, n_bits) each.

    By ridge regression of the old signs on the new. The ridge is small where images
    are many, and holds to what little a few of them tell.
    """
    assert isinstance(first, nn.Linear)
    count, bits = after.shape
    old, new = (signs - signs.mean(dim=0) for signs in (before, after))
    ridge = bits / count * torch.eye(bits, device=new.device)
    old_from_new = torch.linalg.solve(new.T @ new / count + ridge, new.T @ old / count)
    constant = before.mean(dim=0) - after.mean(dim=0) @ old_from_new
    first.bias.add_(first.weight @ constant)
    first.weight.copy_(first.weight @ old_from_new.T)
