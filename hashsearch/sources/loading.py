"""The images of a source, decoded: one, or all of them in memory."""

import logging

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import InvalidImage, InvalidSource
from hashsearch.images import DecodedImage, decode, from_pixels, read_image_file
from hashsearch.progress import progress_report
from hashsearch.sources.base import Source, SourceImage, nothing_in
from hashsearch.wording import counted

_log = logging.getLogger(__name__)


def load_tiny_images(source: Source) -> NDArray[np.uint8]:
    """Decode every image of a source that can be decoded.

    Returns (n, 32, 32, 3) uint8, in the source's order. Raises InvalidSource
    if there is none.
    """
    images, _ = load_labelled_images(source)
    return images


def load_labelled_images(source: Source) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """The same, with the labels: (n,) text, empty for an image without one."""
    images, labels, failed = [], [], 0
    with progress_report("reading images") as report:
        for entry in source:
            try:
                _, decoded = decode_image(entry)
            except InvalidImage:
                failed += 1
                continue
            images.append(decoded.tiny)
            labels.append(entry.label or "")
            report.advance(1)
    if not images:
        raise InvalidSource(nothing_in(source, "image that can be read"))
    for remark in source.remarks:
        _log.warning("%s: %s", source.root, remark)
    if failed:
        _log.warning("%s of %s cannot be read; left out", counted(failed, "image"), source.root)
    return np.stack(images), np.array(labels)


def decode_image(
    image: SourceImage, *, thumbnail: bool = False
) -> tuple[bytes | NDArray[np.uint8], DecodedImage]:
    """Read and decode one image of a source.

    Returns its content, which is a file's bytes or (height, width, 3) uint8 RGB
    pixels, and the decoded image, with a thumbnail if one is asked for.
    Raises InvalidImage if there is no content or it cannot be decoded, and OSError
    if its file cannot be read.
    """
    if isinstance(image.content, InvalidImage):
        raise image.content
    if isinstance(image.content, np.ndarray):
        return image.content, from_pixels(image.content, thumbnail=thumbnail)
    data = image.content if isinstance(image.content, bytes) else read_image_file(image.content)
    return data, decode(data, thumbnail=thumbnail)
