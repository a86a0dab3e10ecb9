"""What the readers of image files have in common: their result, and the limits of their work."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hashsearch.errors import ImageTooLarge, UnsupportedFormat

MAX_PIXELS = 64_000_000
# How many segments, chunks, strips or tiles of a file are looked at, one by one.
MAX_PARTS = 1_000_000


def unchanged(image: Image.Image) -> Image.Image:
    return image


@dataclass(frozen=True, slots=True)
class PlainFile:
    """An image file without anything that its pixels do not need.

    data: what Pillow is given. orientation: how the picture is to be turned, as EXIF counts it,
    1 to 8. mend: makes Pillow's picture, once it is loaded, the one that the file means. kind: what
    the file holds, such as "CMYK, 5 samples of 8-bit unsigned"; the message names it if Pillow
    does not open the file.
    """

    data: bytes
    orientation: int = 1
    mend: Callable[[Image.Image], Image.Image] = unchanged
    kind: str | None = None


def require_few_pixels(width: int, height: int) -> None:
    """Raises ImageTooLarge above MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        raise ImageTooLarge(
            f"the image has {width}×{height} pixels; at most {MAX_PIXELS:,} are decoded"
        )


def require_few_parts(count: int, what: str) -> None:
    """Raises ImageTooLarge above MAX_PARTS. what: their name in the plural."""
    if count > MAX_PARTS:
        raise ImageTooLarge(f"the file has more than {MAX_PARTS:,} {what}, the most that are read")


def unread(format: str, kind: str) -> UnsupportedFormat:
    """The error of a file that is whole, but of a kind that is not read."""
    return UnsupportedFormat(f"this kind of {format} ({kind}) is not read")


def narrowed(
    image: Image.Image, bits: int = 16, *, clear: int | None = None, inverted: bool = False
) -> Image.Image:
    """Bring grey samples of up to 16 bits down to their high 8.

    bits: of a sample. clear: the level that is transparent. inverted: whether 0 is white.
    """
    levels: NDArray[np.uint16] = np.asarray(image)
    high = (levels >> (bits - 8)).astype(np.uint8)
    grey = Image.fromarray(255 - high if inverted else high)
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8)))
    return grey
