"""Baselines that project centred pixels: principal components, and bits made of projections.

All are learnt from a gallery's images without their labels, and turn tiny images
(n, 32, 32, 3) uint8 into (n, n_components) float32 or (n, n_bits / 8) uint8 packed codes.
"""

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from hashsearch.baselines.components import principal_directions
from hashsearch.codes import pack_bits
from hashsearch.images import TINY_BYTES

_CHUNK = 5000  # images whose pixels are float32 at a time


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
        """(n, n_components / 8) uint8 packed codes: which components are not negative."""
        return pack_bits((self(tiny) >= 0).astype(np.uint8))


def principal_components(tiny: NDArray[np.uint8], count: int) -> Projection:
    """Onto the directions of most variance around the mean, the most variance first."""
    flat = tiny.reshape(len(tiny), TINY_BYTES)
    mean = flat.mean(axis=0, dtype=np.float64).astype(np.float32)
    # Centred already, because float32 would round the products of uncentred pixels more.
    chunks = (flat[i : i + _CHUNK].astype(np.float32) - mean for i in range(0, len(flat), _CHUNK))
    _, directions = principal_directions(chunks, len(flat), count)
    return Projection(mean, directions.T.astype(np.float32))


def random_projections(tiny: NDArray[np.uint8], n_bits: int, seed: int) -> Projection:
    """Onto random directions, all alike likely, around the images' mean.

    Source: locality-sensitive hashing for angles, Charikar 2002.
    """
    directions = np.random.default_rng(seed).standard_normal((TINY_BYTES, n_bits))
    mean = tiny.reshape(len(tiny), TINY_BYTES).mean(axis=0)
    return Projection(mean.astype(np.float32), directions.astype(np.float32))


def iterative_quantization(tiny: NDArray[np.uint8], components: Projection) -> Projection:
    """The components rotated so that they come near to their signs: FAISS's, 50 rounds.

    Source: Gong and Lazebnik 2011.
    """
    rotation = faiss.ITQMatrix(components.matrix.shape[1])
    rotation.train(components(tiny))
    matrix = faiss.vector_to_array(rotation.A).reshape(rotation.d_out, rotation.d_in)
    return Projection(components.mean, components.matrix @ matrix.T)


@dataclass(frozen=True)
class SpectralHashing:
    """Signs of cosines along principal components: the slowest waves that fit their ranges.

    starts: (n_components,) float32, where each component's range begins; frequencies:
    (n_components, n_bits) float32, in radians a unit: each bit's on its one component.
    Source: Weiss, Torralba and Fergus 2008: eigenfunctions for images spread evenly over
    the box that their components fill.
    """

    components: Projection
    starts: NDArray[np.float32]
    frequencies: NDArray[np.float32]

    @classmethod
    def of(cls, tiny: NDArray[np.uint8], components: Projection, n_bits: int) -> "SpectralHashing":
        """components: as many as there are bits, or fewer."""
        rows = components(tiny)
        starts, ends = rows.min(axis=0), rows.max(axis=0)
        widths = np.maximum(ends - starts, np.finfo(np.float32).tiny)
        waves = np.arange(1, n_bits + 1)[:, np.newaxis] / widths  # half ones a unit
        slowest = np.argsort(waves, axis=None, kind="stable")[:n_bits]
        frequencies = np.zeros((len(widths), n_bits), np.float32)
        frequencies[slowest % len(widths), np.arange(n_bits)] = np.pi * waves.flat[slowest]
        return cls(components, starts, frequencies)

    def __call__(self, tiny: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(n, n_bits / 8) uint8 packed codes."""
        angles = (self.components(tiny) - self.starts) @ self.frequencies
        return pack_bits((np.cos(angles) >= 0).astype(np.uint8))
