"""Measure images encoded per second, and the time for one, by the default and dense models.

Input: tiny images; output: packed codes; one thread per core. The dense models
are untrained, since their speed does not depend on their weights.
"""

import statistics
import time

import numpy as np
import torch
from numpy.typing import NDArray

from hashsearch.encoder import Encoder
from hashsearch.hardware import describe, usable_cores
from hashsearch.models.autoencoder import Autoencoder
from hashsearch.models.card import PRETRAINED
from hashsearch.models.storage import read_model
from training.device import has_bfloat16
from training.families import PRESETS

_MANY, _ROUNDS, _SINGLES = 2048, 5, 100


def main() -> None:
    torch.set_num_threads(usable_cores())
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (_MANY, 32, 32, 3), np.uint8)
    bundled, _ = read_model(PRETRAINED)
    models: dict[str, Autoencoder] = {"conv256, bundled": bundled}
    models |= {name: PRESETS[name].build() for name in ("dense256-quick", "kh256-small", "kh256")}
    print(f"{describe('cpu')}; medians of {_ROUNDS} and of {_SINGLES}\n")
    print("| model | precision | images/s | one image |\n| --- | --- | --- | --- |")
    for name, model in models.items():
        for precision in ("float32", "bfloat16"):
            if precision == "bfloat16" and not has_bfloat16("cpu"):
                continue
            encoder = Encoder(model, precision=precision)
            many = _median_s(encoder, images, _ROUNDS)
            one = _median_s(encoder, images[:1], _SINGLES)
            print(f"| {name} | {precision} | {_MANY / many:,.0f} | {one * 1000:.1f} ms |")


def _median_s(encoder: Encoder, images: NDArray[np.uint8], rounds: int) -> float:
    """Seconds to encode the images: the median of `rounds` times, after one that does not count."""
    encoder.encode(images)
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        encoder.encode(images)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
