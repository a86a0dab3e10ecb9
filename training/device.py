"""Choice of the training device, its number formats, and seeded random generators."""

import numpy as np
import torch
from torch import Tensor

from hashsearch.errors import TrainingError
from hashsearch.hardware import cpu_capabilities


def choose_device(name: str | None = None) -> str:
    """Return the named device; without a name, CUDA if available and the CPU otherwise.

    Raises TrainingError if the device does not exist.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch has no single class for this
        raise TrainingError(f"device {name!r} is not available here; 'cpu' always is") from error
    if name.startswith("cuda"):
        torch.backends.cudnn.benchmark = True  # batch shapes do not change
    return name


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware; in software it is slower than float32."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = cpu_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def exact(numbers: Tensor) -> Tensor:
    """Convert to float64, on the CPU if the device lacks it (Apple's GPUs)."""
    return (numbers.cpu() if numbers.device.type == "mps" else numbers).double()


def seed_of(*numbers: int) -> int:
    """A 63-bit seed determined by these numbers."""
    (state,) = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(state >> np.uint64(1))


def generator(device: str, *numbers: int) -> torch.Generator:
    """A random generator whose seed is determined by these numbers."""
    return torch.Generator(device).manual_seed(seed_of(*numbers))


def autocast(device: str) -> torch.autocast:
    """Matrix products in bfloat16 if the device supports it in hardware, else in float32."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=has_bfloat16(device))
