"""Crops of pictures: against Pillow's own crop of the whole picture."""

import io

import numpy as np
import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from hashsearch.crop import WHOLE, Crop
from hashsearch.errors import InvalidImage, InvalidQuery
from hashsearch.images import decode, encode_png, from_picture, from_pixels, whole_picture
from hashsearch.inputs import tiny_image
from tests.conftest import PHOTOGRAPHS
from tests.image_bytes import after_start, exif, png, segment
from tests.test_images import png_header
from tests.test_orientation import UPRIGHT

CROPS = [
    Crop(0, 0, 0.5, 0.5),
    Crop(0.31, 0.07, 0.94, 0.4),
    Crop(0.6, 0.25, 0.7, 1),
    Crop(0, 0, 1, 0.999),
    Crop(0.5, 0.5, 0.504, 0.7),
]
LARGE = (1600, 1200)


def saved(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def cut(image: Image.Image, crop: Crop) -> Image.Image:
    """Pillow's crop, the edges rounded to whole pixels."""
    edges = np.array([crop.left, crop.top, crop.right, crop.bottom]) * (image.size * 2)
    return image.crop(tuple(np.floor(edges + 0.5).astype(int).tolist()))


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.open(PHOTOGRAPHS / "astronaut.png").convert("RGB").crop((0, 0, 480, 320))


@pytest.fixture(scope="module")
def large(astronaut) -> Image.Image:
    return astronaut.resize(LARGE, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("crop", CROPS, ids=str)
def test_a_crop_is_the_tiny_image_of_the_cropped_picture(astronaut, crop):
    expected = decode(saved(cut(astronaut, crop), "PNG"), thumbnail=True)
    data, pixels = saved(astronaut, "PNG"), np.asarray(astronaut)
    for decoded in (decode(data, thumbnail=True, crop=crop), from_pixels(pixels, crop=crop)):
        assert_array_equal(decoded.tiny, expected.tiny)
        assert (decoded.width, decoded.height) == astronaut.size
    assert_array_equal(from_picture(astronaut, crop=crop).tiny, expected.tiny)
    assert decode(data, thumbnail=True, crop=crop).thumbnail == expected.thumbnail
    assert from_pixels(pixels, thumbnail=True, crop=crop).thumbnail == expected.thumbnail


def in_every_kind(image: Image.Image) -> dict[str, bytes]:
    clear = image.copy()
    clear.putalpha(image.convert("L"))
    palette = clear.resize((96, 64)).quantize(60)
    heic = io.BytesIO()
    pillow_heif.from_pillow(image).save(heic)
    wide = np.arange(120 * 90, dtype=np.uint16).reshape(90, 120) * 5
    return {
        "JPEG": saved(image, "JPEG", quality=90),
        "JPEG, CMYK": saved(image.convert("CMYK"), "JPEG"),
        "PNG, RGBA": saved(clear, "PNG"),
        "PNG, palette": saved(palette, "PNG", transparency=3),
        "PNG, 16 bits": saved(Image.fromarray(wide), "PNG"),
        "PNG, black and white": saved(image.convert("1"), "PNG"),
        "WEBP": saved(clear, "WEBP"),
        "GIF": saved(palette, "GIF", transparency=3),
        "BMP": saved(image, "BMP"),
        "TIFF": saved(image, "TIFF", compression="tiff_lzw"),
        "AVIF": saved(image, "AVIF"),
        "HEIC": heic.getvalue(),
    }


def test_files_of_every_kind_are_cropped(astronaut):
    crop = Crop(0.1, 0.2, 0.55, 0.9)  # less than 256 px, so that JPEG is decoded at full scale
    for kind, data in in_every_kind(astronaut).items():
        expected = from_picture(cut(whole_picture(data), crop)).tiny
        assert_array_equal(decode(data, crop=crop).tiny, expected, kind)
        assert not np.array_equal(decode(data).tiny, expected), kind


@pytest.mark.parametrize(
    ("crop", "scale"),
    [  # of 1600×1200: sides of 128, 120, 255, 256, 511, 512 and 1,023 px
        (Crop(0.2, 0.3, 0.28, 0.9), 1),
        (Crop(0.2, 0.3, 0.275, 0.9), 1),
        (Crop(0.2, 0.3, 0.9, 0.5125), 1),
        (Crop(0.2, 0.3, 0.36, 0.9), 2),
        (Crop(0, 0, 511 / 1600, 1), 2),
        (Crop(0, 0, 512 / 1600, 1), 4),
        (Crop(0, 0, 1, 1023 / 1200), 4),
        (Crop(0, 0, 1, 1024 / 1200), 8),
        (WHOLE, 8),
    ],
)
def test_the_scale_of_a_jpeg_follows_the_crop(large, crop, scale):
    data = saved(large, "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        image.draft(None, (LARGE[0] // scale, LARGE[1] // scale))
        assert image.size == (LARGE[0] // scale, LARGE[1] // scale)
        expected = from_picture(cut(image.convert("RGB"), crop)).tiny
    assert_array_equal(decode(data, crop=crop).tiny, expected)


@pytest.mark.parametrize("crop", [*CROPS, Crop(0.3, 0.3, 0.5, 0.5)], ids=str)
def test_a_crop_of_a_large_jpeg_is_as_close_to_its_pixels_as_a_whole_picture(large, crop):
    data = saved(large, "JPEG")
    exact = from_picture(cut(whole_picture(data), crop)).tiny
    assert np.abs(decode(data, crop=crop).tiny - exact.astype(float)).mean() < 2


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "JPEG, large"])
def test_a_crop_is_of_the_upright_picture(astronaut, large, format, value):
    stored = large if "large" in format else astronaut
    upright = Image.fromarray(UPRIGHT[value](np.asarray(stored)))
    tag = exif((0x0112, 3, 1, value.to_bytes(4, "little")))
    crop = Crop(0.1, 0.3, 0.3, 0.9)
    if format == "PNG":
        data = saved(stored, "PNG", exif=tag)
        expected = decode(saved(cut(upright, crop), "PNG")).tiny
        assert_array_equal(decode(data, crop=crop).tiny, expected)
    else:
        data = after_start(saved(stored, "JPEG", quality=95), segment(0xE1, tag))
        exact = from_picture(cut(whole_picture(data), crop)).tiny
        assert np.abs(decode(data, crop=crop).tiny - exact.astype(float)).mean() < 1
        again = Image.open(io.BytesIO(data))
        assert_array_equal(from_picture(again, crop=crop).tiny, exact)
    decoded = decode(data, crop=crop)
    assert (decoded.width, decoded.height) == upright.size


def test_the_whole_picture_is_no_crop(photograph, tiny_images):
    assert_array_equal(decode(photograph, crop=WHOLE).tiny, decode(photograph).tiny)
    assert np.shares_memory(from_pixels(tiny_images[0], crop=Crop(0, 0, 1, 1)).tiny, tiny_images)


def test_a_crop_of_32_by_32_pixels_is_left_untouched(tiny_images):
    four = np.concatenate(
        [np.concatenate(tiny_images[:2], axis=1), np.concatenate(tiny_images[2:4], axis=1)]
    )
    corner = Crop(0.5, 0, 1, 0.5)
    assert_array_equal(decode(encode_png(four), crop=corner).tiny, tiny_images[1])
    assert_array_equal(from_pixels(four, crop=corner).tiny, tiny_images[1])


def test_whatever_names_an_image_is_cropped(astronaut, tmp_path):
    crop, path = CROPS[1], tmp_path / "a.png"
    path.write_bytes(saved(astronaut, "PNG"))
    expected = from_picture(cut(astronaut, crop)).tiny
    for image in (path, str(path), path.read_bytes(), astronaut, np.asarray(astronaut)):
        assert_array_equal(tiny_image(image, crop=crop), expected)
        with pytest.raises(InvalidQuery, match="no pixel of an image of 480×320 pixels"):
            tiny_image(image, crop=Crop(0.5, 0.5, 0.5001, 1))


def test_a_crop_without_a_pixel_is_refused_before_anything_is_decoded():
    """The file ends after its header, so that decoding would raise 'cut short'."""
    with pytest.raises(InvalidQuery, match="no pixel of an image of 900×600 pixels"):
        decode(png_header(900, 600), crop=Crop(0, 0, 0.0005, 1))
    with pytest.raises(InvalidImage, match="cut short"):
        decode(png_header(900, 600), crop=Crop(0, 0, 0.01, 1))


def test_a_crop_of_a_damaged_picture_is_refused():
    data = png(2, 8, bytes(97 * 32))
    assert decode(data, crop=CROPS[0]).tiny.max() == 0
    with pytest.raises(InvalidImage, match="cut short"):
        decode(data[:50], crop=CROPS[0])


@pytest.mark.parametrize(
    "given",
    ["0.25,0,0.75,0.5", " .25, 0 ,7.5e-1,0.5\n", (0.25, 0, 0.75, 0.5), np.array([1, 0, 3, 2]) / 4],
)
def test_a_crop_is_read_from_text_and_from_numbers(given):
    assert Crop.of(given) == Crop(0.25, 0, 0.75, 0.5) == Crop.of(Crop.of(given))


@pytest.mark.parametrize(
    "given",
    [
        *("", "0,0,1", "0,0,1,1,1", "0,0,1,x", "0;0;1;1", "0,0,1,1,", "0 0 1 1"),
        *("0.5,0,0.5,1", "0,0.6,1,0.5", "-0.1,0,1,1", "0,0,1.01,1", "0,0,nan,1", "nan,0,1,1"),
        *("0,0,inf,1", "-inf,0,1,1", (0, 0, 1), (0, 0, None, 1), (0, 0, 10**400, 1), 7, None),
    ],
)
def test_what_is_no_crop_is_refused_in_one_sentence(given):
    with pytest.raises(InvalidQuery, match=r"^a crop is four fractions L,T,R,B with 0 ≤ L < R ≤ 1"):
        Crop.of(given)


two_edges = st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True).map(sorted)


@given(two_edges, two_edges, st.tuples(*[st.integers(1, 90)] * 2))
def test_a_crop_of_pixels_is_the_slice_of_them(across, down, size):
    edges = [across[0], down[0], across[1], down[1]]
    crop, (width, height) = Crop.of(edges), size
    pixels = np.arange(width * height * 3, dtype=np.uint32).astype(np.uint8)
    pixels = pixels.reshape(height, width, 3)
    try:
        left, top, right, bottom = crop.pixels(width, height)
    except InvalidQuery:  # less than two halves of a pixel
        assert min((edges[2] - edges[0]) * width, (edges[3] - edges[1]) * height) < 1 + 1e-9
        return
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    exact = np.array(edges) * [*size, *size]
    assert np.abs(exact - (left, top, right, bottom)).max() <= 0.5
    expected = from_pixels(pixels[top:bottom, left:right]).tiny
    assert_array_equal(from_pixels(pixels, crop=crop).tiny, expected)


@given(st.lists(st.floats(), min_size=4, max_size=4))
def test_four_numbers_are_a_crop_or_are_refused(edges):
    left, top, right, bottom = edges
    valid = 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    try:
        assert Crop.of(edges) == Crop(*edges)
        assert Crop.of(",".join(map(repr, edges))) == Crop(*edges)
        assert valid
    except InvalidQuery:
        assert not valid
