"""Views per second in training a teacher and its student, compared with the device's ceiling.

    python -m benchmarks.training [--device cuda] [--width 64] [--batch 512] [--seconds 10]

The steps are those of `hashsearch train`, on random images and targets. The ceiling is the
device's speed in products of large bfloat16 matrices (float32 if it lacks bfloat16), divided
by the operations that a view needs, as PyTorch counts them; memory traffic is ignored. On a
GPU, the losses of captured and uncaptured steps are also compared, and the loss and gradients
of one step with those of the CPU in float32, on the same views.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hashsearch.hardware import describe
from training import step as steps
from training.data import fit_standardization
from training.device import autocast, choose_device, has_bfloat16
from training.families import PRESETS
from training.families.base import Work
from training.families.convolutional import learn_likeness
from training.families.teacher import TeacherPreset, learn_pretext
from training.run import Run
from training.targets import DIRECTIONS, Targets, content_keys

_IMAGES = 4096
_WARM_STEPS = 8
_SIDE = 8192  # rows and columns of the matrices on a GPU; an eighth of it on a CPU
_CHECKED_STEPS = 12
Learn = Callable[[nn.Module, Any, Work], None]


class Stopwatch(Run):
    """A run that takes a stage's steps for some seconds, or a fixed number, and saves nothing."""

    def __init__(self, device: str, *, seconds: float = 0.0, count: int = 0):
        super().__init__(Path("/nowhere"), {}, (), resume=False, device=device)
        self._seconds, self._count = seconds, count
        self.losses: list[float] = []
        self.images_a_second = 0.0
        self.batch = 0

    def stage(self, name: str, parts: Any, update: Any, *, batch: int, **rest: Any) -> None:
        """Take the steps; with `count`, keep their losses, else measure the speed."""
        self.batch = batch
        if self._count:
            self.losses = [float(update(step, 0.5)["loss"]) for step in range(self._count)]
            return
        for step in range(_WARM_STEPS):
            measured = update(step, 0.5)
        float(measured["loss"])
        taken, started = 0, time.monotonic()
        while (spent := time.monotonic() - started) < self._seconds:
            for _ in range(4):
                measured = update(taken, 0.5)
                taken += 1
            float(measured["loss"])  # waits for the device
        self.images_a_second = taken * batch / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    device = choose_device(options.device)
    teacher = replace(PRESETS["teacher"], width=options.width, batch=options.batch)
    student = replace(PRESETS["conv256"], batch=options.batch)
    rate = product_rate(device)
    print(
        f"{describe(device)}, PyTorch {torch.__version__}; {rate / 1e12:.3g} TFLOP/s in products\n"
    )
    print("| what | views/s | GFLOP per view | ceiling, views/s | share |")
    print("| --- | --- | --- | --- | --- |")
    rows: list[tuple[str, Learn, Any, int]] = [
        (f"teacher of width {options.width}", learn_pretext, teacher, 2),
        ("conv256 of a teacher", learn_likeness, student, 2),
    ]
    for name, learn, preset, views in rows:
        watch = Stopwatch(device, seconds=options.seconds)
        take(learn, preset, watch, device)
        speed, needed = watch.images_a_second * views, operations(learn, preset) / views
        ceiling = rate / needed
        cells = f"{speed:,.0f} | {needed / 1e9:.3f} | {ceiling:,.0f} | {speed / ceiling:.0%}"
        print(f"| {name} | {cells} |", flush=True)
    if device != "cpu":
        print(f"\n{captured_against_not(teacher, device)}\n{against_the_cpu(teacher, device)}")


def take(learn: Learn, preset: Any, run: Run, device: str, images: int = _IMAGES) -> None:
    """Start a training on random images; the run decides which steps are taken."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    tiny = random.integers(0, 256, (images, 32, 32, 3), np.uint8)
    model = preset.build()
    fit_standardization(preset.saved(model), tiny)
    learn(model.to(device), preset, Work(run, tiny, 0, device, targets=_targets(tiny)))


def _targets(images: NDArray[np.uint8]) -> Targets:
    random = np.random.default_rng(1)
    rows = random.integers(-127, 128, (len(images), DIRECTIONS), np.int8)
    return Targets(np.sort(content_keys(images)), rows, {})


def product_rate(device: str) -> float:
    """Operations per second in a product of large matrices, the median of ten products."""
    on_cpu = torch.device(device).type == "cpu"
    side = _SIDE // 8 if on_cpu else _SIDE
    dtype = torch.bfloat16 if has_bfloat16(device) else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(12):
        started = time.perf_counter()
        (left @ right)[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / statistics.median(seconds[2:])


def operations(learn: Learn, preset: Any) -> float:
    """Floating-point operations per image of a step, without those of the optimizers.

    The optimizers' operations do not depend on the batch size, so they cancel in the
    difference between two batch sizes.
    """
    counts = []
    for batch in (32, 64):
        with FlopCounterMode(display=False) as counter:
            run = Stopwatch("cpu", count=1)
            take(learn, replace(preset, batch=batch), run, "cpu", images=2 * batch)
        counts.append((counter.get_total_flops(), run.batch))
    (fewer, small), (more, large) = counts
    return (more - fewer) / (large - small)


def captured_against_not(preset: TeacherPreset, device: str) -> str:
    """Compare the losses of a few steps with and without a CUDA graph."""
    losses = []
    for eager in (steps._EAGER, _CHECKED_STEPS):
        before, steps._EAGER = steps._EAGER, eager
        watch = Stopwatch(device, count=_CHECKED_STEPS)
        take(learn_pretext, preset, watch, device)
        steps._EAGER = before
        losses.append(watch.losses)
    difference = max(abs(a / b - 1) for a, b in zip(*losses, strict=True))
    return f"{_CHECKED_STEPS} losses with and without a graph differ by at most {difference:.1e}"


def against_the_cpu(preset: TeacherPreset, device: str) -> str:
    """Compare the loss and gradients of one step with the CPU's, on the same views."""
    torch.manual_seed(0)
    model = preset.build()
    views = torch.randn(2, 64, 3, 32, 32)
    results = [_loss_and_gradients(model, views, "cpu")]
    results.append(_loss_and_gradients(model.to(device), views.to(device), device))
    (loss, ours), (other, theirs) = results
    difference = (ours - theirs).norm() / ours.norm()
    return (
        f"relative to the CPU's float32: loss {other / loss - 1:+.1e}, gradients {difference:.1e}"
    )


def _loss_and_gradients(model: Any, views: Tensor, device: str) -> tuple[float, Tensor]:
    model.zero_grad()
    with autocast(device) if device != "cpu" else torch.autocast("cpu", enabled=False):
        terms: Mapping[str, Tensor] = model.terms(*views)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    gradients = [weights.grad.flatten().float().cpu() for weights in model.learners()]
    return loss.item(), torch.cat(gradients)


if __name__ == "__main__":
    main()
