"""How a picture is to be turned, as its metadata say. Whatever cannot be read means upright."""

import re
import struct

from PIL import Image

UPRIGHT = 1
_TAG = 0x0112
_FORMATS = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i"}  # of TIFF's whole numbers
_ASCII = 2
_IN_XMP = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([0-9]+)\s*[\"'<]")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The upright picture of one that is stored in an orientation of EXIF, 1 to 8."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def orientation_of(exif: bytes | None, xmp: bytes | None = None) -> int:
    """The orientation, 1 to 8, by EXIF, or by XMP if EXIF has no such tag.

    exif: a TIFF header and its first directory, perhaps after "Exif" and two zero bytes. The
    tag may be a whole number of any type, or digits; 1 if it is anything else.
    """
    found = None if exif is None else _in_exif(exif)
    if found is None and xmp is not None:
        match = _IN_XMP.search(xmp)
        found = int(match[1][:2]) if match else None
    return found if found in _TURNS else UPRIGHT


def orientation_value(raw: bytes, kind: int, order: str) -> int:
    """The number in at least 4 bytes of a TIFF entry's value; 0 if there is none.

    kind: the entry's type. order: "<" or ">".
    """
    if kind == _ASCII:
        digits = raw.split(b"\0")[0].strip()
        return int(digits) if digits.isdigit() else 0
    if kind not in _FORMATS or len(raw) < 4:
        return 0
    value: int = struct.unpack_from(order + _FORMATS[kind], raw)[0]
    return value


def _in_exif(exif: bytes) -> int | None:
    """The value of the tag, which may be none of 1 to 8; None if there is no such tag."""
    exif = exif.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return None
    (first,) = struct.unpack_from(order + "I", exif, 4)
    if first + 2 > len(exif):
        return None
    (count,) = struct.unpack_from(order + "H", exif, first)
    for at in range(first + 2, min(first + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", exif, at)
        if tag == _TAG:
            return orientation_value(exif[at + 8 : at + 12], kind, order)
    return None
