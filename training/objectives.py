"""What a code should be: alike for two views of an image, and spread over all codes.

Every function takes logits of two views of the same n images, (n, n_bits)
float32 each, and returns a scalar; but for `coding_rate`, of one view, to be made large.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hashsearch.models.binarize import binarize

_LEAST_ERROR = 1e-4  # of standardised pixels, squared; a picture of one colour would count for all


def variance_lost(one: Tensor, two: Tensor) -> Tensor:
    """1 - mean cosine between the two views' logits: 0 where they are the same."""
    return 1 - F.cosine_similarity(one, two).mean()


def coding_rate(logits: Tensor, distortion: float = 0.2) -> Tensor:
    """Half the log-volume of the logits' directions in balls of this squared radius, in nats.

    Large where the directions are spread evenly over all n_bits dimensions,
    that is, where bits are balanced and independent.
    Source: Yu et al. 2020, arXiv:2006.08558, equation 7; Tong et al. 2023,
    arXiv:2304.03977.
    """
    count, bits = logits.shape
    directions = F.normalize(logits)
    covariance = directions.T @ directions
    scaled = torch.eye(bits, device=logits.device) + covariance * (bits / (count * distortion))
    factor, failed = torch.linalg.cholesky_ex(scaled)  # raises nothing: the job tells of NaN
    return torch.where(failed == 0, factor.diagonal().log().sum(), torch.nan)


def contrastive(one: Tensor, two: Tensor, temperature: float = 0.2) -> Tensor:
    """Cross-entropy of picking out an image's other view by the bits alone.

    Similarity is the mean product of bits as ±1, 1 - 2·distance/n_bits.
    Source: NT-Xent of Chen et al. 2020, arXiv:2002.05709, on rounded codes.
    """
    count, bits = one.shape
    signs = binarize(torch.cat((one, two))) * 2 - 1
    similarity = signs @ signs.T / (bits * temperature)
    similarity.fill_diagonal_(float("-inf"))
    others = torch.arange(2 * count, device=one.device).roll(count)
    return F.cross_entropy(similarity, others)


def spread_and_alike(one: Tensor, two: Tensor) -> dict[str, Tensor]:
    """The terms above by name, each as it enters the loss before its weight."""
    rate = (coding_rate(one) + coding_rate(two)) / 2
    return {
        "invariance": variance_lost(one, two),
        "rate": -rate,
        "contrast": contrastive(one, two),
    }


def mean_log_error(pictures: Tensor, pixels: Tensor) -> Tensor:
    """The mean over images of the logarithm of the squared error: what PSNR is the negative of.

    pictures, pixels: float, standardised, of one shape.
    """
    errors = (pictures.float() - pixels).square().flatten(1).mean(dim=1)
    return errors.clamp_min(_LEAST_ERROR).log().mean()
