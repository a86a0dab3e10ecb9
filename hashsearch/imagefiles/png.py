"""PNG: only the chunks that its pixels need are kept."""

import struct
import zlib
from functools import partial

from PIL import Image

from hashsearch.imagefiles.orientation import orientation_of
from hashsearch.imagefiles.plain import PlainFile, require_few_parts, unchanged, unread

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_MAX_TEXT = 2**20  # bytes of a text, unpacked; the orientation is not looked for in longer ones
_EXIF_TEXT, _XMP_TEXT = b"Raw profile type exif", b"XML:com.adobe.xmp"  # keywords
_GREY, _RGB = 0, 2  # colour types


def begins(data: bytes) -> bool:
    return data.startswith(SIGNATURE)


def plain_file(data: bytes) -> PlainFile:
    """Take out metadata, colour profiles and the later frames of an animation.

    Raises UnsupportedFormat for the kinds that Pillow would read wrongly: 16-bit colour in
    which one colour is transparent, and Apple's variant of PNG.
    """
    kept, kept_from = [SIGNATURE], -1
    depth = colour = -1
    clear: bytes | None = None
    exif: bytes | None = None
    texts: dict[bytes, bytes | None] = {}  # the first of each kind, even if it is damaged
    position, parts = len(SIGNATURE), 0
    while position + 8 <= len(data):
        parts += 1
        require_few_parts(parts, "chunks")
        length, name = struct.unpack_from(">I4s", data, position)
        body = slice(position + 8, position + 8 + length)
        end = body.stop + 4
        if not name.isalpha() or end > len(data):  # Pillow refuses it, or finds what is missing
            if kept_from < 0:
                kept_from = position
            position = len(data)
            break
        if name == b"CgBI":
            raise unread("PNG", "Apple's variant CgBI")
        if name == b"IHDR" and length >= 10:
            depth, colour = data[body][8:10]
        if name == b"tRNS":
            clear = data[body]
        if name in _KEPT and not (name == b"tRNS" and depth < 8 and colour == _GREY):
            kept_from = position if kept_from < 0 else kept_from
        elif kept_from >= 0:
            kept.append(data[kept_from:position])
            kept_from = -1
        if name == b"eXIf" and exif is None:
            exif = data[body]
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            keyword = data[body.start : body.start + 80].split(b"\0")[0]
            if keyword in (_EXIF_TEXT, _XMP_TEXT) and keyword not in texts:
                texts[keyword] = _text(name, data[body])
        position = end
        if name == b"IEND":
            break
    if kept_from >= 0:
        kept.append(data[kept_from:position])
    if clear is not None and depth == 16 and colour == _RGB:
        raise unread("PNG", "16-bit colour with one transparent colour")
    mend = unchanged
    if clear is not None and depth < 8 and colour == _GREY:
        mend = partial(_with_clear_level, level=int.from_bytes(clear[:2]), depth=depth)
    if exif is None:
        exif = _exif_in_text(texts.get(_EXIF_TEXT))
    return PlainFile(b"".join(kept), orientation_of(exif, texts.get(_XMP_TEXT)), mend)


def _with_clear_level(image: Image.Image, *, level: int, depth: int) -> Image.Image:
    """Make a level of the file's depth transparent. Pillow scales the pixels, but not the level."""
    grey = image.convert("L")
    most = 2**depth - 1
    grey.info["transparency"] = (level & most) * 255 // most
    return grey


def _text(name: bytes, body: bytes) -> bytes | None:
    """A chunk's text, unpacked; None if it is damaged. Cut off after _MAX_TEXT bytes."""
    _, _, rest = body.partition(b"\0")
    is_packed = name == b"zTXt"
    if name == b"zTXt":
        rest = rest[1:]
    elif name == b"iTXt":
        is_packed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]
    if not is_packed:
        return rest[:_MAX_TEXT]
    try:
        return zlib.decompressobj().decompress(rest, _MAX_TEXT)
    except zlib.error:
        return None


def _exif_in_text(text: bytes | None) -> bytes | None:
    """EXIF as ImageMagick writes it: a line of its own, its name, its size, and hex digits."""
    digits = (text or b"").split(b"\n", 3)[3:]
    try:
        return bytes.fromhex(b"".join(digits).decode("ascii"))
    except ValueError:
        return None
