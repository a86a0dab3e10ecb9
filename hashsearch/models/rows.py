"""Layers that round an image's values alike in batches of eight and of other sizes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EIGHT = 8  # the encoder's usual batch


def in_eight_rows(product: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Compute product(rows), with rows of zeros added to fewer than 8.

    product: (n, inputs) float to (n, outputs) float, which treats each row alike. A matrix
    product of fewer rows may be computed by another kernel, which rounds differently.
    """
    missing = max(EIGHT - len(rows), 0)
    return product(F.pad(rows, (0, 0, 0, missing)))[: len(rows)] if missing else product(rows)


class EightRows(nn.Linear):
    """A linear layer that is computed on at least 8 rows."""

    def forward(self, rows: Tensor) -> Tensor:
        return in_eight_rows(super().forward, rows)


class EightAtATime(nn.Module):
    """Applies layers to 8 rows at a time."""

    def __init__(self, layers: nn.Module):
        super().__init__()
        self.layers = layers

    def forward(self, rows: Tensor) -> Tensor:
        parts = [self.layers(part) for part in rows.split(EIGHT)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]
