"""Damaged and hostile image files, made at random from real ones."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Sequence

from PIL import Image
from pillow_heif import register_heif_opener

from tests.image_bytes import bmp, chunk, png, progressive_jpeg, tiff

MAGIC = (
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"GIF87a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"RIFF\0\0\0\0WEBPVP8 ",
    b"RIFF\xff\xff\xff\x7fWEBPVP8X",
    b"RIFF\0\1\0\0WEBPVP8L",
    b"\0\0\0\x1cftypavif\0\0\0\0avifmif1",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    b"P6\n9 9\n",
    b"\0\0\1\0",
    b"%PDF-1.7\n",
    b"PK\3\4",
)
_VALUES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def real_files(photograph: bytes, picture: bytes) -> list[bytes]:
    """Files of every format that is read, small and with several options of each."""
    register_heif_opener()
    small = Image.open(io.BytesIO(photograph)).resize((96, 64))
    files = [picture, photograph, progressive_jpeg(64, 3)]
    for image in (small, small.convert("L"), small.convert("P"), small.convert("RGBA")):
        for kind, options in (
            ("JPEG", {}),
            ("JPEG", {"progressive": True, "quality": 30}),
            ("PNG", {}),
            ("WEBP", {}),
            ("WEBP", {"lossless": True}),
            ("GIF", {"save_all": True, "append_images": [image.rotate(90)]}),
            ("BMP", {}),
            ("TIFF", {}),
            ("TIFF", {"compression": "tiff_lzw"}),
            ("TIFF", {"compression": "jpeg"}),
            ("AVIF", {}),
            ("HEIF", {}),
        ):
            if image.mode == "P" and options == {"compression": "jpeg"}:
                continue  # libtiff writes to stderr
            buffer = io.BytesIO()
            try:
                image.save(buffer, kind, **options)
            except (OSError, ValueError):  # a format has not every mode
                continue
            files.append(buffer.getvalue())
    row = b"\xff\x12" * 3 + b"\x03\x12" + b"\0\0"
    files.append(bmp(40, 4, row * 768 + b"\0\1", side=768, compression=2, palette=bytes(64)))
    return files


def bombs() -> list[bytes]:
    """Small files that claim, or unpack to, far more than is decoded, of each format."""
    empty = zlib.compress(bytes(10_000_000), 9)
    header = chunk(b"IHDR", struct.pack(">2I5B", 60_000, 60_000, 8, 2, 0, 0, 0))
    size = (16_000).to_bytes(3, "little")
    grey = {258: (3, [8]), 262: (3, [1]), 277: (3, [1])}
    huge = {256: (4, [50_000]), 257: (4, [50_000]), 278: (4, [50_000]), 279: (4, [len(empty)])}
    files = [
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", empty) + chunk(b"IEND", b""),
        png(2, 8, bytes(97 * 32), *[chunk(b"zTXt", b"a\0\0" + empty)] * 20),
        progressive_jpeg(8000, 60),
        progressive_jpeg(60_000, 1),
        b"GIF89a\xff\xff\xff\xff\xf7\0\0"
        + bytes(768)
        + b",\0\0\0\0\xff\xff\xff\xff\0\x08"
        + bytes(9),
        bmp(40, 8, b"\0\0" * 100_000, side=30_000, compression=1, palette=bytes(1024)),
        bmp(40, 24, b"", side=60_000),
        tiff({**grey, **huge, 259: (3, [8])}, empty),
        b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + size * 2 + bytes(100),
    ]
    for kind in ("AVIF", "HEIF"):
        buffer = io.BytesIO()
        Image.new("RGB", (96, 64)).save(buffer, kind)
        ispe = buffer.getvalue().index(b"ispe") + 8
        claimed = bytearray(buffer.getvalue())
        claimed[ispe : ispe + 8] = struct.pack(">2I", 100_000, 100_000)
        files.append(bytes(claimed))
    return files


class Mutations:
    """The same mutations for the same seed."""

    def __init__(self, files: Sequence[bytes], seed: int):
        self._files, self._random = files, random.Random(seed)
        self._small = [file for file in files if len(file) < 20_000]
        self._bombs = bombs()
        self._ways: Sequence[tuple[Callable[[], bytes], int]] = (
            (self._bits, 30),
            (self._truncated, 12),
            (self._joined, 12),
            (self._lengths, 20),
            (self._exchanged, 10),
            (self._noise, 10),
            (self._shuffled, 10),
            (self._several, 5),
            (lambda: self._random.choice(self._bombs), 1),
            (lambda: self._random.choice(files), 3),
        )

    def __call__(self) -> bytes:
        way, weight = zip(*self._ways, strict=True)
        (make,) = self._random.choices(way, weight)
        return bytes(make()) or b"\0"

    def _file(self) -> bytearray:
        # Large files take longer, and have little that small ones have not.
        return bytearray(self._random.choice(self._small))

    def _place(self, file: bytes | bytearray) -> int:
        """Of a byte; headers are where most is decided."""
        end = min(len(file), 200) if self._random.random() < 0.6 else len(file)
        return self._random.randrange(max(end, 1))

    def _bits(self) -> bytearray:
        file = self._file()
        for _ in range(self._random.choice((1, 1, 2, 5, 20))):
            file[self._place(file)] ^= 1 << self._random.randrange(8)
        return file

    def _truncated(self) -> bytearray:
        file = self._file()
        return file[: self._random.randrange(len(file))]

    def _joined(self) -> bytes:
        first, second = self._file(), self._file()
        return bytes(first[: self._place(first)] + second[self._place(second) :])

    def _lengths(self) -> bytearray:
        file = self._file()
        for _ in range(self._random.choice((1, 1, 2, 4))):
            at, value = self._place(file), self._random.choice(_VALUES)
            kind = self._random.choice(("<I", ">I", "<H", ">H"))
            part = struct.pack(kind, value & (0xFFFF if kind[1] == "H" else 0xFFFFFFFF))
            file[at : at + len(part)] = part
        return file

    def _exchanged(self) -> bytes:
        """One format's beginning before another's rest."""
        magic, file = self._random.choice(MAGIC), self._file()
        return magic + bytes(file[self._random.choice((0, len(magic), 12, 30)) :])

    def _noise(self) -> bytes:
        return self._random.choice(MAGIC) + self._random.randbytes(self._random.randrange(2000))

    def _shuffled(self) -> bytearray:
        """Some part is left out, doubled, or moved."""
        file = self._file()
        start, other = sorted((self._place(file), self._place(file)))
        part = file[start : start + self._random.choice((1, 4, 12, 100, 1000))]
        what = self._random.randrange(3)
        if what == 0:
            del file[start : start + len(part)]
        elif what == 1:
            file[start:start] = part * self._random.choice((1, 2, 50))
        else:
            file[other:other] = part
        return file

    def _several(self) -> bytearray:
        file = self._bits()
        for _ in range(3):
            at = self._place(file)
            file[at:at] = self._random.randbytes(self._random.randrange(9))
        return file[: self._random.randrange(1, len(file) + 1)]
