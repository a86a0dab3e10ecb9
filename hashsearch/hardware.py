"""The processor cores this process may use, and what a device is called."""

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from hashsearch.wording import counted

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "<microseconds or max> <of so many microseconds>"


def usable_cores() -> int:
    """Number of cores allowed by affinity (`taskset`) and the cgroup's quota, at least 1."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = _QUOTA.read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)


def describe(device: str) -> str:
    """The name of a torch device, such as "AMD EPYC, 2 threads", for cards and reports."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    name = cpu_capabilities().get("cpu_name", "CPU")
    return f"{name}, {counted(torch.get_num_threads(), 'thread')}"


def cpu_capabilities() -> dict[str, Any]:
    """The processor's name and instruction sets; empty before PyTorch 2.13."""
    import torch

    known = getattr(torch.cpu, "get_capabilities", None)
    return known() if known else {}
