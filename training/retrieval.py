"""How well codes find images of the same kind, for a training's report."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hashsearch.evaluation.tiers import Tiers

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
    """Measure a ranking by Hamming distance: expected values over the orders of equal ones.

    gallery, queries: (n, n_bits) uint8 bits of the labelled images.
    """
    order = _by_label(labelled)
    signs, asked = (torch.from_numpy(bits).float() * 2 - 1 for bits in (gallery[order], queries))
    n_bits = signs.shape[1]

    def tiers(start: int, relevant: list[slice]) -> Tiers:
        distances = (n_bits - asked[start : start + _CHUNK] @ signs.T) / 2
        rows = zip(distances.int().numpy(), relevant, strict=True)
        return Tiers.stacked([Tiers.of_integers(*row, n_bits + 1) for row in rows])

    return _measure(labelled, tiers)


def retrieval_by_pixels(labelled: Labelled) -> dict[str, float]:
    """Measure the baseline: a ranking by Euclidean distance between pixels.

    Computed in float32, so that distances which differ by less than it can tell
    may change places; the search itself decides such in integers.
    """
    flat = torch.from_numpy(labelled.gallery[_by_label(labelled)]).flatten(1).float()
    mean = flat.mean(dim=0)
    flat -= mean
    squares = flat.square().sum(dim=1)

    def tiers(start: int, relevant: list[slice]) -> Tiers:
        chunk = torch.from_numpy(labelled.queries[start : start + _CHUNK]).flatten(1).float()
        distances = (squares - 2 * (chunk - mean) @ flat.T).numpy()
        rows = zip(distances, relevant, strict=True)
        return Tiers.stacked([Tiers.of_distances(*row) for row in rows])

    return _measure(labelled, tiers)


def _by_label(labelled: Labelled) -> NDArray[np.int64]:
    """Gallery rows, those of a label side by side."""
    return np.argsort(labelled.gallery_labels, kind="stable")


def _measure(labelled: Labelled, tiers: Callable[[int, list[slice]], Tiers]) -> dict[str, float]:
    ranks = min(_RANKS, len(labelled.gallery))
    ks = np.array([k for k in (1, 10) if k <= ranks])
    labels = np.sort(labelled.gallery_labels)
    found, averages = [], []
    for start in range(0, len(labelled.queries), _CHUNK):
        asked = labelled.query_labels[start : start + _CHUNK]
        bounds = (np.searchsorted(labels, asked, side).tolist() for side in ("left", "right"))
        some = tiers(start, [slice(*pair) for pair in zip(*bounds, strict=True)])
        found.append(some.found_at(ks) / ks)
        averages.append(some.average_precision_at(ranks)[0])
    precisions = np.concatenate(found).mean(axis=0).tolist()
    told = {f"precision_at_{k}": share for k, share in zip(ks, precisions, strict=True)}
    told[f"map_at_{ranks}"] = float(np.concatenate(averages).mean())
    return {name: round(value, 4) for name, value in told.items()}
