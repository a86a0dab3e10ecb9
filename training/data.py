"""Sources of images to one array in memory, ready to be drawn from."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import InvalidImage, TrainingError
from hashsearch.images import TINY_SIDE, decode, read_image_file
from hashsearch.progress import progress_report
from hashsearch.sources.base import Source, SourceImage


def load_tiny_images(source: Source) -> NDArray[np.uint8]:
    """Decode every image of a source that can be decoded.

    Returns (n, 32, 32, 3) uint8, in the source's order. Raises TrainingError
    if there is none.
    """
    images = []
    with progress_report("reading images") as report:
        for entry in source:
            try:
                images.append(_tiny(entry))
            except InvalidImage:
                continue  # training needs pictures, not this one
            report.advance(1)
    if not images:
        raise TrainingError(f"{source.root} holds no image that can be read")
    return np.stack(images)


def sha256_of_images(images: NDArray[np.uint8]) -> str:
    """Tell one set of training images from another: SHA-256 over their bytes, in order."""
    return hashlib.sha256(images.tobytes()).hexdigest()


def split_off(
    images: NDArray[np.uint8], held_out: int, random: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Part images at random into those trained on and at most `held_out` others.

    At least nine in ten are trained on.
    """
    order = random.permutation(len(images))
    held_out = min(held_out, len(images) // 10)
    return images[order[held_out:]], images[order[:held_out]]


def _tiny(entry: SourceImage) -> NDArray[np.uint8]:
    if isinstance(entry.content, InvalidImage):
        raise entry.content
    if isinstance(entry.content, np.ndarray):
        return entry.content.reshape(TINY_SIDE, TINY_SIDE, 3)
    data = entry.content if isinstance(entry.content, bytes) else read_image_file(entry.content)
    return decode(data).tiny
