"""WebP: its size and its metadata are read from the RIFF chunks."""

import struct

from hashsearch.imagefiles.orientation import orientation_of
from hashsearch.imagefiles.plain import PlainFile, require_few_parts, require_few_pixels


def begins(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def plain_file(data: bytes) -> PlainFile:
    """Raises ImageTooLarge for a canvas of too many pixels, which Pillow would allocate."""
    metadata: dict[bytes, bytes] = {}
    position, parts = 12, 0
    while position + 8 <= len(data):
        parts += 1
        require_few_parts(parts, "chunks")
        name, length = struct.unpack_from("<4sI", data, position)
        if name == b"VP8X" and position + 18 <= len(data):
            canvas = data[position + 12 : position + 18]
            require_few_pixels(
                int.from_bytes(canvas[:3], "little") + 1, int.from_bytes(canvas[3:], "little") + 1
            )
        if name in (b"EXIF", b"XMP "):
            metadata.setdefault(name, data[position + 8 : position + 8 + length])
        position += 8 + length + length % 2
    return PlainFile(data, orientation_of(metadata.get(b"EXIF"), metadata.get(b"XMP ")))
