"""The machine that a benchmark runs on, and how busy other programs keep it."""

import sys

import psutil

from hashsearch.hardware import cpu_capabilities, usable_cores


def hardware() -> str:
    """The processor, its cores and the machine's memory."""
    known = cpu_capabilities()
    with_avx512 = " with AVX-512" if known.get("avx512_vpopcntdq") else ""
    memory = psutil.virtual_memory().total / 2**30
    return f"{known.get('cpu_name', 'CPU')}{with_avx512}, {usable_cores()} cores, {memory:.0f} GB"


def seconds_of_others() -> float:
    """Seconds that other programs kept processors busy since the machine was started.

    Processes that this one started are others until it has waited for their end.
    """
    machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
    return float(sum(machine) - machine.idle - getattr(machine, "iowait", 0) - sum(own[:4]))


def percent_of_others(before: float, seconds: float) -> float:
    """The share of all processors that other programs used in the last seconds, in percent.

    before: `seconds_of_others` at their start. The system counts the time of processors and the
    time of processes in different ways, so the difference may be a little below 0; it counts as 0.
    """
    used = (seconds_of_others() - before) / seconds / (psutil.cpu_count() or 1)
    return max(0.0, 100 * used)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
