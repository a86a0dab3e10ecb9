"""Loss terms: codes should be equal for two views of an image, and spread over all codes.

`variance_lost`, `contrastive` and `spread_and_alike` take the logits of two views of the same
n images, (n, n_bits) float32 each; `coding_rate` takes those of one view and is maximised.
Every term is a scalar.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from training.binarize import binarize

_MIN_ERROR = 1e-4  # of standardised pixels, squared; else a picture of one colour would dominate


def variance_lost(one: Tensor, two: Tensor) -> Tensor:
    """1 - mean cosine similarity between the two views' logits; 0 if they are equal."""
    return 1 - F.cosine_similarity(one, two).mean()


def coding_rate(logits: Tensor, distortion: float = 0.2) -> Tensor:
    """Coding rate of the normalised logits Z: ½·log det(I + n_bits/(n·distortion)·ZᵀZ), in nats.

    distortion: a squared radius. The rate is large if the rows of Z are spread evenly over all
    n_bits dimensions, that is, if bits are balanced and independent.
    Source: Yu et al. 2020, arXiv:2006.08558, equation 7; Tong et al. 2023,
    arXiv:2304.03977.
    """
    count, bits = logits.shape
    directions = F.normalize(logits)
    covariance = directions.T @ directions
    scaled = torch.eye(bits, device=logits.device) + covariance * (bits / (count * distortion))
    factor, failed = torch.linalg.cholesky_ex(scaled)  # does not raise; the job reports NaN
    return torch.where(failed == 0, factor.diagonal().log().sum(), torch.nan)


def contrastive(one: Tensor, two: Tensor, temperature: float = 0.2) -> Tensor:
    """Cross-entropy of identifying an image's other view in the batch by the bits alone.

    Similarity is the mean product of the bits as ±1, 1 - 2·distance/n_bits.
    Source: NT-Xent of Chen et al. 2020, arXiv:2002.05709, on rounded codes.
    """
    count, bits = one.shape
    signs = binarize(torch.cat((one, two))) * 2 - 1
    similarity = signs @ signs.T / (bits * temperature)
    similarity.fill_diagonal_(float("-inf"))
    others = torch.arange(2 * count, device=one.device).roll(count)
    return F.cross_entropy(similarity, others)


def spread_and_alike(one: Tensor, two: Tensor) -> dict[str, Tensor]:
    """The unweighted terms of the loss by name; all are minimised."""
    rate = (coding_rate(one) + coding_rate(two)) / 2
    return {
        "invariance": variance_lost(one, two),
        "rate": -rate,
        "contrast": contrastive(one, two),
    }


def mean_log_error(pictures: Tensor, pixels: Tensor) -> Tensor:
    """Mean over images of the logarithm of the mean squared error; minimising it maximises PSNR.

    pictures, pixels: float, standardised, of the same shape.
    """
    errors = (pictures.float() - pixels).square().flatten(1).mean(dim=1)
    return errors.clamp_min(_MIN_ERROR).log().mean()
