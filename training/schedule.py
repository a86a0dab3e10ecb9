"""The learning rate over a stage's steps."""

import math

import torch

_WARM_UP = 0.03  # share of the steps over which the rate rises


def set_rate(optimizer: torch.optim.Optimizer, full: float, step: int, steps: int) -> None:
    """Rise to the full rate over the first 3% of the steps, then fall along a cosine to zero."""
    progress = step / steps
    rate = full * min(1.0, progress / _WARM_UP + 1e-3) * 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = rate
