"""Baselines that project centred pixels: principal components, and bits of projections.

All of them learn from a gallery's images without labels, and map (n, 32, 32, 3) uint8 tiny
images to (n, n_components) float32 or to (n, n_bits / 8) uint8 packed codes.
"""

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from hashsearch.baselines.components import principal_directions
from hashsearch.codes import pack_bits
from hashsearch.images import TINY_BYTES

_CHUNK = 5000  # images converted to float32 at a time


@dataclass(frozen=True)
class Projection:
    """Centred pixels times a matrix: (n, 32, 32, 3) uint8 to (n, n_components) float32.

    mean: (3072,) float32; matrix: (3072, n_components) float32.
    """

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]

    def __call__(self, tiny: NDArray[np.uint8]) -> NDArray[np.float32]:
        flat = tiny.reshape(len(tiny), TINY_BYTES)
        found = np.empty((len(flat), self.matrix.shape[1]), np.float32)
        for start in range(0, len(flat), _CHUNK):
            rows = flat[start : start + _CHUNK].astype(np.float32) - self.mean
            np.matmul(rows, self.matrix, out=found[start : start + _CHUNK])
        return found

    def signs(self, tiny: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(n, n_components / 8) uint8 packed codes; a bit is 1 where the component is ≥ 0."""
        return pack_bits((self(tiny) >= 0).astype(np.uint8))


def principal_components(tiny: NDArray[np.uint8], count: int) -> Projection:
    """Project onto the directions of most variance, by decreasing variance."""
    flat = tiny.reshape(len(tiny), TINY_BYTES)
    mean = flat.mean(axis=0, dtype=np.float64).astype(np.float32)
    # Centred already, because float32 would round the products of uncentred pixels more.
    chunks = (flat[i : i + _CHUNK].astype(np.float32) - mean for i in range(0, len(flat), _CHUNK))
    _, directions = principal_directions(chunks, len(flat), count)
    return Projection(mean, directions.T.astype(np.float32))


def random_projections(tiny: NDArray[np.uint8], n_bits: int, seed: int) -> Projection:
    """Project onto random directions, uniformly distributed, after subtracting the mean.

    Source: locality-sensitive hashing for angles, Charikar 2002.
    """
    directions = np.random.default_rng(seed).standard_normal((TINY_BYTES, n_bits))
    mean = tiny.reshape(len(tiny), TINY_BYTES).mean(axis=0)
    return Projection(mean.astype(np.float32), directions.astype(np.float32))


def iterative_quantization(tiny: NDArray[np.uint8], components: Projection) -> Projection:
    """Rotate the components to bring them closer to their signs, with FAISS (50 iterations).

    Source: Gong and Lazebnik 2011.
    """
    rotation = faiss.ITQMatrix(components.matrix.shape[1])
    rotation.train(components(tiny))
    matrix = faiss.vector_to_array(rotation.A).reshape(rotation.d_out, rotation.d_in)
    return Projection(components.mean, components.matrix @ matrix.T)


@dataclass(frozen=True)
class SpectralHashing:
    """Bits that are signs of cosines along principal components, with the lowest frequencies.

    starts: (n_components,) float32, the least value of each component. frequencies:
    (n_components, n_bits) float32, in radians per unit; each bit uses one component, and its
    frequencies for the others are 0.
    Source: Weiss, Torralba and Fergus 2008: eigenfunctions of a uniform distribution over
    the box of the components' ranges.
    """

    components: Projection
    starts: NDArray[np.float32]
    frequencies: NDArray[np.float32]

    @classmethod
    def of(cls, tiny: NDArray[np.uint8], components: Projection, n_bits: int) -> "SpectralHashing":
        """Learn from images. components: at most n_bits of them."""
        rows = components(tiny)
        starts, ends = rows.min(axis=0), rows.max(axis=0)
        widths = np.maximum(ends - starts, np.finfo(np.float32).tiny)
        waves = np.arange(1, n_bits + 1)[:, np.newaxis] / widths  # half-waves per unit
        slowest = np.argsort(waves, axis=None, kind="stable")[:n_bits]
        frequencies = np.zeros((len(widths), n_bits), np.float32)
        frequencies[slowest % len(widths), np.arange(n_bits)] = np.pi * waves.flat[slowest]
        return cls(components, starts, frequencies)

    def __call__(self, tiny: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(n, n_bits / 8) uint8 packed codes."""
        angles = (self.components(tiny) - self.starts) @ self.frequencies
        return pack_bits((np.cos(angles) >= 0).astype(np.uint8))
