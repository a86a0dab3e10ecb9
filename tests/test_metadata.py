"""Metadata never refuse a picture, and cost neither time nor memory."""

import io
import tracemalloc
import zlib

import numpy as np
import pillow_heif
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from hashsearch.errors import InvalidImage
from hashsearch.imagefiles.png import plain_file
from hashsearch.images import decode, encode_png
from tests.image_bytes import after_start, chunk, exif, grey_tiff, png, segment

PACKED = zlib.compress(bytes(2 << 20))  # 2 MiB: Pillow unpacks at most 1
RED = (b"\0" + b"\xc8\0\0" * 32) * 32


def assert_red(data: bytes) -> None:
    assert (decode(data).tiny == (200, 0, 0)).all()


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"zTXt", b"k\0\0" + PACKED),
        chunk(b"iTXt", b"k\0\1\0\0\0" + PACKED),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + PACKED),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + PACKED),
        chunk(b"iCCP", b"k\0\0" + PACKED),
        chunk(b"iCCP", b"k\0\7damaged"),
        chunk(b"zTXt", b"k\0\7damaged"),
        chunk(b"tEXt", b"k\0" + b"x" * (2 << 20)) * 40,  # more than Pillow's 64 MiB of texts
        chunk(b"gAMA", b"\0"),
        chunk(b"acTL", b"\0"),
        chunk(b"eXIf", b"x")[:-1] + b"?",  # a wrong checksum
    ],
    ids=lambda extra: f"{extra[4:8].decode()}-{len(extra)}",
)
def test_no_chunk_of_a_png_but_those_of_its_pixels_matters(extra):
    assert_red(png(2, 8, RED, extra))


def test_a_text_of_any_size_takes_a_few_mebibytes():
    large = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(200 << 20)))
    tracemalloc.start()
    assert_red(png(2, 8, RED, large))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_no_segment_of_a_jpeg_but_those_of_its_pixels_matters(photograph):
    plain = decode(photograph).tiny
    assert photograph[:3] == b"\xff\xd8\xff"
    for extra in (
        segment(0xE1, b"Exif\0\0" + b"\xff" * 60_000) * 100,
        segment(0xE2, b"ICC_PROFILE\0\1\1" + b"\xff" * 60_000),
        segment(0xE2, b"MPF\0" + b"\xff" * 100),  # of several pictures
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM" + b"\xff" * 100),
        segment(0xFE, b"\xff\xda" * 30_000),  # looks like scans
        b"\xff" * 1000 + b"\0" * 1000,  # between segments
    ):
        assert_array_equal(decode(after_start(photograph, extra)).tiny, plain)


def test_the_marker_of_adobe_still_says_what_the_components_are(tiny_images):
    """Without it, red, green and blue would be taken for brightness and colour."""
    buffer = io.BytesIO()
    Image.fromarray(tiny_images[0]).save(buffer, "JPEG", quality=100, keep_rgb=True)
    decoded = decode(buffer.getvalue()).tiny.astype(int)
    assert np.abs(decoded - tiny_images[0]).mean() < 3


def test_comments_of_a_gif_do_not_matter(tiny_images):
    buffer = io.BytesIO()
    Image.fromarray(tiny_images[0][..., 0]).save(buffer, "GIF")
    data = buffer.getvalue()
    start = 13 + (3 << (data[10] & 7) + 1)
    comment = b"!\xfe" + (b"\xff" + b"x" * 255) * 5000 + b"\0"
    with_comment = data[:start] + comment + data[start:]
    assert_array_equal(decode(with_comment).tiny, decode(data).tiny)


@pytest.mark.parametrize("format", ["WEBP", "AVIF", "HEIF"])
def test_damaged_exif_and_profiles_do_not_matter(photograph, format):
    picture = Image.open(io.BytesIO(photograph)).convert("RGB").resize((64, 64))
    pillow_heif.register_heif_opener()
    plain, holding = io.BytesIO(), io.BytesIO()
    picture.save(plain, format)
    tag = exif((0x0112, 3, 1, b"\1\0\0\0"), (0x0131, 2, 4, b"abc\0"))
    picture.save(holding, format, exif=tag, icc_profile=b"\xff" * 5000)
    data = holding.getvalue()
    at = data.index(b"abc\0") - 30  # the header
    damaged = data[:at] + b"\xff" * 34 + data[at + 34 :]
    assert_array_equal(decode(damaged).tiny, decode(plain.getvalue()).tiny)


@pytest.mark.parametrize("order", ["<", ">"])
def test_no_tag_of_a_tiff_but_those_of_its_pixels_matters(tiny_images, order):
    grey = tiny_images[0][..., 0]
    extra = {
        34665: (4, [2**31]),  # where EXIF would lie
        34675: (1, [255] * 5000),  # a colour profile
        33723: (4, [1, 2, 3]),
        270: (2, [65] * (1 << 20)),
        330: (4, list(range(10_000))),
        282: (99, [1]),  # of no known type
        274: (3, [1, 2, 3]),
    }
    data = grey_tiff(8, 1, grey.tobytes(), extra, order=order)
    assert_array_equal(decode(data).tiny[..., 0], grey)


def test_a_plain_png_is_given_to_pillow_as_it_is(tiny_images):
    data = encode_png(tiny_images[0])
    assert plain_file(data).data == data


@pytest.mark.parametrize("place", [15, 2**32, 2**63, 2**64 - 1])
def test_a_bigtiff_without_a_directory_is_called_damaged(place):
    data = b"II+\0\x08\0\0\0" + place.to_bytes(8, "little") + bytes(100)
    with pytest.raises(InvalidImage, match="damaged or cut short"):
        decode(data)
