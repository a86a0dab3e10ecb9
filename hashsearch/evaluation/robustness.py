"""Changes that pictures go through when they are shared, applied to tiny images."""

from collections.abc import Callable, Iterator
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from hashsearch.images import TINY_SIDE

Change = Callable[[Image.Image], Image.Image]
_SIDES = (TINY_SIDE, TINY_SIDE)
_BICUBIC, _BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


def evenly(n: int, most: int) -> NDArray[np.int64]:
    """At most `most` of n row numbers, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def changed(images: NDArray[np.uint8], seed: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield the name of each change, and all images after it.

    images: (n, 32, 32, 3) uint8, as are those returned.
    """
    pictures = [Image.fromarray(image) for image in images]
    for name, change in CHANGES.items():
        yield name, np.stack([np.asarray(change(picture)) for picture in pictures])
    for deviation in (5, 15):
        noise = np.random.default_rng((seed, deviation)).normal(0, deviation, images.shape)
        yield (
            f"noise, deviation {deviation}",
            np.clip(images + noise, 0, 255).round().astype(np.uint8),
        )


def _jpeg(quality: int) -> Change:
    def change(picture: Image.Image) -> Image.Image:
        buffer = BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return change


def _resized(side: int) -> Change:
    """Resized to side × side pixels, and back."""
    return lambda picture: picture.resize((side, side), _BICUBIC).resize(_SIDES, _BICUBIC)


def _cropped(side: int) -> Change:
    """The centre of side × side pixels, enlarged to the tiny image's size."""
    edge = (TINY_SIDE - side) // 2
    box = (edge, edge, edge + side, edge + side)
    return lambda picture: picture.resize(_SIDES, _BICUBIC, box=box)


def _rotated(degrees: float) -> Change:
    """Rotated; corners that open are filled with the nearest pixels of the edge."""

    def change(picture: Image.Image) -> Image.Image:
        framed = np.pad(np.asarray(picture), ((8, 8), (8, 8), (0, 0)), "edge")
        return ImageOps.crop(Image.fromarray(framed).rotate(degrees, _BILINEAR), 8)

    return change


CHANGES: dict[str, Change] = {
    "JPEG, quality 60": _jpeg(60),
    "JPEG, quality 30": _jpeg(30),
    "resized to 24 and back": _resized(24),
    "resized to 64 and back": _resized(64),
    "crop to 28 of 32": _cropped(28),
    "crop to 24 of 32": _cropped(24),
    "darker by a quarter": lambda picture: ImageEnhance.Brightness(picture).enhance(0.75),
    "brighter by a quarter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.25),
    "blur, radius 0.7": lambda picture: picture.filter(ImageFilter.GaussianBlur(0.7)),
    "blur, radius 1.5": lambda picture: picture.filter(ImageFilter.GaussianBlur(1.5)),
    "rotated by 5°": _rotated(5),
    "rotated by 15°": _rotated(15),
    "mirrored": ImageOps.mirror,
    "upside down": ImageOps.flip,
}
