"""AVIF and HEIC: files of boxes, ISO/IEC 14496-12 and 23008-12."""

import struct
from collections.abc import Iterator
from functools import cache

from hashsearch.errors import ImageTooLarge, InvalidImage
from hashsearch.imagefiles.plain import MAX_PIXELS, PlainFile, require_few_parts

# A picture that is put together from tiles is decoded once, and so are its tiles.
MAX_DECODED_PIXELS = 3 * MAX_PIXELS
_DEEPEST = 8  # pictures made of pictures
_OF_AVIF = frozenset((b"avif", b"avis"))
_BRANDS = _OF_AVIF.union(
    (b"mif1", b"msf1", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
)


def begins(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in _BRANDS  # films begin like this too


def plain_file(data: bytes) -> PlainFile:
    """Hide the metadata: the libraries turn the picture by its own properties, not by EXIF.

    Raises ImageTooLarge if the picture is put together from too many others, and InvalidImage.
    """
    meta = [box[1:] for box in _boxes(data, 0, len(data)) if box[0] == b"meta"]
    if not meta:
        return PlainFile(data)
    try:
        items, references, sizes = _items(data, meta[0][0] + 4, meta[0][1])
    except (struct.error, IndexError) as error:  # a library may overlook it, and do all the work
        raise InvalidImage(f"the image of {len(data):,} bytes is damaged or cut short") from error
    _require_little_work(references, sizes)
    plain = bytearray(data)
    for place in items:
        if bytes(plain[place : place + 4]) in (b"Exif", b"mime"):
            plain[place : place + 4] = b"skip"
    return PlainFile(bytes(plain))


def is_avif(data: bytes) -> bool:
    """Whether a file that `begins` like this is AVIF; otherwise it is HEIC."""
    end = min(int.from_bytes(data[:4]), 4096)
    return not _OF_AVIF.isdisjoint((data[8:12], *(data[at : at + 4] for at in range(16, end, 4))))


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name of each box, and where its content begins and ends."""
    count = 0
    while start + 8 <= end:
        count += 1
        require_few_parts(count, "boxes")
        size, name = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if size == 1 and content + 8 <= end:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = end if size == 0 else min(end, start + size)
        if stop < content:
            return
        yield name, content, stop
        start = stop


def _items(
    data: bytes, start: int, end: int
) -> tuple[list[int], dict[int, list[int]], dict[int, int]]:
    """Read a box "meta".

    Returns where each item's type is; the items that each derived item is made of; and
    the pixels of each item.
    """
    types: list[int] = []
    references: dict[int, list[int]] = {}
    properties: list[int] = []
    pixels: dict[int, int] = {}
    for name, at, stop in _boxes(data, start, end):
        if name == b"iinf":
            first = at + (6 if data[at] == 0 else 8)
            for inner, entry, _ in _boxes(data, first, stop):
                if inner == b"infe" and data[entry] >= 2:
                    types.append(entry + (8 if data[entry] == 2 else 10))
        elif name == b"iref":
            code = "H" if data[at] == 0 else "I"
            for inner, entry, inner_stop in _boxes(data, at + 4, stop):
                if inner == b"dimg":
                    body = data[entry:inner_stop]  # boxes do not share their bytes
                    owner, count = struct.unpack_from(f">{code}H", body)
                    parts = struct.unpack_from(
                        f">{count}{code}", body, struct.calcsize(f">{code}H")
                    )
                    references.setdefault(owner, []).extend(parts)
        elif name == b"iprp":
            for inner, entry, inner_stop in _boxes(data, at, stop):
                if inner == b"ipco":
                    for kind, place, _ in _boxes(data, entry, inner_stop):
                        width, height = (
                            struct.unpack_from(">II", data, place + 4)
                            if kind == b"ispe"
                            else (0, 0)
                        )
                        properties.append(width * height)
                elif inner == b"ipma":
                    _associate(data[entry:inner_stop], properties, pixels)
    return types, references, pixels


def _associate(data: bytes, properties: list[int], pixels: dict[int, int]) -> None:
    """Read the content of a box "ipma": which properties each item has."""
    version, flags = data[0], data[3]
    (count,) = struct.unpack_from(">I", data, 4)
    at = 8
    require_few_parts(count, "items")
    for _ in range(count):
        code = "I" if version else "H"
        item, number = struct.unpack_from(f">{code}B", data, at)
        at += struct.calcsize(f">{code}B")
        wide = flags & 1
        indexes = struct.unpack_from(f">{number}{'H' if wide else 'B'}", data, at)
        at += number * (2 if wide else 1)
        for index in indexes:
            index &= 0x7FFF if wide else 0x7F
            if 0 < index <= len(properties):
                pixels[item] = max(pixels.get(item, 0), properties[index - 1])


def _require_little_work(references: dict[int, list[int]], pixels: dict[int, int]) -> None:
    @cache
    def work(item: int, depth: int) -> int:
        if depth == _DEEPEST:
            return MAX_DECODED_PIXELS + 1
        parts = references.get(item, ())
        return pixels.get(item, 0) + sum(work(part, depth + 1) for part in parts)

    for item in references:
        if work(item, 0) > MAX_DECODED_PIXELS:
            raise ImageTooLarge(
                "the image is put together from others of more than "
                f"{MAX_DECODED_PIXELS:,} pixels, the most that are decoded"
            )
