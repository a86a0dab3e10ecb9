"""The learning rate over a stage, as a share of the full rate.

progress is how much of the stage is done, from 0 to 1. Rates are tensors on the
optimizer's device, because a captured CUDA graph would freeze a Python number.
"""

import math

import torch

_WARM_UP = 0.03  # share of a stage over which the rate rises
DECAY = 0.75  # progress from which `plateau` falls


def cosine(progress: float) -> float:
    """Rise over the first 3%, then fall along a cosine to zero."""
    return _warmed(progress) * 0.5 * (1 + math.cos(math.pi * progress))


def plateau(progress: float) -> float:
    """Rise over the first 3%, stay, and fall along a line to zero in the last quarter.

    From the warm-up to `DECAY` a step does not depend on how long the stage will be, so
    that a longer training can branch off there.
    """
    return _warmed(progress) * falling(progress)


def falling(progress: float) -> float:
    """1 until `DECAY`, then along a line to zero."""
    return min(1.0, (1 - progress) / (1 - DECAY))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Fill in a rate; `optimizer` was made with a tensor for one."""
    for group in optimizer.param_groups:
        group["lr"].fill_(rate)


def _warmed(progress: float) -> float:
    return min(1.0, progress / _WARM_UP + 1e-3)
