"""Distribute bits over principal components: the depths of `transform256` and `conv256`.

    python -m benchmarks.depths BITS

Each bit goes to the principal component of CIFAR-10's training images whose squared
error falls most by one more bit; values are rounded by Lloyd's method. Prints pairs of
a number of components and the bits of each, in the form of the preset.
"""

import argparse
import heapq
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from hashsearch.codes import CODE_BITS
from hashsearch.models.transform import TransformAutoencoder
from hashsearch.sources import DataFolders, open_source
from hashsearch.sources.loading import load_tiny_images
from training.components import principal_components, standardized_chunks
from training.data import fit_standardization
from training.transform_coding import lloyd


def deal(images: NDArray[np.uint8], bits: int) -> list[int]:
    """The component that each bit goes to, in order; a smaller number gives a prefix."""
    model = TransformAutoencoder([(CODE_BITS, 1)], width=1)  # only its standardization is used
    fit_standardization(model, images)
    mean, components = principal_components(model, images, bits)
    chunks = standardized_chunks(model, images)
    found = torch.cat([(pixels - mean) @ components.T for pixels in chunks]).double().numpy()

    @cache
    def error(component: int, depth: int) -> float:
        samples = found[:, component]
        values = lloyd(samples, 2**depth) if depth else np.zeros(1)
        nearest = values[np.searchsorted((values[1:] + values[:-1]) / 2, samples)]
        return float(np.square(samples - nearest).mean())

    def gain(component: int, depth: int) -> float:
        return error(component, depth) - error(component, depth + 1)

    held = Counter[int]()
    gains = [(-gain(component, 0), component) for component in range(bits)]
    heapq.heapify(gains)
    dealt = []
    for _ in range(bits):
        _, component = heapq.heappop(gains)
        dealt.append(component)
        held[component] += 1
        heapq.heappush(gains, (-gain(component, held[component]), component))
    return dealt


def as_depths(dealt: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Pairs of a number of components and the bits of each, the most bits first.

    A model gives the most bits to the first components, even if a component of slightly
    less variance got them here.
    """
    alike = Counter(Counter(dealt).values())
    return tuple((count, depth) for depth, count in sorted(alike.items(), reverse=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bits", metavar="BITS", type=int)
    options = parser.parse_args()
    images = load_tiny_images(open_source("cifar10", DataFolders.of_environment()))
    print(as_depths(deal(images, options.bits)))


if __name__ == "__main__":
    main()
