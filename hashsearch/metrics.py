"""Measures of quality, on arrays alone."""

import math

import numpy as np
from numpy.typing import NDArray


def psnr_db(images: NDArray[np.uint8], reconstructions: NDArray[np.uint8]) -> float:
    """Mean peak signal-to-noise ratio in decibels, the mean taken over images.

    Both (n, …) uint8 of one shape. An exact reconstruction counts as an error of
    half a grey level in one value, the smallest that 8 bits can hide, so that the
    mean stays finite.
    """
    difference = images.astype(np.int32) - reconstructions.astype(np.int32)
    squared = (difference.reshape(len(images), -1) ** 2).astype(np.float64)
    error = np.maximum(squared.mean(axis=1), 0.25 / squared.shape[1])
    return float(np.mean(10 * np.log10(255**2 / error)))


def overlap_at_k(first: NDArray[np.int64], second: NDArray[np.int64], k: int) -> float:
    """Share of the first k ids that two rankings have in common.

    first, second: (n,) int64 ids, best first. The divisor is k, or the longer
    list's length where both are shorter than k; two empty rankings agree (1.0).
    """
    divisor = min(k, max(len(first), len(second)))
    if divisor == 0:
        return 1.0
    return len(np.intersect1d(first[:k], second[:k])) / divisor


def correlation_by_chance(count: int) -> float:
    """The mean absolute correlation that independent values of `count` images have by chance."""
    return math.sqrt(2 / (math.pi * max(count - 1, 1)))
