"""Learning-rate schedules over a stage, as a share of the full rate.

progress: completed share of the stage, from 0 to 1. Rates are tensors on the optimizer's
device, because a captured CUDA graph would freeze a Python number.
"""

import math

import torch

_WARM_UP = 0.03  # share of a stage during which the rate rises
DECAY = 0.75  # progress at which `plateau` starts to fall


def cosine(progress: float) -> float:
    """Rise over the first 3%, then fall along a cosine to zero."""
    return _warmed(progress) * 0.5 * (1 + math.cos(math.pi * progress))


def plateau(progress: float) -> float:
    """Rise over the first 3%, stay constant, and fall linearly to zero in the last quarter.

    Between warm-up and `DECAY` a step does not depend on the stage's length, so a longer
    training can branch off there.
    """
    return _warmed(progress) * falling(progress)


def falling(progress: float) -> float:
    """1 until `DECAY`, then linearly to zero."""
    return min(1.0, (1 - progress) / (1 - DECAY))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate in place; the optimizer must have been created with a tensor."""
    for group in optimizer.param_groups:
        group["lr"].fill_(rate)


def _warmed(progress: float) -> float:
    return min(1.0, progress / _WARM_UP + 1e-3)
