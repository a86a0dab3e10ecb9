"""JPEG's loss on a batch of images, computed on their device."""

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
_Table = tuple[tuple[float, ...], ...]
_YCC = (_GREY, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
# JPEG's tables for quality 50, ITU-T T.81, annex K.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8 for _ in range(4)),
)


def recompressed(images: Tensor, quality: Tensor) -> Tensor:
    """Pixels after JPEG compression with halved chroma, as Pillow would return them.

    images: (n, 3, h, w) float levels, h and w multiples of 16; quality: (n,) float, 1 to 100,
    one for each image.
    Source: ITU-T T.81; libjpeg's scale of quality and its chroma of half the sides.
    """
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None]
    y, blue, red = _mixed(images, _YCC).unbind(dim=1)
    chroma = F.avg_pool2d(torch.stack((blue, red), dim=1), 2)
    planes = [
        _rounded_blocks(y[:, None] - 128, scale, _LUMA),
        _rounded_blocks(chroma, scale, _CHROMA),
    ]
    enlarged = F.interpolate(planes[1], scale_factor=2.0, mode="bilinear", align_corners=False)
    ycc = torch.cat((planes[0] + 128, enlarged), dim=1)
    return _mixed(ycc, _RGB).round().clamp(0, 255)


def _mixed(images: Tensor, weights: _Table) -> Tensor:
    """(n, 3, h, w) channels, mixed by (3, 3) weights."""
    return torch.einsum("ij,njhw->nihw", _on(images.device, weights), images)


@cache
def _on(device: torch.device, numbers: _Table) -> Tensor:
    """The numbers on the device; a CUDA graph must not copy them there again."""
    return torch.tensor(numbers, dtype=torch.float32, device=device)


def _rounded_blocks(planes: Tensor, scale: Tensor, table: _Table) -> Tensor:
    """Transform blocks of 8×8, divide them by the scaled table, round, and transform back.

    planes: (n, channels, h, w); scale: (n, 1, 1), percent.
    """
    steps = ((_on(planes.device, table) * scale + 50) / 100).floor().clamp(1, 255)
    steps = steps[:, None, None, None]  # for every channel, row and column of blocks
    numbers = torch.arange(8, device=planes.device)
    cosines = torch.cos((2 * numbers + 1) * numbers[:, None] * (math.pi / 16)) / 2
    cosines[0] /= math.sqrt(2)
    blocks = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)
    rounded = (cosines @ blocks @ cosines.T / steps).round() * steps
    return (cosines.T @ rounded @ cosines).transpose(3, 4).flatten(4, 5).flatten(2, 3)
