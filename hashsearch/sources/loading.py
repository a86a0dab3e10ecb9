"""All of a source's images in memory, as tiny images."""

import sys

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import InvalidImage, InvalidSource
from hashsearch.images import decode, from_pixels, read_image_file
from hashsearch.progress import progress_report
from hashsearch.sources.base import Source, SourceImage


def load_tiny_images(source: Source) -> NDArray[np.uint8]:
    """Decode every image of a source that can be decoded.

    Returns (n, 32, 32, 3) uint8, in the source's order. Raises InvalidSource
    if there is none.
    """
    images, _ = load_labelled_images(source)
    return images


def load_labelled_images(source: Source) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """The same, and what each shows: (n,) text, empty where the source tells none."""
    images, labels, failed = [], [], 0
    with progress_report("reading images") as report:
        for entry in source:
            try:
                images.append(_tiny(entry))
            except InvalidImage:
                failed += 1  # pictures are wanted, not this one
                continue
            labels.append(entry.label or "")
            report.advance(1)
    if not images:
        raise InvalidSource(f"{source.root} holds no image that can be read")
    if failed:
        print(f"{failed:,} images of {source.root} cannot be read; left out", file=sys.stderr)
    return np.stack(images), np.array(labels)


def _tiny(entry: SourceImage) -> NDArray[np.uint8]:
    if isinstance(entry.content, InvalidImage):
        raise entry.content
    if isinstance(entry.content, np.ndarray):
        return from_pixels(entry.content).tiny
    data = entry.content if isinstance(entry.content, bytes) else read_image_file(entry.content)
    return decode(data).tiny
