"""Image files, made plain before Pillow sees them: one module a format, and this table of them.

A module's `plain_file` takes out the metadata, so that they can neither refuse a picture nor
cost time or memory, and refuses what would take too much work or would be read wrongly.
"""

from collections.abc import Callable
from dataclasses import dataclass

from hashsearch.imagefiles import bmp, boxes, gif, jpeg, png, tiff, webp
from hashsearch.imagefiles.plain import PlainFile


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type, such as "image/png", and whether browsers show pictures of it."""

    name: str
    in_browsers: bool = True


@dataclass(frozen=True, slots=True)
class FileFormat:
    """Formats by Pillow's names, how their files begin, and how they are made plain.

    media_types: of each name.
    """

    names: tuple[str, ...]
    begins: Callable[[bytes], bool]
    plain_file: Callable[[bytes], PlainFile]
    media_types: tuple[MediaType, ...]


FILE_FORMATS = (
    FileFormat(("JPEG",), jpeg.begins, jpeg.plain_file, (MediaType("image/jpeg"),)),
    FileFormat(("PNG",), png.begins, png.plain_file, (MediaType("image/png"),)),
    FileFormat(("WEBP",), webp.begins, webp.plain_file, (MediaType("image/webp"),)),
    FileFormat(("GIF",), gif.begins, gif.plain_file, (MediaType("image/gif"),)),
    FileFormat(("BMP",), bmp.begins, bmp.plain_file, (MediaType("image/bmp"),)),
    FileFormat(
        ("TIFF",), tiff.begins, tiff.plain_file, (MediaType("image/tiff", in_browsers=False),)
    ),
    FileFormat(
        ("AVIF", "HEIF"),
        boxes.begins,
        boxes.plain_file,
        (MediaType("image/avif"), MediaType("image/heic", in_browsers=False)),
    ),
)


def media_type_of(start: bytes) -> MediaType | None:
    """The media type of an image file by its first 4 KB; None if it begins as none does."""
    row = next((row for row in FILE_FORMATS if row.begins(start)), None)
    if row is None:
        return None
    is_first = len(row.media_types) == 1 or boxes.is_avif(start)
    return row.media_types[0 if is_first else 1]
