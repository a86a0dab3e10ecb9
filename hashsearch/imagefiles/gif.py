"""GIF: the screen, the first frame, and which of its colours is transparent."""

import re

from hashsearch.imagefiles.plain import PlainFile, require_few_parts

_BLOCK = re.compile(rb"[!,;]")  # Pillow looks for these, byte by byte
_EXTENSION, _CONTROL = b"!", b"\xf9"


def begins(data: bytes) -> bool:
    return data[:6] in (b"GIF87a", b"GIF89a")


def plain_file(data: bytes) -> PlainFile:
    """Take out what precedes the first frame; only its transparent colour is kept."""
    position = screen_end = 13 + _palette_bytes(data[10:11])
    clear: int | None = None
    parts = 0
    while (found := _BLOCK.search(data, position)) is not None and found[0] == _EXTENSION:
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
    return PlainFile(b"".join(kept))


def _palette_bytes(flags: bytes) -> int:
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0
