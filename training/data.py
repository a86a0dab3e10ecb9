"""Tiny images in memory: parted, told from one another, drawn in batches."""

import hashlib
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.models.folder import Saved

_CHUNK_VALUES = 3_000_000


def sha256_of_images(images: NDArray[np.uint8]) -> str:
    """Tell one set of training images from another: SHA-256 over their bytes, in order."""
    return hashlib.sha256(images.tobytes()).hexdigest()


class Batches:
    """Rows of images, in batches, in an order that the seed and the step's number alone decide.

    count: of the images; size: of a batch. The order of a pass lies on the device.
    """

    def __init__(self, count: int, size: int, seed: int, device: str):
        assert count >= size, "a pass is at least one batch"
        self.count, self.size, self.seed, self.device = count, size, seed, device
        self._pass, self._order = -1, torch.empty(0, dtype=torch.int64)

    def __getitem__(self, step: int) -> Tensor:
        """(size,) int64: every row once a pass, but for the last few that fill no batch."""
        number, place = divmod(step, self.count // self.size)
        if number != self._pass:
            order = np.random.default_rng((self.seed, number)).permutation(self.count)
            self._pass, self._order = number, torch.from_numpy(order).to(self.device)
        return self._order[place * self.size : (place + 1) * self.size]


def split_off(
    images: NDArray[np.uint8], held_out: int, random: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Part images at random into those trained on and at most `held_out` others.

    At least nine in ten are trained on, but for copies of those held out, which
    are left aside.
    """
    order = random.permutation(len(images))
    held_out = min(held_out, len(images) // 10)
    kept = images[order[:held_out]]
    return without(images[order[held_out:]], kept), kept


def without(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images, in their order, but for copies of the others."""
    contents = {image.tobytes() for image in others}
    return images[[image.tobytes() not in contents for image in images]]


def fit_standardization(model: Saved, images: NDArray[np.uint8]) -> None:
    """Set a model's pixel means, and the one standard deviation around them.

    A mean is of a pixel, or of a colour, as the model keeps them.
    """
    values = images.reshape(-1, model.pixel_mean.numel())
    chunks = np.array_split(values, -(-values.size // _CHUNK_VALUES))
    total = sum(chunk.sum(axis=0, dtype=np.float64) for chunk in chunks)
    mean = total / len(values)
    squares = sum(float(np.square(chunk - mean).sum()) for chunk in chunks)
    model.pixel_mean.copy_(torch.from_numpy(mean))
    model.pixel_std.fill_(max(math.sqrt(squares / values.size), 1.0))  # images all alike divide too
