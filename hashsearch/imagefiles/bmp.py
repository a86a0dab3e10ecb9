"""BMP: the work of unpacking its run lengths is bounded."""

import struct

from hashsearch.errors import ImageTooLarge
from hashsearch.imagefiles.plain import PlainFile

# Pillow unpacks RLE in Python, pixel by pixel: half a second for a million of them.
MAX_RLE = 8_000_000  # pixels, and bytes of the file

_RLE8, _RLE4 = 1, 2


def begins(data: bytes) -> bool:
    return data[:2] == b"BM"


def plain_file(data: bytes) -> PlainFile:
    """Raises ImageTooLarge for RLE that would take too long."""
    if len(data) >= 34:
        (header_size,) = struct.unpack_from("<I", data, 14)
        width, height, compression = struct.unpack_from("<ii4xI", data, 18)
        is_rle = header_size > 12 and compression in (_RLE8, _RLE4)
        if is_rle and max(abs(width * height), len(data)) > MAX_RLE:
            raise ImageTooLarge(
                f"the BMP image of {len(data):,} bytes has {abs(width)}×{abs(height)} pixels in "
                f"RLE, of which at most {MAX_RLE:,} bytes and pixels are decoded"
            )
    return PlainFile(data)
