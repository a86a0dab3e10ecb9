"""How well codes find images of the same kind, ranked with torch, in a training's report."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.metrics import map_at_k, precision_at_k

_RANKS = 1000
_CHUNK = 250  # queries ranked at a time


@dataclass(frozen=True, slots=True)
class Labelled:
    """Images to search, and images to search for, each with what it shows.

    gallery, queries: (n, 32, 32, 3) uint8; their labels: (n,) of one dtype.
    """

    name: str
    gallery: NDArray[np.uint8]
    gallery_labels: NDArray[np.str_]
    queries: NDArray[np.uint8]
    query_labels: NDArray[np.str_]


def retrieval_by_bits(
    labelled: Labelled, gallery: NDArray[np.uint8], queries: NDArray[np.uint8]
) -> dict[str, float]:
    """Measure a ranking by Hamming distance; equal distances come in the gallery's order.

    gallery, queries: (n, n_bits) uint8 bits of the labelled images.
    """
    signs, asked = (torch.from_numpy(bits).float() * 2 - 1 for bits in (gallery, queries))
    order = torch.arange(len(signs), dtype=torch.float32)

    def keys(start: int) -> Tensor:
        distances = (signs.shape[1] - asked[start : start + _CHUNK] @ signs.T) / 2
        return distances * len(signs) + order

    # Exact in float32, so that ties cannot fall otherwise.
    assert signs.shape[1] * len(signs) + len(signs) <= 2**24, "too many images"
    return _measure(labelled, keys)


def retrieval_by_pixels(labelled: Labelled) -> dict[str, float]:
    """Measure the baseline: a ranking by Euclidean distance between pixels.

    Computed in float32, so that distances which differ by less than it can tell
    may change places; the search itself decides such in integers.
    """
    flat = torch.from_numpy(labelled.gallery).flatten(1).float()
    mean = flat.mean(dim=0)
    flat -= mean
    squares = flat.square().sum(dim=1)

    def keys(start: int) -> Tensor:
        chunk = torch.from_numpy(labelled.queries[start : start + _CHUNK]).flatten(1).float()
        return squares - 2 * (chunk - mean) @ flat.T

    return _measure(labelled, keys)


def _measure(labelled: Labelled, keys: Callable[[int], Tensor]) -> dict[str, float]:
    ranks = min(_RANKS, len(labelled.gallery))
    relevant = np.empty((len(labelled.queries), ranks), np.bool_)
    for start in range(0, len(relevant), _CHUNK):
        ids = keys(start).topk(ranks, largest=False).indices.numpy()
        wanted = labelled.query_labels[start : start + _CHUNK, np.newaxis]
        relevant[start : start + _CHUNK] = labelled.gallery_labels[ids] == wanted
    found = {f"precision_at_{k}": precision_at_k(relevant, k) for k in (1, 10) if k <= ranks}
    found[f"map_at_{ranks}"] = map_at_k(relevant, ranks)
    return {name: round(value, 4) for name, value in found.items()}
