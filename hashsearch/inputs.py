"""What users of the library pass: paths, images and numbers of many types, checked."""

import operator
import os
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hashsearch.codes import CODE_BYTES
from hashsearch.crop import WHOLE, Crop
from hashsearch.errors import InvalidImage, InvalidQuery
from hashsearch.images import (
    decode,
    encode_png,
    from_picture,
    from_pixels,
    read_image_file,
    rgb_of,
)

PathOrName: TypeAlias = str | PathLike[str]
Picture: TypeAlias = PathOrName | bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8]

_LONGEST_SHOWN = 200  # characters of a value in a message
_MAX = 2**62  # larger than any id, number of images or distance


def tiny_image(image: Picture, *others: str, crop: Crop = WHOLE) -> NDArray[np.uint8]:
    """Turn anything that names an image into the (32, 32, 3) uint8 tiny image of a crop of it.

    others: what else the caller takes, for the message. Raises InvalidImage, with the path if
    there is one, and InvalidQuery for anything else, and if the crop holds no pixel.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return _decoded(bytes(image), crop)
    if isinstance(image, str | PathLike):
        data = image_file_bytes(image)
        try:
            return decode(data, crop=crop).tiny
        except InvalidImage as error:
            raise type(error)(f"{shortened(image)}: {error}") from error
    if isinstance(image, Image.Image):
        return from_picture(image, crop=crop).tiny
    return from_pixels(_checked_pixels(image, others), crop=crop).tiny


def image_file(image: Picture, *others: str) -> bytes:
    """An image file that shows anything that names an image: its own bytes, or PNG.

    others: as of `tiny_image`, of which it raises the same errors; a file is not decoded.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | PathLike):
        return image_file_bytes(image)
    if isinstance(image, Image.Image):
        return encode_png(np.asarray(rgb_of(image)))
    return encode_png(_checked_pixels(image, others))


def several_images(images: object) -> Iterable[Picture]:
    """Check a sequence of images, or one array (n, height, width, 3). Raises InvalidQuery."""
    if isinstance(images, str | bytes | PathLike | Image.Image) or (
        isinstance(images, np.ndarray) and images.ndim != 4
    ):
        raise InvalidQuery("one image came; a sequence of images was wanted, such as [image]")
    if not isinstance(images, Iterable):
        raise InvalidQuery(f"{described(images)} came; a sequence of images was wanted")
    return images


def _checked_pixels(image: object, others: tuple[str, ...]) -> NDArray[np.uint8]:
    if not isinstance(image, np.ndarray):
        wanted = ", ".join(("a path", "bytes", "a PIL image", "an array", *others))
        raise InvalidQuery(f"{described(image)} came; an image was wanted: {wanted}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InvalidImage(f"{described(image)} came; (height, width, 3) uint8 RGB was wanted")
    return image


def _decoded(data: bytes, crop: Crop) -> NDArray[np.uint8]:
    try:
        return decode(data, crop=crop).tiny
    except InvalidImage as error:
        if len(data) != CODE_BYTES:
            raise
        raise type(error)(
            f"{error}; a code is given as {2 * CODE_BYTES} hexadecimal digits or as an array of "
            f"uint8 ({CODE_BYTES},)"
        ) from error


def image_file_bytes(path: PathOrName) -> bytes:
    """Read an image file. Raises InvalidImage, with the path, and InvalidQuery if it is empty."""
    shown = shortened(path)
    try:
        return read_image_file(checked_path(path))
    except OSError as error:
        raise InvalidImage(f"{shown} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a zero byte
        raise InvalidImage(f"{shown!r} is no path: {error}") from error
    except InvalidImage as error:  # too large
        raise type(error)(f"{shown}: {error}") from error


def checked_path(path: PathOrName) -> Path:
    """Raises InvalidQuery for no path, and an empty one, which would mean the working folder."""
    if not isinstance(path, str | PathLike) or isinstance(os.fspath(path), bytes):
        raise InvalidQuery(f"{described(path)} came; the path of a file or folder was wanted")
    if not os.fspath(path):
        raise InvalidQuery("an empty path came; the path of a file or folder was wanted")
    return Path(path)


def whole(name: str, value: object, least: int | None = None) -> int:
    """Check a whole number of any type, such as NumPy's.

    name: what it is, for the message. Raises InvalidQuery for anything else, and below `least`.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # raises TypeError
    except TypeError as error:
        raise InvalidQuery(f"{name} is a whole number; got {described(value)}") from error
    if isinstance(value, bool):
        raise InvalidQuery(f"{name} is a whole number; got {value}")
    if least is not None and number < least:
        raise InvalidQuery(f"{name} is at least {least}; got {value}")
    return min(max(number, -_MAX), _MAX)  # beyond it, there is nothing more


def whole_numbers(name: str, ids: Iterable[int]) -> list[int]:
    """Check a list of ids. Raises InvalidQuery, also for a text of digits."""
    if isinstance(ids, str | bytes | Mapping) or not isinstance(ids, Iterable):
        raise InvalidQuery(f"{name} is a list of whole numbers; got {described(ids)}")
    return [whole("an id", one) for one in ids]


def text(name: str, value: object) -> str:
    """Check a text. name: what it is, for the message. Raises InvalidQuery for anything else."""
    if not isinstance(value, str):
        raise InvalidQuery(f"{described(value)} came as {name}; text was wanted")
    return value


def shortened(path: PathOrName) -> str:
    """A path in a message: its beginning if it is long."""
    text = str(path)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def described(value: object) -> str:
    """A value in a message: itself if it is short, otherwise its type."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    text = repr(value)
    if isinstance(value, str | int | float | None) and len(text) < _LONGEST_SHOWN:
        return text
    return f"an object of type {type(value).__name__}"


def is_code(text: str) -> bool:
    """Whether a text is as long as a code in hexadecimal digits, and not an existing path."""
    return len(text) == 2 * CODE_BYTES and not Path(text).exists() and text.isalnum()
