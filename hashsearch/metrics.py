"""Measures of quality, on arrays alone."""

import numpy as np
from numpy.typing import NDArray


def psnr_db(images: NDArray[np.uint8], reconstructions: NDArray[np.uint8]) -> float:
    """Mean peak signal-to-noise ratio in decibels, the mean taken over images.

    Both (n, …) uint8 of one shape. An image met exactly counts as an error of
    half a grey level in one value, the least that 8 bits leave open, so that
    the mean stays finite.
    """
    difference = images.astype(np.int32) - reconstructions.astype(np.int32)
    squared = (difference.reshape(len(images), -1) ** 2).astype(np.float64)
    error = np.maximum(squared.mean(axis=1), 0.25 / squared.shape[1])
    return float(np.mean(10 * np.log10(255**2 / error)))


def precision_at_k(relevant: NDArray[np.bool_], k: int) -> float:
    """Relevant found in the first k ÷ k, the mean over queries.

    relevant: (n_queries, at least k) bool, of a ranking's images, best first.
    """
    _require_ranks(relevant, k)
    return float(relevant[:, :k].mean())


def map_at_k(relevant: NDArray[np.bool_], k: int) -> float:
    """Mean over queries of average precision over the first k.

    relevant: (n_queries, at least k) bool, of a ranking's images, best first.
    Average precision is the mean of precision at each relevant image found: its
    divisor is the number of relevant images among the first k, not of all there
    are; a query that finds none counts as 0.
    """
    _require_ranks(relevant, k)
    found = relevant[:, :k]
    precision = found.cumsum(axis=1) / np.arange(1, k + 1)
    average = (precision * found).sum(axis=1) / np.maximum(found.sum(axis=1), 1)
    return float(average.mean())


def overlap_at_k(first: NDArray[np.int64], second: NDArray[np.int64], k: int) -> float:
    """Share of the first k ids that two rankings have in common.

    first, second: (n,) int64 ids, best first. The divisor is k, or the longer
    list's length where both are shorter than k; two empty rankings agree (1.0).
    """
    divisor = min(k, max(len(first), len(second)))
    if divisor == 0:
        return 1.0
    return len(np.intersect1d(first[:k], second[:k])) / divisor


def _require_ranks(relevant: NDArray[np.bool_], k: int) -> None:
    assert relevant.ndim == 2, relevant.shape
    assert 0 < k <= relevant.shape[1], f"{k} ranks of {relevant.shape[1]}"
