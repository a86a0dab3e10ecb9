"""Image files, put together byte by byte: kinds that Pillow does not write."""

import struct
import zlib
from collections.abc import Mapping, Sequence


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def after_start(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with segments before all others."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def progressive_jpeg(side: int, scans: int) -> bytes:
    """A grey square, whose scans after the first are empty but for their headers."""
    one_code = b"\1" + bytes(15)
    start = b"\xff\xd8" + segment(0xDB, b"\0" + b"\x10" * 64)
    start += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    start += segment(0xC4, b"\0" + one_code + b"\0") + segment(0xC4, b"\x10" + one_code + b"\xe0")
    first = segment(0xDA, b"\1\1\0\0\0\0") + bytes(side * side // 512 + 1)
    return start + first + segment(0xDA, b"\1\1\0\1\x3f\0") * (scans - 1) + b"\xff\xd9"


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    colour: int, depth: int, rows: bytes, *extra: bytes, side: int = 32, interlaced: bool = False
) -> bytes:
    """A square PNG. rows: each after its filter's byte. extra: chunks before the pixels."""
    header = chunk(b"IHDR", struct.pack(">2I5B", side, side, depth, colour, 0, 0, interlaced))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + chunk(b"IEND", b"")


Tags = Mapping[int, tuple[int, Sequence[int]]]  # a tag's type and values, by its number


def tiff(tags: Tags, data: bytes, order: str = "<") -> bytes:
    """A TIFF of one directory; its tag 273, the place of the pixels, is added."""
    every = {273: (4, [0]), **tags}
    start = 10 + 12 * len(every) + 4
    beyond, entries = b"", b""
    for number, (kind, values) in sorted(every.items()):
        if number == 273 and values == [0]:
            entries += struct.pack(order + "HHI", 273, 4, 1) + b"%OFF"
            continue
        code = {3: "H", 4: "I"}.get(kind, "B")
        raw = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(raw) <= 4:
            place = raw.ljust(4, b"\0")
        else:
            place, beyond = struct.pack(order + "I", start + len(beyond)), beyond + raw
        entries += struct.pack(order + "HHI", number, kind, len(values)) + place
    entries = entries.replace(b"%OFF", struct.pack(order + "I", start + len(beyond)))
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return header + struct.pack(order + "H", len(every)) + entries + bytes(4) + beyond + data


def grey_tiff(
    bits: int, white: int, data: bytes, extra: Tags | None = None, *, order: str = "<"
) -> bytes:
    """A grey TIFF of 32×32. white: 0 if the level 0 is white, else 1. extra: more tags."""
    sizes: Tags = {256: (3, [32]), 257: (3, [32]), 278: (3, [32]), 279: (4, [len(data)])}
    kind: Tags = {258: (3, [bits]), 259: (3, [1]), 262: (3, [white]), 277: (3, [1])}
    return tiff({**sizes, **kind, **(extra or {})}, data, order)


def bmp(
    header: int,
    bits: int,
    pixels: bytes,
    *,
    side: int = 32,
    compression: int = 0,
    masks: Sequence[int] = (),
    palette: bytes = b"",
    colours: int = 0,
) -> bytes:
    """A square BMP. header: its size, from 40. palette: four bytes a colour."""
    start = struct.pack(
        "<IiiHHIIiiII", header, side, side, 1, bits, compression, len(pixels), 0, 0, colours, 0
    )
    rest = struct.pack(f"<{len(masks)}I", *masks)
    start += rest if header == 40 else rest.ljust(header - 40, b"\0")
    place = 14 + len(start) + len(palette)
    file = b"BM" + struct.pack("<IHHI", place + len(pixels), 0, 0, place)
    return file + start + palette + pixels


def exif(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """EXIF of one directory. entries: tag, type, count, and the four bytes of the value."""
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    body = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0" + header + body + bytes(4)
