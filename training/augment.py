"""Random views of tiny images: crops, mirrored, in other colours."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.presets import Views

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma


def random_views(tiny: Tensor, views: Views, generator: torch.Generator) -> Tensor:
    """One view of each image.

    tiny: (n, 32, 32, 3) uint8. Returns (n, 3, 32, 32) float32 grey levels, 0 to
    255. generator: on the images' device.
    Source: the augmentations of Chen et al. 2020, arXiv:2002.05709, without blur.
    """
    images = tiny.permute(0, 3, 1, 2).float()
    return _recoloured(_cropped(images, views, generator), views, generator).clamp_(0, 255)


def flipped(batch: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """(n, 32, 32, 3) uint8 images, each mirrored with chance one half."""
    mirrored = random.random(len(batch)) < 0.5
    return np.where(mirrored[:, None, None, None], batch[:, :, ::-1], batch)


def _cropped(images: Tensor, views: Views, generator: torch.Generator) -> Tensor:
    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(len(images), generator=generator, device=images.device)
        return low + (high - low) * drawn

    area, aspect = uniform(views.smallest, 1), uniform(math.log(3 / 4), math.log(4 / 3)).exp()
    width = (area * aspect).sqrt().clamp(max=1)
    height = (area / aspect).sqrt().clamp(max=1)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    affine = torch.zeros(len(images), 2, 3, device=images.device)
    affine[:, 0, 0], affine[:, 1, 1] = width * mirror, height
    affine[:, 0, 2] = uniform(-1, 1) * (1 - width)
    affine[:, 1, 2] = uniform(-1, 1) * (1 - height)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _recoloured(images: Tensor, views: Views, generator: torch.Generator) -> Tensor:
    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device)
        return low + (high - low) * drawn

    weights = images.new_tensor(_GREY).view(1, 3, 1, 1)
    change = (uniform(0, 1) < views.jitter).float() * views.strength
    brightness, contrast, saturation = (1 + change * uniform(-1, 1) for _ in range(3))
    tint = 1 + change / 4 * (
        torch.rand(len(images), 3, 1, 1, generator=generator, device=images.device) * 2 - 1
    )  # stands in for a turn of the hue, at a fraction of its cost
    saturation = torch.where(uniform(0, 1) < views.grey, 0.0, saturation)
    grey = (images * weights).sum(dim=1, keepdim=True)
    images = grey + (images - grey) * saturation
    middle = grey.mean(dim=(2, 3), keepdim=True)
    images = middle + (images - middle) * contrast
    return images * brightness * torch.where(saturation == 0, 1.0, tint)
