"""TIFF: in its first directory, only the tags that the pixels need are left."""

import struct
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from PIL import Image

from hashsearch.errors import ImageTooLarge, InvalidImage
from hashsearch.imagefiles.jpeg import MAX_SCANNED_PIXELS
from hashsearch.imagefiles.orientation import UPRIGHT, orientation_of, orientation_value
from hashsearch.imagefiles.plain import (
    MAX_PIXELS,
    PlainFile,
    narrowed,
    require_few_parts,
    require_few_pixels,
    unchanged,
    unread,
)
from hashsearch.wording import counted

_ORDERS = {b"II": "<", b"MM": ">"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}  # bytes of a value by type
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _STRIP_ROWS, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
_ORIENTATION, _EXTRA, _FORMAT, _SUBSAMPLING, _XMP = 274, 338, 339, 530, 700
# Fill order, fax options, predictor, colour map, JPEG's tables, and YCbCr's coefficients.
_OTHERS = (266, 292, 293, 317, 320, 326, 327, 328, 347, *range(512, 522), 529, 531, 532)
_PARTS = {_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES}  # one value per strip or tile
_KEPT = {
    _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _STRIP_ROWS, _PLANAR,
    _TILE_WIDTH, _TILE_HEIGHT, _EXTRA, _FORMAT, _SUBSAMPLING, *_OTHERS, *_PARTS,
}  # fmt: skip
_MAX_VALUES = 2**18  # of the other tags; a colour map of 16 bits has 196,608

_PALETTE_COLOURS = 320
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_UNCOMPRESSED, _SEPARATE, _UNSIGNED = 1, 2, 1
_COMPRESSIONS = {  # fax, LZW, JPEG, deflate, PackBits, ThunderScan, LZMA and Zstandard
    1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32809, 32946, 34925, 50000,
}  # fmt: skip
_COLOURS = {
    0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIELAB",
    9: "ICCLAB", 10: "ITULAB", 32803: "colour filter array", 32844: "LogL", 32845: "LogLuv",
    34892: "linear raw",
}  # fmt: skip
_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex float"}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tag's type and number of values, its entry's bytes, and where its values are."""

    kind: int
    count: int
    raw: bytes
    at: int


def begins(data: bytes) -> bool:
    return data[:2] in _ORDERS and data[2:4] in (b"*\0", b"\0*", b"\0+", b"+\0")


def plain_file(data: bytes) -> PlainFile:
    """Raises ImageTooLarge, UnsupportedFormat for kinds that are not read, and InvalidImage."""
    try:
        return _plain_file(data, _ORDERS[data[:2]])
    except (struct.error, IndexError, OverflowError) as error:
        raise InvalidImage(
            f"the TIFF image of {len(data):,} bytes is damaged or cut short"
        ) from error


def _plain_file(data: bytes, order: str) -> PlainFile:
    is_big = b"+" in data[2:4]
    position, entries = _directory(data, order, is_big)
    tag = partial(_values, data, order, entries)

    def one(number: int, default: int) -> int:
        return (tag(number) or (default,))[0]

    width, height = one(_WIDTH, 0), one(_HEIGHT, 0)
    if not width * height:
        raise IndexError("the directory has no size")
    require_few_pixels(width, height)
    kind = _kind(tag)
    if is_big and order == ">":
        kind += ", BigTIFF in big-endian order"  # which Pillow does not open
    scan_pixels = _part_pixels(entries, one, width, height)
    if one(_COMPRESSION, 1) in (6, 7):
        _require_few_scans(data, tag, scan_pixels)
    mend: Callable[[Image.Image], Image.Image] = unchanged
    bits, photometric = one(_BITS, 1), one(_PHOTOMETRIC, _WHITE_IS_ZERO)
    is_inverted = photometric == _WHITE_IS_ZERO
    if one(_SAMPLES, 1) == 1 and photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        # Pillow leaves samples of more than 8 bits as they are, and inverts few of the others.
        if is_inverted and bits >= 8 and _PHOTOMETRIC in entries:
            entries[_PHOTOMETRIC] = _whole_number(_PHOTOMETRIC, _BLACK_IS_ZERO, order, is_big)
            mend = partial(narrowed, bits=bits, inverted=True)
        elif bits > 8:
            mend = partial(narrowed, bits=bits, inverted=is_inverted)
    orientation = UPRIGHT
    if (entry := entries.get(_ORIENTATION)) is not None:
        raw = data[entry.at : entry.at + max(8, _SIZES.get(entry.kind, 1))]
        orientation = orientation_value(raw, entry.kind, order) or UPRIGHT
    elif (entry := entries.get(_XMP)) is not None:
        orientation = orientation_of(None, data[entry.at : entry.at + entry.count])
    return PlainFile(
        _with_directory(data, order, is_big, position, entries),
        orientation if 1 <= orientation <= 8 else UPRIGHT,
        mend,
        kind,
    )


def _directory(data: bytes, order: str, is_big: bool) -> tuple[int, dict[int, _Entry]]:
    """Where the first directory begins, and its entries by tag."""
    first, count, size, value = (8, "Q", 20, 8) if is_big else (4, "H", 12, 4)
    offset = "Q" if is_big else "I"
    (position,) = struct.unpack_from(order + offset, data, first)
    (entries,) = struct.unpack_from(order + count, data, position)
    start = position + struct.calcsize(count)
    if start + entries * size + struct.calcsize(offset) > len(data):
        raise IndexError("the directory is cut short")
    require_few_parts(entries, "tags")
    found: dict[int, _Entry] = {}
    for at in range(start, start + entries * size, size):
        number, kind = struct.unpack_from(order + "HH", data, at)
        (values,) = struct.unpack_from(order + offset, data, at + 4)
        inner = at + size - value
        if _SIZES.get(kind, 1) * values > value:
            (inner,) = struct.unpack_from(order + offset, data, inner)
        if number in _PARTS:
            require_few_parts(values, "strips or tiles")
        elif number in _KEPT and values > _MAX_VALUES:
            raise InvalidImage(f"the TIFF image has {values:,} values of tag {number}")
        found.setdefault(number, _Entry(kind, values, data[at : at + size], inner))
    return position, found


def _values(data: bytes, order: str, entries: Mapping[int, _Entry], number: int) -> tuple[int, ...]:
    """A tag's whole numbers; none if it is missing, or of another type."""
    entry = entries.get(number)
    if entry is None or entry.kind not in _WHOLE_NUMBERS:
        return ()
    return struct.unpack_from(f"{order}{entry.count}{_WHOLE_NUMBERS[entry.kind]}", data, entry.at)


def _part_pixels(
    entries: Mapping[int, _Entry], one: Callable[[int, int], int], width: int, height: int
) -> int:
    """The pixels of a strip or tile.

    Raises ImageTooLarge if tiles have many more pixels than the picture, since all are decoded.
    """
    rows = min(height, one(_STRIP_ROWS, height)) or 1
    require_few_parts(-(-height // rows), "strips")
    # By these tags libtiff knows tiles, also in a file that has places of strips too.
    if entries.keys() & {_TILE_WIDTH, _TILE_HEIGHT}:
        across, down = max(1, one(_TILE_WIDTH, 1)), max(1, one(_TILE_HEIGHT, 1))
        tiles = -(-width // across) * -(-height // down)
        require_few_parts(tiles, "tiles")
        if tiles * across * down > MAX_PIXELS + 4 * width * height:
            raise ImageTooLarge(
                f"the tiles of the TIFF image have {tiles * across * down:,} pixels for a picture "
                f"of {width}×{height}"
            )
        return across * down
    return width * rows


def _require_few_scans(data: bytes, tag: Callable[[int], tuple[int, ...]], pixels: int) -> None:
    """Raises ImageTooLarge; pixels: of a strip or tile, each of which is a JPEG of its own."""
    offsets = tag(_STRIP_OFFSETS) + tag(_TILE_OFFSETS)
    sizes = tag(_STRIP_BYTES) + tag(_TILE_BYTES)
    scans, at = [], data.find(b"\xff\xda")
    while at >= 0:
        scans.append(at)
        require_few_parts(len(scans), "scans")
        at = data.find(b"\xff\xda", at + 2)
    if not any(sizes):  # libtiff then reads to the end of the file
        sizes = (len(data),) * len(offsets)
    total = sum(
        bisect_left(scans, start + size) - bisect_left(scans, start)
        for start, size in zip(offsets, sizes, strict=False)
    )
    if total * pixels > MAX_SCANNED_PIXELS:
        raise ImageTooLarge(
            f"the JPEG parts of the TIFF image have {total:,} scans of {pixels:,} pixels each; "
            f"at most {MAX_SCANNED_PIXELS:,} pixels are scanned"
        )


def _kind(tag: Callable[[int], tuple[int, ...]]) -> str:
    """What the file holds, such as "RGB, 3 samples of 32-bit float".

    Raises UnsupportedFormat for what Pillow reads wrongly, or cannot read although it opens it.
    """
    samples, photometric, compression, planar = (
        (tag(number) or (default,))[0]
        for number, default in ((_SAMPLES, 1), (_PHOTOMETRIC, 0), (_COMPRESSION, 1), (_PLANAR, 1))
    )
    bits, form = tag(_BITS) or (1,), tag(_FORMAT) or (_UNSIGNED,)
    colour = _COLOURS.get(photometric, f"photometric {photometric}")
    each = "/".join(str(n) for n in dict.fromkeys(bits))
    kind = f"{colour}, {counted(samples, 'sample')} of {each}-bit " + "/".join(
        _SAMPLE_FORMATS.get(n, f"format {n}") for n in dict.fromkeys(form)
    )
    if compression != _UNCOMPRESSED:
        kind += f", compression {compression}"
    if planar == _SEPARATE and samples > 1:
        kind += ", planes apart"
    if photometric == _YCBCR and compression == _UNCOMPRESSED:
        subsampling = tag(_SUBSAMPLING) or (2, 2)
        kind += f", subsampling {'×'.join(map(str, subsampling))}"
        is_read = subsampling == (1, 1)
    elif photometric == _PALETTE:
        is_read = max(tag(_PALETTE_COLOURS), default=0) > 255
        kind += "" if is_read else ", colours of 8 bits"
    else:
        is_read = True
    is_read &= set(form) == {_UNSIGNED} and max(bits) <= 16 and compression in _COMPRESSIONS
    if planar == _SEPARATE and samples > 1:
        is_read &= photometric in (_RGB, _CMYK)
        is_read &= compression != _UNCOMPRESSED or (set(bits) == {8} and _is_plain(tag(_EXTRA)))
    if not is_read:
        raise unread("TIFF", kind)
    return kind


def _is_plain(extra: tuple[int, ...]) -> bool:
    """Whether the extra samples are none, or an alpha that is not multiplied into the others."""
    return extra in ((), (2,))


def _whole_number(number: int, value: int, order: str, is_big: bool) -> _Entry:
    layout = order + ("HHQH6x" if is_big else "HHIH2x")
    return _Entry(3, 1, struct.pack(layout, number, 3, 1, value), 0)


def _with_directory(
    data: bytes, order: str, is_big: bool, position: int, entries: Mapping[int, _Entry]
) -> bytes:
    """The file with another directory in the place of its first, and no further ones.

    It is no longer than the old one, since its tags are those in _KEPT.
    """
    kept = [entries[number].raw for number in sorted(_KEPT & entries.keys())]
    count, offset = ("Q", "Q") if is_big else ("H", "I")
    directory = struct.pack(order + count, len(kept)) + b"".join(kept)
    directory += bytes(struct.calcsize(offset))
    rest = memoryview(data)[position + len(directory) :]
    return b"".join((memoryview(data)[:position], directory, rest))
