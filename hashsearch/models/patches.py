"""Layers that refine a picture, which they process as 8×8 patches of 4×4 pixels."""

import torch
from torch import Tensor, nn

PATCH = 4  # pixels a side
PATCH_VALUES = 3 * PATCH**2


class Residual(nn.Module):
    """A residual block without normalisation, so that each picture is processed on its own."""

    def __init__(self, width: int):
        super().__init__()
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        added: Tensor = self.outer(torch.relu(self.inner(maps)))
        return maps + added


def into_patches(width: int) -> nn.Sequential:
    """(n, 3, 32, 32) to (n, width, 8, 8) float."""
    return nn.Sequential(nn.PixelUnshuffle(PATCH), nn.Conv2d(PATCH_VALUES, width, 3, padding=1))


def from_patches(width: int) -> tuple[nn.Module, ...]:
    """(n, width, 8, 8) to (n, 3, 32, 32) float."""
    return nn.Conv2d(width, PATCH_VALUES, 3, padding=1), nn.PixelShuffle(PATCH)


def refinement(width: int, *last: nn.Module) -> nn.Sequential:
    """Residual blocks on (n, width, 8, 8) float, then `last`, which at first returns zeros."""
    for module in last:
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
    return nn.Sequential(Residual(width), Residual(width), nn.ReLU(), *last)
