"""Decoding untrusted bytes into tiny images and thumbnails.

Queries and galleries use the same `decode`. Its rules have a version,
`PREPROCESSING`, which is part of every model's fingerprint; it must change if
`decode` returns other pixels for any file.
"""

import errno
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hashsearch.crop import WHOLE, Crop
from hashsearch.errors import ImageTooLarge, InvalidImage, UnsupportedFormat
from hashsearch.extras import HEIC_SUFFIXES, missing_heic
from hashsearch.imagefiles import FILE_FORMATS
from hashsearch.imagefiles.boxes import is_avif
from hashsearch.imagefiles.orientation import UPRIGHT, orientation_of, turned
from hashsearch.imagefiles.plain import (
    MAX_PIXELS,
    PlainFile,
    narrowed,
    require_few_pixels,
    unchanged,
    unread,
)

PREPROCESSING = "2"
# A model of an earlier version still opens, and its codes are searched; but no picture that is
# decoded today may be encoded by it.
READ_PREPROCESSINGS = ("1", "2")

TINY_SIDE = 32
TINY_BYTES = TINY_SIDE * TINY_SIDE * 3
THUMBNAIL_SIDE = 128
PREVIEW_SIDE = 512
MAX_FILE_BYTES = 256 * 2**20  # 64 megapixels of 8-bit RGBA, uncompressed

_OF_PILLOW = tuple(n for row in FILE_FORMATS for n in row.names if n != "HEIF")  # Pillow's names
_HAS_HEIF = find_spec("pillow_heif") is not None  # HEIC comes with the extra `heic`
ACCEPTED_FORMATS = (*_OF_PILLOW, "HEIF") if _HAS_HEIF else _OF_PILLOW
ACCEPTED_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
).union(HEIC_SUFFIXES if _HAS_HEIF else ())

_WIDE_SAMPLES = ("I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A picture as the model sees it.

    tiny: (32, 32, 3) uint8 RGB. width, height: of the upright original, in
    pixels, also where only a crop of it was decoded. thumbnail: the centre square
    as JPEG, at most 128 px a side; None if none was requested, or if the original
    is no larger than `tiny`.
    """

    tiny: NDArray[np.uint8]
    width: int
    height: int
    thumbnail: bytes | None = None


def decode(data: bytes, *, thumbnail: bool = False, crop: Crop = WHOLE) -> DecodedImage:
    """Turn the bytes of an image file into a tiny image.

    Upright after EXIF, the crop, white under transparency, first frame, 16 bits
    brought down to their high 8, the centre square, area-averaged to 32×32; a
    32×32 picture is left untouched. JPEG is decoded at the smallest of libjpeg's
    scales (1, 1/2, 1/4, 1/8) at which the shorter side of the crop is still at
    least 128 px; the edges of the crop are rounded to whole pixels at that scale.

    docs/formats.md says what is read of each format. Metadata are not given to
    Pillow: they neither refuse a picture nor cost time or memory.

    Raises UnsupportedFormat if the bytes are in none of ACCEPTED_FORMATS, or of a
    kind that is not read; ImageTooLarge above MAX_PIXELS, and if decoding would
    take too much work (both before anything is decoded); InvalidImage if they are
    damaged; and InvalidQuery if the crop holds no pixel.
    """
    image, plain = _open(data)
    require_few_pixels(*image.size)
    size = _upright_size(image, plain)
    _draft(image, crop, size)
    what = f"the {image.format} image of {len(data):,} bytes"
    return _reduced(image, size, what, thumbnail, plain, crop)


def whole_picture(data: bytes) -> Image.Image:
    """The picture of an image file at full size, RGB and upright, by the rules of `decode`.

    Raises what `decode` raises.
    """
    image, plain = _open(data)
    require_few_pixels(*image.size)
    with _reading(f"the {image.format} image of {len(data):,} bytes"):
        image.load()
        return _to_rgb(turned(plain.mend(image), plain.orientation))


def preview(data: bytes) -> NDArray[np.uint8]:
    """The whole picture of an image file, reduced to at most PREVIEW_SIDE pixels a side.

    RGB and upright, by the rules of `decode`. Returns (height, width, 3) uint8. A JPEG is decoded
    at a smaller scale. Raises what `decode` raises.
    """
    image, plain = _open(data)
    require_few_pixels(*image.size)
    image.draft(None, (PREVIEW_SIDE, PREVIEW_SIDE))
    with _reading(f"the {image.format} image of {len(data):,} bytes"):
        image.load()
        picture = _to_rgb(turned(plain.mend(image), plain.orientation))
        picture.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.BOX)
        return np.asarray(picture)


def from_picture(image: Image.Image, *, crop: Crop = WHOLE) -> DecodedImage:
    """Turn a picture that Pillow holds into a tiny image, by the rules of `decode`.

    A JPEG is not decoded at a smaller scale, so that a few bits of its code may differ from
    those of the file, and pictures of GIF and BMP count as Pillow shows them. The picture is not
    changed. Raises ImageTooLarge, InvalidImage and InvalidQuery as `decode` does.
    """
    copy, plain, what = _copied(image)
    return _reduced(copy, _upright_size(copy, plain), what, False, plain, crop)


def rgb_of(image: Image.Image) -> Image.Image:
    """A picture that Pillow holds at full size, RGB and upright, by the rules of `from_picture`.

    Raises what `from_picture` raises.
    """
    copy, plain, what = _copied(image)
    with _reading(what):
        copy.load()
        return _to_rgb(turned(plain.mend(copy), plain.orientation))


def _copied(image: Image.Image) -> tuple[Image.Image, PlainFile, str]:
    """A copy of a picture that Pillow holds, what its metadata say, and its name in messages."""
    require_few_pixels(*image.size)
    what = f"the {image.format or image.mode} image"
    if 0 in image.size:
        raise InvalidImage(f"{what} has {image.width}×{image.height} pixels")
    try:
        copy = image.copy()
    except (OSError, ValueError) as error:  # damaged, or closed
        raise InvalidImage(f"{what} is closed, damaged or cut short") from error
    return copy, PlainFile(b"", _orientation_in(copy), _mend_of(image)), what


def _orientation_in(image: Image.Image) -> int:
    """How a picture that Pillow holds is to be turned. Metadata that it cannot read are none."""
    try:
        value = image.getexif().get(0x0112)
        if isinstance(value, bytes):
            value = value[0]
        found = int(value or UPRIGHT)
    except Exception:  # Pillow raises many classes on bad metadata
        return UPRIGHT
    return found if found in range(1, 9) else UPRIGHT


def _mend_of(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """What makes a picture that Pillow opened from a TIFF file the one that the file means."""
    tags = getattr(image, "tag_v2", None)  # of TIFF alone
    if image.mode not in _WIDE_SAMPLES or tags is None:
        return unchanged
    (bits, *_), photometric = tags.get(258, (16,)), tags.get(262, 1)
    return partial(narrowed, bits=bits, inverted=photometric == 0)


def _upright_size(image: Image.Image, plain: PlainFile) -> tuple[int, int]:
    """Width and height of the picture that `turned` makes upright."""
    return image.size if plain.orientation < 5 else (image.height, image.width)


def _draft(image: Image.Image, crop: Crop, size: tuple[int, int]) -> None:
    """Choose the scale at which a JPEG is decoded. size: of the upright picture.

    Other formats have one scale. Raises InvalidQuery if the crop holds no pixel.
    """
    left, top, right, bottom = crop.pixels(*size)
    side = min(right - left, bottom - top)
    scale = max((part for part in (8, 4, 2) if side >= part * THUMBNAIL_SIDE), default=1)
    image.draft(None, (image.width // scale, image.height // scale))


def _reduced(
    image: Image.Image,
    size: tuple[int, int],
    what: str,
    thumbnail: bool,
    plain: PlainFile,
    crop: Crop,
) -> DecodedImage:
    """Load a picture and reduce a crop of it to a tiny image. size: of the whole upright picture.

    Raises InvalidQuery if the crop holds no pixel.
    """
    crop.pixels(*size)  # before anything is decoded
    with _reading(what):
        image.load()
        upright = turned(plain.mend(image), plain.orientation)
        return _of_square(
            _to_rgb(_centre_square(_cropped(upright, crop))), size, thumbnail=thumbnail
        )


def _of_square(square: Image.Image, size: tuple[int, int], *, thumbnail: bool) -> DecodedImage:
    """The tiny image of an RGB square. size: of the whole upright picture."""
    width, height = size
    return DecodedImage(
        tiny=np.asarray(_shrink(square, TINY_SIDE)),
        width=width,
        height=height,
        thumbnail=thumbnail_of(square) if thumbnail else None,
    )


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Raise InvalidImage for anything that Pillow raises on bad bytes."""
    try:
        yield
    except InvalidImage:
        raise
    except MemoryError as error:
        raise InvalidImage("there is not enough memory to decode the image") from error
    except Exception as error:  # Pillow raises many classes
        raise InvalidImage(f"{what} is damaged or cut short") from error


def from_pixels(
    pixels: NDArray[np.uint8], *, thumbnail: bool = False, crop: Crop = WHOLE
) -> DecodedImage:
    """Turn pixels that are decoded already into a tiny image, by the rules of `decode`.

    pixels: (height, width, 3) uint8 RGB. A 32×32 picture that is not cropped is left
    untouched, and not copied. Raises ImageTooLarge above MAX_PIXELS, and InvalidQuery if
    the crop holds no pixel.
    """
    height, width, _ = pixels.shape
    if (height, width) == (TINY_SIDE, TINY_SIDE) and crop == WHOLE:
        return DecodedImage(pixels, width, height)
    require_few_pixels(width, height)
    square = _centre_square(_cropped(Image.fromarray(pixels), crop))
    return _of_square(square, (width, height), thumbnail=thumbnail)


def read_image_file(path: Path) -> bytes:
    """Read a regular file's bytes. Raises OSError, and ImageTooLarge above MAX_FILE_BYTES."""
    # Without O_NONBLOCK, opening a pipe waits until somebody writes into it.
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageTooLarge(
                f"the file has {status.st_size:,} bytes; at most {MAX_FILE_BYTES:,} are read"
            )
        return file.read(MAX_FILE_BYTES)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Write (height, width, 3) uint8 RGB, or (height, width) uint8 grey levels, as PNG."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def quiet_pillow() -> None:
    """Suppress Pillow's warning about large images; programs call this when they start.

    Pillow warns from 89 megapixels on, which `decode` refuses anyway.
    """
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def _open(data: bytes) -> tuple[Image.Image, PlainFile]:
    row = next((row for row in FILE_FORMATS if row.begins(data)), None)
    formats = () if row is None else row.names
    if "HEIF" in formats and not _register_heif():
        if not is_avif(data):
            raise UnsupportedFormat(missing_heic())
        formats = ("AVIF",)
    if row is None:
        raise UnsupportedFormat(
            f"the {'byte is' if len(data) == 1 else f'{len(data):,} bytes are'} not an image in an "
            "accepted format; "
            f"accepted are {', '.join(ACCEPTED_FORMATS)}"
        )
    plain = row.plain_file(data)
    try:
        image = Image.open(BytesIO(plain.data), formats=formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(
            f"the image has more than {MAX_PIXELS:,} pixels, the most that are decoded"
        ) from error
    except Exception as error:
        if plain.kind is not None:
            raise unread(row.names[0], plain.kind) from error
        raise InvalidImage(f"the image of {len(data):,} bytes is damaged or cut short") from error
    if image.format == "AVIF":  # Pillow puts into EXIF how the file's own properties turn it
        plain = replace(plain, orientation=orientation_of(image.info.get("exif")))
    return image, plain


@cache
def _register_heif() -> bool:
    """Let Pillow open HEIC. Called for the first HEIC file, since the import takes a while.

    Returns whether HEIC can be opened: not if the extra is missing or broken.
    """
    try:
        import pillow_heif
    except ImportError:
        return False
    # One thread per image, since many are decoded at once; embedded thumbnails are ignored.
    pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)
    return True


def _cropped(image: Image.Image, crop: Crop) -> Image.Image:
    return image if crop == WHOLE else image.crop(crop.pixels(*image.size))


def _centre_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    if image.width == image.height:
        return image
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _WIDE_SAMPLES:
        image = narrowed(image, clear=image.info.get("transparency"))
    if image.mode in ("I", "F"):
        raise InvalidImage(
            "the image has 32-bit samples, whose black and white are not defined; "
            "8 or 16 bits per sample are accepted"
        )
    if image.mode == "La":  # Pillow turns it into this mode alone
        image = image.convert("LA")
    if image.has_transparency_data:
        clear = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(clear, mask=clear)  # needs the least memory: one canvas beside the picture
        return white
    return image.convert("RGB")


def _shrink(square: Image.Image, side: int) -> Image.Image:
    if square.width == side:
        return square
    return square.resize((side, side), Image.Resampling.BOX)


def thumbnail_of(square: Image.Image) -> bytes | None:
    if square.width <= TINY_SIDE:
        return None
    buffer = BytesIO()
    _shrink(square, min(square.width, THUMBNAIL_SIDE)).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
