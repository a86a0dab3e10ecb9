"""Principal components of rows that are given in chunks."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_FEW = 1000  # up to this many rows of pixels, an SVD takes less time than the covariance


def principal_directions(
    chunks: Iterable[NDArray[np.floating]], n_rows: int, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the mean of the rows and the directions of most variance around it.

    chunks: (m, n_values) float32 or float64 each, n_rows together; products are computed in
    their type and summed in float64. count: at most n_values. Returns (n_values,) and
    (count, n_values), by decreasing variance; the directions have length 1 and either sign.
    """
    if count <= n_rows <= _FEW:
        rows = np.concatenate([*chunks]).astype(np.float64)
        mean = rows.mean(axis=0)
        _, _, directions = np.linalg.svd(rows - mean, full_matrices=False)
        return mean, directions[:count]
    mean, products = np.zeros(1), np.zeros(1)
    for chunk in chunks:
        mean = mean + chunk.sum(axis=0, dtype=np.float64) / n_rows
        products = products + chunk.T @ chunk
    _, vectors = np.linalg.eigh(products / n_rows - np.outer(mean, mean))  # increasing variance
    return mean, np.ascontiguousarray(vectors.T[::-1][:count])
