"""Tiny images in memory: splits, duplicates, batches and standardisation."""

import hashlib
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.models.autoencoder import StoredModel

_CHUNK_VALUES = 3_000_000


def sha256_of_images(images: NDArray[np.uint8]) -> str:
    """SHA-256 over the images' bytes, in order; it identifies a training set."""
    return hashlib.sha256(images.tobytes()).hexdigest()


class Batches:
    """Shuffled batches of image rows; seed and step number alone determine the order.

    count: number of images; size: images per batch. The order of each pass is kept on
    the device.
    """

    def __init__(self, count: int, size: int, seed: int, device: str):
        assert count >= size, "a pass is at least one batch"
        self.count, self.size, self.seed, self.device = count, size, seed, device
        self._pass, self._order = -1, torch.empty(0, dtype=torch.int64)

    def __getitem__(self, step: int) -> Tensor:
        """(size,) int64 rows of a step: each row once per pass; an incomplete batch is dropped."""
        number, place = divmod(step, self.count // self.size)
        if number != self._pass:
            order = np.random.default_rng((self.seed, number)).permutation(self.count)
            self._pass, self._order = number, torch.from_numpy(order).to(self.device)
        return self._order[place * self.size : (place + 1) * self.size]


def held_out_of(count: int, most: int) -> int:
    """Number of images to hold out of `count`: a tenth of them, at most `most`."""
    return min(most, count // 10)


def split_off(
    images: NDArray[np.uint8], held_out: int, random: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Split images at random into training images and at most `held_out` held-out images.

    At most a tenth of the images are held out. Copies of held-out images are removed from
    the training images.
    """
    order = random.permutation(len(images))
    held_out = held_out_of(len(images), held_out)
    kept = images[order[:held_out]]
    return without(images[order[held_out:]], kept), kept


def without(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The images, in order, without those that also occur in `others`."""
    contents = {image.tobytes() for image in others}
    return images[[image.tobytes() not in contents for image in images]]


def fit_standardization(model: StoredModel, images: NDArray[np.uint8]) -> None:
    """Set a model's pixel means and its single standard deviation around them.

    The means are per pixel or per colour, as the model stores them.
    """
    values = images.reshape(-1, model.pixel_mean.numel())
    chunks = np.array_split(values, -(-values.size // _CHUNK_VALUES))
    total = sum(chunk.sum(axis=0, dtype=np.float64) for chunk in chunks)
    mean = total / len(values)
    squares = sum(float(np.square(chunk - mean).sum()) for chunk in chunks)
    model.pixel_mean.copy_(torch.from_numpy(mean))
    model.pixel_std.fill_(max(math.sqrt(squares / values.size), 1.0))  # not 0 for equal images
