"""Deal 256 bits out to principal components: the depths of `transform256`.

    python -m benchmarks.depths

Each bit goes to the component of CIFAR-10's training images whose squared error,
rounded to values by Lloyd's method, a further bit lowers most. Prints pairs of a
number of components and their bits, as the preset has them.
"""

import heapq
from collections import Counter
from functools import cache

import numpy as np
import torch

from hashsearch.codes import CODE_BITS
from hashsearch.models.transform import TransformAutoencoder
from hashsearch.sources import DataFolders, open_source
from training.data import fit_standardization, load_tiny_images
from training.linear import principal_components, standardized_chunks
from training.transform import lloyd


def main() -> None:
    images = load_tiny_images(open_source("cifar10", DataFolders.of_environment()))
    model = TransformAutoencoder([(CODE_BITS, 1)], width=1)  # for its standardised pixels alone
    fit_standardization(model, images)
    components = principal_components(model, images, CODE_BITS)
    chunks = standardized_chunks(model, images)
    found = torch.cat([pixels @ components.T for pixels in chunks]).double().numpy()

    @cache
    def error(component: int, bits: int) -> float:
        samples = found[:, component]
        values = lloyd(samples, 2**bits) if bits else np.zeros(1)
        nearest = values[np.searchsorted((values[1:] + values[:-1]) / 2, samples)]
        return float(np.square(samples - nearest).mean())

    def gain(component: int, bits: int) -> float:
        return error(component, bits) - error(component, bits + 1)

    depths = [0] * CODE_BITS
    gains = [(-gain(component, 0), component) for component in range(CODE_BITS)]
    heapq.heapify(gains)
    for _ in range(CODE_BITS):
        _, component = heapq.heappop(gains)
        depths[component] += 1
        heapq.heappush(gains, (-gain(component, depths[component]), component))
    print(tuple((count, bits) for bits, count in sorted(Counter(depths).items())[::-1] if bits))


if __name__ == "__main__":
    main()
