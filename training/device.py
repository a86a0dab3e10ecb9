"""Which device to train on, and what it can do."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hashsearch.errors import TrainingError


def choose_device(name: str | None = None) -> str:
    """The device of that name, or CUDA where there is one and the CPU otherwise.

    Raises TrainingError if there is no such device here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch has no one class for this
        raise TrainingError(f"there is no device {name!r} here; cpu is always one") from error
    if name.startswith("cuda"):
        torch.backends.cudnn.benchmark = True  # shapes stay the same
    return name


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware; elsewhere it is slower than float32."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = _cpu_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def describe(device: str) -> str:
    """The device in words, for a model's card."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    name = _cpu_capabilities().get("cpu_name", "CPU")
    return f"{name}, {torch.get_num_threads()} threads"


def exact(numbers: Tensor) -> Tensor:
    """In float64; on the CPU where the device has none, as Apple's GPUs."""
    return (numbers.cpu() if numbers.device.type == "mps" else numbers).double()


def seed_of(*numbers: int) -> int:
    """A seed that these numbers alone decide."""
    (state,) = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return int(state >> np.uint64(1))


def generator(device: str, *numbers: int) -> torch.Generator:
    """A source of randomness that these numbers alone decide."""
    return torch.Generator(device).manual_seed(seed_of(*numbers))


def autocast(device: str) -> torch.autocast:
    """Products in bfloat16 where the device has it, in float32 elsewhere."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=has_bfloat16(device))


def _cpu_capabilities() -> dict[str, Any]:
    known = getattr(torch.cpu, "get_capabilities", None)  # not in PyTorch before 2.13
    return known() if known else {}
