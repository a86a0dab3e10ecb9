"""Tiny images in memory: splits, duplicates, batches and standardisation."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.models.autoencoder import StoredModel
from training.labels import UNLABELLED, ClassLabels

_CHUNK_VALUES = 3_000_000


def sha256_of_images(images: NDArray[np.uint8]) -> str:
    """SHA-256 over the images' bytes, in order; it identifies a training set."""
    return hashlib.sha256(images.tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Examples:
    """Images, and their labels if a training learns them. images: (n, 32, 32, 3) uint8."""

    images: NDArray[np.uint8]
    labels: ClassLabels | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "Examples":
        return Examples(self.images[rows], None if self.labels is None else self.labels[rows])

    def split(self, held_out: int, random: np.random.Generator) -> tuple["Examples", "Examples"]:
        """Split at random into training images and at most `held_out` held-out images.

        At most a tenth of the images are held out; of those with a class see ClassLabels.held_out.
        Where these are few, a tenth of the images without a class, and of those whose class can
        spare none, are held out too, those without a class first. Copies of held-out images are
        left out of the training images.
        """
        order = random.permutation(len(self))
        mixed = self[order]
        if mixed.labels is None:
            kept = np.arange(len(self)) < held_out_of(len(self), held_out)
        else:
            first = mixed.first_copies()
            ids = np.where(first, mixed.labels.class_ids, UNLABELLED)
            labels = replace(mixed.labels, class_ids=ids)
            kept = labels.held_out(held_out)
            others = np.flatnonzero(first & (labels.spared() == 0))
            others = others[np.argsort(labels.known[others], kind="stable")]
            kept[others[: held_out_of(len(others), held_out - int(kept.sum()))]] = True
        mine, theirs = mixed[~kept], mixed[kept]
        return mine[~occur_in(mine.images, theirs.images)], theirs

    def first_copies(self) -> NDArray[np.bool_]:
        """(n,) bool: one of all images that are equal, if possible one that has a class."""
        rows = np.arange(len(self))
        if self.labels is not None:
            rows = np.argsort(~self.labels.known, kind="stable")
        seen: set[bytes] = set()
        first = np.zeros(len(self), bool)
        for row in rows:
            digest = hashlib.blake2b(self.images[row].tobytes(), digest_size=16).digest()
            first[row] = digest not in seen
            seen.add(digest)
        return first

    def of_sets(self) -> Iterator["Examples"]:
        """The images of each label set, in the order of `ClassLabels.sets`, without copies."""
        assert self.labels is not None
        sets = np.append(self.labels.set_ids, UNLABELLED)[self.labels.class_ids]
        for number in range(len(self.labels.sets)):
            own = self[sets == number]
            yield own[own.first_copies()]


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


def occur_in(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(n,) bool: which of the images also occur in `others`."""
    contents = {image.tobytes() for image in others}
    return np.array([image.tobytes() in contents for image in images], bool)


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
