"""What the readers of image files have in common: their result, and the limits of their work."""

from dataclasses import dataclass

from hashsearch.errors import ImageTooLarge

MAX_PIXELS = 64_000_000
# How many segments, chunks, strips or tiles of a file are looked at, one by one.
MAX_PARTS = 1_000_000


@dataclass(frozen=True, slots=True)
class PlainFile:
    """An image file without anything that its pixels do not need.

    data: what Pillow is given. orientation: how the picture is to be turned, as EXIF counts it,
    1 to 8.
    """

    data: bytes
    orientation: int = 1


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
