"""Random augmentations of tiny images: crops, mirroring, colour changes."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.jpeg import recompressed

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma


@dataclass(frozen=True, slots=True)
class Views:
    """Strengths and probabilities of the augmentations.

    smallest: smallest crop, as a share of the image's area. jitter: probability of a
    colour change. brightness, contrast, saturation: each is multiplied by a factor between
    1 - x and 1 + x. hue: largest rotation in either direction, as a share of the circle.
    tint: each channel is multiplied by a factor between 1 - x and 1 + x, a cheap substitute
    for hue. grey: probability of a conversion to grey. solarise: probability that levels
    of 128 and above are inverted. noise: largest standard deviation of Gaussian noise, in
    levels. recompress: probability of JPEG compression, of quality 30 to 95. hole: side, in
    pixels, of a square of one colour, the image's mean; where it crosses the edge, less of it
    is seen.
    """

    smallest: float = 0.25
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.0
    tint: float = 0.1
    grey: float = 0.2
    solarise: float = 0.0
    noise: float = 0.0
    recompress: float = 0.0
    hole: int = 0


def random_views(tiny: Tensor, views: Views, random: torch.Generator) -> Tensor:
    """Draw one view of each image.

    tiny: (n, 32, 32, 3) uint8. random: a generator on the images' device. Returns
    (n, 3, 32, 32) float32 levels, 0 to 255.
    Source: the augmentations of Chen et al. 2020, arXiv:2002.05709, without blur;
    solarisation from Grill et al. 2020, arXiv:2006.07733; holes from DeVries and Taylor 2017,
    arXiv:1708.04552.
    """
    images = tiny.permute(0, 3, 1, 2).float()
    images = _recoloured(_cropped(images, views, random), views, random).clamp_(0, 255)

    def uniform() -> Tensor:
        return torch.rand(len(images), 1, 1, 1, generator=random, device=images.device)

    if views.solarise:
        chosen = (uniform() < views.solarise) & (images >= 128)
        images = torch.where(chosen, 255 - images, images)
    if views.noise:
        deviation = views.noise * uniform()
        drawn = torch.randn(images.shape, generator=random, device=images.device)
        images = (images + deviation * drawn).clamp(0, 255)
    if views.recompress:
        compressed = recompressed(images, quality=30 + 65 * uniform().flatten())
        images = torch.where(uniform() < views.recompress, compressed, images)
    if views.hole:
        images = _with_holes(images, views.hole, random)
    return images


def flipped(tiny: Tensor, random: torch.Generator) -> Tensor:
    """Mirror each of (n, 32, 32, 3) uint8 images with probability one half."""
    mirrored = torch.rand(len(tiny), 1, 1, 1, generator=random, device=tiny.device) < 0.5
    return torch.where(mirrored, tiny.flip(2), tiny)


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue of HSV; value and saturation stay the same.

    images: (n, 3, h, w) float of any scale; turns: (n, 1, 1) float, 1 is a full circle.
    """
    value, low = images.amax(dim=1), images.amin(dim=1)
    chroma = value - low
    red, green, blue = images.unbind(dim=1)
    divisor = torch.where(chroma == 0, 1.0, chroma)
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    hue = hue + 6 * turns
    channels = []
    for offset in (5, 3, 1):  # of red, green and blue, in sixths of the circle
        place = (hue + offset) % 6
        channels.append(value - chroma * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.stack(channels, dim=1)


def _cropped(images: Tensor, views: Views, random: torch.Generator) -> Tensor:
    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(len(images), generator=random, device=images.device)
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


def _recoloured(images: Tensor, views: Views, random: torch.Generator) -> Tensor:
    def drawn(channels: int = 1) -> Tensor:
        """(n, channels, 1, 1) uniform between -1 and 1."""
        numbers = torch.rand(len(images), channels, 1, 1, generator=random, device=images.device)
        return 2 * numbers - 1

    if not views.jitter and not views.grey:
        return images
    changes = (drawn() < 2 * views.jitter - 1).float()
    brightness, contrast, saturation = (
        1 + changes * strength * drawn()
        for strength in (views.brightness, views.contrast, views.saturation)
    )
    tint = 1 + changes * views.tint * drawn(3) if views.tint else 1.0
    saturation = torch.where(drawn() < 2 * views.grey - 1, 0.0, saturation)
    if views.hue:
        images = turn_hue(images, (changes * views.hue * drawn())[:, 0])
    red, green, blue = (w * part for w, part in zip(_GREY, images.split(1, dim=1), strict=True))
    grey = red + green + blue
    images = grey + (images - grey) * saturation
    middle = grey.mean(dim=(2, 3), keepdim=True)
    images = middle + (images - middle) * contrast
    return images * brightness * torch.where(saturation == 0, 1.0, tint)


def _with_holes(images: Tensor, side: int, random: torch.Generator) -> Tensor:
    """Fill a square of each image, around a pixel drawn at random, with its mean colour."""

    def inside(length: int) -> Tensor:
        """(n, length) bool: which rows, or columns, the square covers."""
        starts = torch.randint(length, (len(images), 1), generator=random, device=images.device)
        behind = torch.arange(length, device=images.device) - (starts - side // 2)
        return (behind >= 0) & (behind < side)

    rows, columns = (inside(length) for length in images.shape[2:])
    holes = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(holes, images.mean(dim=(2, 3), keepdim=True), images)
