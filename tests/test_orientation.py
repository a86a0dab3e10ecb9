"""Pictures are set upright by what can be read of their metadata; the rest is ignored."""

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from hashsearch.images import decode, encode_png, from_picture
from tests.image_bytes import after_start, chunk, exif, grey_tiff, png, segment

# The upright picture of a stored one, by EXIF's eight orientations.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
TAG = 0x0112
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


@pytest.fixture(scope="module")
def stored(tiny_images) -> np.ndarray:
    return tiny_images[3]


def chunks_of(pixels: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def wide_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(buffer, "JPEG")
    return buffer.getvalue()


def with_exif(jpeg: bytes, data: bytes) -> bytes:
    return after_start(jpeg, segment(0xE1, data))


def size_of(data: bytes) -> tuple[int, int]:
    decoded = decode(data)
    return decoded.width, decoded.height


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "layout"),
    [(1, "B3x"), (3, "H2x"), (4, "I"), (6, "b3x"), (7, "B3x"), (8, "h2x"), (9, "i")],
)
def test_the_tag_is_read_whatever_its_type(order, kind, layout):
    value = struct.pack(order + layout, 6)
    assert size_of(with_exif(wide_jpeg(), exif((TAG, kind, 1, value), order=order))) == (48, 64)


def test_the_tag_is_read_from_a_digit():
    assert size_of(with_exif(wide_jpeg(), exif((TAG, 2, 2, b"6\0\0\0")))) == (48, 64)


@pytest.mark.parametrize(
    "data",
    [
        exif((TAG, 3, 1, struct.pack("<I", 0))),
        exif((TAG, 3, 1, struct.pack("<I", 9))),
        exif((TAG, 3, 1, struct.pack("<I", 65535))),
        exif((TAG, 9, 1, struct.pack("<i", -1))),
        exif((TAG, 2, 4, b"left")),
        exif((TAG, 5, 1, struct.pack("<I", 26))),
        exif((TAG, 99, 1, struct.pack("<I", 6))),
        exif((TAG, 3, 1, struct.pack("<I", 6)))[:20],  # cut short
        exif()[:9],
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0" + b"\xff" * 100,
        b"Exif\0\0",
    ],
)
def test_what_cannot_be_read_means_upright(data):
    assert size_of(with_exif(wide_jpeg(), data)) == (64, 48)


def test_a_picture_is_turned_though_another_tag_cannot_be_written_back():
    """Pillow turns a picture by writing its metadata anew, which a negative width prevents."""
    tags = exif((TAG, 3, 1, struct.pack("<I", 6)), (0x100, 9, 1, struct.pack("<i", -1)))
    assert size_of(with_exif(wide_jpeg(), tags)) == (48, 64)


def with_orientation(format: str, pixels: np.ndarray, value: int) -> bytes:
    tag = exif((TAG, 3, 1, struct.pack("<I", value)))
    rows = chunks_of(pixels)
    profile = b"\nexif\n%8d\n%s\n" % (len(tag), tag.hex().encode())
    if format == "PNG, eXIf":
        return png(2, 8, rows, chunk(b"eXIf", tag[6:]))
    if format == "PNG, eXIf behind the pixels":
        return png(2, 8, rows)[:-12] + chunk(b"eXIf", tag[6:]) + chunk(b"IEND", b"")
    if format == "PNG, text of ImageMagick":
        packed = b"Raw profile type exif\0\0" + zlib.compress(profile)
        return png(2, 8, rows, chunk(b"zTXt", packed))
    if format == "PNG, XMP":
        return png(2, 8, rows, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % value))
    if format == "PNG, packed XMP":
        packed = zlib.compress(XMP % value)
        return png(2, 8, rows, chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed))
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    options = {"xmp": XMP % value} if "XMP" in format else {"exif": tag}
    image.save(buffer, format.split(",")[0], lossless=True, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("value", range(1, 10))
@pytest.mark.parametrize(
    "format",
    [
        "PNG, eXIf",
        "PNG, eXIf behind the pixels",
        "PNG, text of ImageMagick",
        "PNG, XMP",
        "PNG, packed XMP",
        "WEBP, EXIF",
        "WEBP, XMP",
    ],
)
def test_every_format_that_holds_metadata_is_turned(stored, format, value):
    decoded = decode(with_orientation(format, stored, value))
    assert_array_equal(decoded.tiny, UPRIGHT.get(value, UPRIGHT[1])(stored))


@pytest.mark.parametrize("kind", [1, 3, 4])
@pytest.mark.parametrize("value", range(10))
def test_a_tiff_is_turned_by_its_own_tag(stored, kind, value):
    grey = stored[..., 0]
    decoded = decode(grey_tiff(8, 1, grey.tobytes(), {TAG: (kind, [value])}))
    assert_array_equal(decoded.tiny[..., 1], UPRIGHT.get(value, UPRIGHT[1])(grey))


def test_a_tiff_is_turned_by_xmp_if_it_has_no_tag(stored):
    grey = stored[..., 0]
    for extra, wanted in (({}, 6), ({TAG: (3, [3])}, 3)):
        data = grey_tiff(8, 1, grey.tobytes(), {700: (1, list(XMP % 6)), **extra})
        assert_array_equal(decode(data).tiny[..., 1], UPRIGHT[wanted](grey))
    wide = grey_tiff(8, 1, bytes(64 * 32), {700: (1, list(XMP % 6)), 256: (3, [64])})
    assert size_of(wide) == (32, 64)


def test_exif_counts_before_xmp():
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP % 6)
    assert size_of(after_start(wide_jpeg(), xmp)) == (48, 64)
    tag = segment(0xE1, exif((TAG, 3, 1, struct.pack("<I", 1))))
    assert size_of(after_start(wide_jpeg(), xmp, tag)) == (64, 48)


@pytest.mark.parametrize("value", range(1, 9))
def test_an_avif_picture_is_turned_once_by_its_own_properties(stored, value):
    """Pillow writes the orientation as properties of the file, beside EXIF."""
    buffer = io.BytesIO()
    Image.fromarray(stored).save(
        buffer,
        "AVIF",
        quality=100,
        subsampling="4:4:4",
        exif=exif((TAG, 3, 1, bytes([value, 0, 0, 0]))),
    )
    decoded = decode(buffer.getvalue()).tiny.astype(int)
    assert np.abs(decoded - UPRIGHT[value](stored)).mean() < 3


def test_a_picture_that_pillow_holds_is_turned_as_its_file_is():
    for tags in (
        exif((TAG, 3, 1, struct.pack("<I", 6)), (0x100, 9, 1, struct.pack("<i", -1))),
        exif((TAG, 1, 1, struct.pack("<I", 6))),
        exif((TAG, 2, 2, b"6\0\0\0")),
        exif((TAG, 3, 1, struct.pack("<I", 9))),
        b"Exif\0\0" + b"\xff" * 100,
    ):
        data = with_exif(wide_jpeg(), tags)
        with Image.open(io.BytesIO(data)) as picture:
            held = from_picture(picture)
        assert (held.width, held.height) == size_of(data)


def test_a_32_by_32_picture_without_metadata_is_untouched(stored):
    assert_array_equal(decode(encode_png(stored)).tiny, stored)
