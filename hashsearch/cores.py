"""How many processor cores this process may use."""

import os


def usable_cores() -> int:
    """Those it is held to, by `taskset` or a container, where the system tells; or all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
