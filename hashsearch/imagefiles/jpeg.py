"""JPEG: its segments are read up to the first scan, and its scans are counted."""

import re
import struct

from hashsearch.errors import ImageTooLarge, InvalidImage
from hashsearch.imagefiles.orientation import orientation_of
from hashsearch.imagefiles.plain import (
    MAX_PIXELS,
    PlainFile,
    require_few_parts,
    require_few_pixels,
    unread,
)

# Every scan of a progressive JPEG goes through the whole picture, even if it holds no bytes.
# Cameras and encoders write about ten scans.
MAX_SCANS = 500
MAX_SCANNED_PIXELS = 12 * MAX_PIXELS

_MARKER = re.compile(rb"\xff([^\x00\xff])")
_MARKER_AFTER_SCAN = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_SOS, _EOI, _COMMENT = 0xDA, 0xD9, 0xFE
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_APPS = range(0xE0, 0xF0)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HIERARCHICAL = frozenset((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF))
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_XMP = b"http://ns.adobe.com/xap/1.0/\0"


def begins(data: bytes) -> bool:
    return data.startswith(b"\xff\xd8\xff")


def plain_file(data: bytes) -> PlainFile:
    """Take the metadata out, and what lies between the segments.

    The markers of JFIF and Adobe stay, since they say what the components are.
    Raises ImageTooLarge if decoding takes too much work, UnsupportedFormat for 12-bit and
    hierarchical JPEG and for other than 1, 3 or 4 components, and InvalidImage.
    """
    kept, position, parts = [data[:2]], 2, 0
    exif = xmp = None
    pixels, components, is_progressive, has_more_scans = 0, 0, False, True
    while (found := _MARKER.search(data, position)) is not None:
        parts += 1
        require_few_parts(parts, "segments")
        start, marker = found.start(), found[1][0]
        if marker in _WITHOUT_LENGTH:
            position = found.end()
            continue
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
        if marker in (_SOS, _EOI) or position > len(data):
            kept.append(data[start:])
            # libjpeg reads no second scan of a sequential picture if its first has everything.
            has_more_scans = is_progressive or data[start + 4 : start + 5] != bytes((components,))
            break
        segment = data[start:position]
        body = segment[4:]
        if marker in _FRAMES:
            if len(body) < 6:
                raise InvalidImage("the header of the JPEG image is damaged or cut short")
            bits, height, width, components = struct.unpack_from(">BHHB", body)
            _require_read(marker, bits, components)
            require_few_pixels(width, height)
            pixels, is_progressive = width * height, marker in _PROGRESSIVE
        if marker in _APPS or marker == _COMMENT:
            if exif is None and marker == 0xE1 and body.startswith(b"Exif\0"):
                exif = body
            elif xmp is None and marker == 0xE1 and body.startswith(_XMP):
                xmp = body[len(_XMP) :]
            is_adobe = marker == 0xEE and body.startswith(b"Adobe")
            if not (is_adobe or (marker == 0xE0 and body.startswith(b"JFIF\0"))):
                continue
        kept.append(segment)
    if has_more_scans:
        _require_few_scans(kept[-1], pixels)
    return PlainFile(b"".join(kept), orientation_of(exif, xmp))


def scans_above(data: bytes, most: int) -> bool:
    """Whether a JPEG has more than `most` scans. data: from its first scan on."""
    if data.count(b"\xff\xda") <= most:  # an upper bound: some may lie within other segments
        return False
    scans, position, parts = 1, _after_segment(data, 0), 0
    while (found := _MARKER_AFTER_SCAN.search(data, position)) is not None:
        parts += 1
        require_few_parts(parts, "segments")
        marker = found[1][0]
        if marker == _EOI:
            break
        scans += marker == _SOS
        if scans > most:
            return True
        position = found.end() if marker in _WITHOUT_LENGTH else _after_segment(data, found.start())
    return scans > most


def _after_segment(data: bytes, start: int) -> int:
    return start + 2 + int.from_bytes(data[start + 2 : start + 4])


def _require_few_scans(data: bytes, pixels: int) -> None:
    most = min(MAX_SCANS, MAX_SCANNED_PIXELS // max(1, pixels))
    if scans_above(data, most):
        raise ImageTooLarge(
            f"the JPEG image of {pixels:,} pixels has more than {most} scans, "
            "the most that are decoded for this size"
        )


def _require_read(marker: int, bits: int, components: int) -> None:
    if marker in _HIERARCHICAL:
        raise unread("JPEG", "hierarchical")
    if bits != 8:
        raise unread("JPEG", f"{bits}-bit samples")
    if components not in (1, 3, 4):
        raise unread("JPEG", f"{components} components")
