"""Image files, made plain before Pillow sees them: one module a format, and this table of them.

A module's `plain_file` takes out the metadata, so that they can neither refuse a picture nor
cost time or memory, and refuses what would take too much work or would be read wrongly.
"""

from collections.abc import Callable
from dataclasses import dataclass

from hashsearch.imagefiles import bmp, boxes, gif, jpeg, png, tiff, webp
from hashsearch.imagefiles.plain import PlainFile


@dataclass(frozen=True, slots=True)
class FileFormat:
    """Formats by Pillow's names, how their files begin, and how they are made plain."""

    names: tuple[str, ...]
    begins: Callable[[bytes], bool]
    plain_file: Callable[[bytes], PlainFile]


FILE_FORMATS = (
    FileFormat(("JPEG",), jpeg.begins, jpeg.plain_file),
    FileFormat(("PNG",), png.begins, png.plain_file),
    FileFormat(("WEBP",), webp.begins, webp.plain_file),
    FileFormat(("GIF",), gif.begins, gif.plain_file),
    FileFormat(("BMP",), bmp.begins, bmp.plain_file),
    FileFormat(("TIFF",), tiff.begins, tiff.plain_file),
    FileFormat(("AVIF", "HEIF"), boxes.begins, boxes.plain_file),
)
