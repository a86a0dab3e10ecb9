"""BMP: its kinds by header, bits and compression."""

import struct

from PIL import Image

from hashsearch.errors import ImageTooLarge
from hashsearch.imagefiles.plain import PlainFile, unchanged, unread

# Pillow unpacks RLE in Python, pixel by pixel: half a second for a million of them.
MAX_RLE = 8_000_000  # pixels, and bytes of the file

_NO_COMPRESSION, _RLE8, _RLE4, _BIT_FIELDS = range(4)
_NAMES = {4: "JPEG inside", 5: "PNG inside", 6: "bit fields with alpha", 11: "CMYK"}


def begins(data: bytes) -> bool:
    return data[:2] == b"BM"


def plain_file(data: bytes) -> PlainFile:
    """Raises ImageTooLarge for RLE that would take too long, and UnsupportedFormat."""
    if len(data) < 26:
        return PlainFile(data)
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size == 12:
        width, height, _, bits = struct.unpack_from("<4H", data, 18)
        return PlainFile(data, kind=f"{bits} bits")
    if len(data) < max(34, 14 + header_size):
        return PlainFile(data)  # cut short
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    kind = f"header of {header_size} bytes, {bits} bits"
    if compression in (_RLE8, _RLE4):
        if max(abs(width * height), len(data)) > MAX_RLE:
            raise ImageTooLarge(
                f"the BMP image of {len(data):,} bytes has {abs(width)}×{abs(height)} pixels in "
                f"RLE, of which at most {MAX_RLE:,} bytes and pixels are decoded"
            )
    elif compression not in (_NO_COMPRESSION, _BIT_FIELDS):
        raise unread("BMP", _NAMES.get(compression, f"compression {compression}"))
    if compression == _BIT_FIELDS:
        kind += ", bit fields"
    if bits in (4, 8) and header_size >= 40:
        data = _with_three_colours(data, header_size)
    return PlainFile(data, mend=_opaque_if_all_clear if bits == 32 else unchanged, kind=kind)


def _with_three_colours(data: bytes, header_size: int) -> bytes:
    """Lengthen a palette of one or two colours, from which Pillow would infer 1 bit a pixel."""
    if len(data) < 14 + header_size:
        return data
    (colours,) = struct.unpack_from("<I", data, 46)
    if colours not in (1, 2):
        return data
    (pixels_at,) = struct.unpack_from("<I", data, 10)
    palette_end, more = 14 + header_size + 4 * colours, b"\1\2\3\0" * (3 - colours)
    longer = bytearray(data[:palette_end] + more + data[palette_end:])
    struct.pack_into("<I", longer, 46, 3)
    struct.pack_into("<I", longer, 10, pixels_at and min(pixels_at + len(more), 2**32 - 1))
    return bytes(longer)


def _opaque_if_all_clear(image: Image.Image) -> Image.Image:
    """Many programs leave the bytes of the alpha channel zero, and mean an opaque picture."""
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    return image
