"""GIF: the screen, the first frame, and which of its colours is transparent."""

import re
from functools import partial

from PIL import Image

from hashsearch.imagefiles.plain import PlainFile, require_few_parts, unchanged

_BLOCK = re.compile(rb"[!,;]")  # Pillow looks for these, byte by byte
_EXTENSION, _CONTROL, _FRAME = b"!", b"\xf9", b","


def begins(data: bytes) -> bool:
    return data[:6] in (b"GIF87a", b"GIF89a")


def plain_file(data: bytes) -> PlainFile:
    """Take out what precedes the first frame; only its transparent colour is kept."""
    position = screen_end = 13 + _palette_bytes(data[10:11])
    clear: int | None = None
    parts = 0
    while (found := _BLOCK.search(data, position)) is not None and found[0] == _EXTENSION:
        parts += 1
        require_few_parts(parts, "blocks")
        kind, position = data[found.end() : found.end() + 1], found.end() + 1
        if kind == _CONTROL and len(data) > position + 4 and data[position + 1] & 1:
            clear = data[position + 4]
        while position < len(data) and data[position]:  # blocks, each after its length
            position += 1 + data[position]
            parts += 1
            require_few_parts(parts, "blocks")
        position += 1
    position = len(data) if found is None else found.start()
    kept = [data[:screen_end]]
    if clear is not None:
        kept.append(_EXTENSION + _CONTROL + bytes((4, 1, 0, 0, clear, 0)))
    kept.append(data[position:])
    if len(data) < position + 10 or found is None or found[0] != _FRAME:
        return PlainFile(b"".join(kept))
    left, top, width, height = (
        int.from_bytes(data[position + at : position + at + 2], "little") for at in (1, 3, 5, 7)
    )
    screen = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    covers = (left, top) == (0, 0) and width >= screen[0] and height >= screen[1]
    box = (left, top, left + width, top + height)
    return PlainFile(b"".join(kept), mend=unchanged if covers else partial(_framed, box=box))


def _palette_bytes(flags: bytes) -> int:
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _framed(image: Image.Image, *, box: tuple[int, int, int, int]) -> Image.Image:
    """Make the screen transparent where the frame does not lie, as browsers do."""
    screen = image.convert("RGBA")
    alpha = Image.new("L", image.size)
    alpha.paste(screen.getchannel("A").crop(box), box)
    screen.putalpha(alpha)
    return screen
