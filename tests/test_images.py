import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pillow_heif
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, ImageOps

from hashsearch import images
from hashsearch.errors import ImageTooLarge, InvalidImage, UnsupportedFormat
from hashsearch.extras import install_command
from hashsearch.images import (
    MAX_FILE_BYTES,
    decode,
    encode_png,
    from_picture,
    from_pixels,
    read_image_file,
    whole_picture,
)
from tests.conftest import PHOTOGRAPHS

INSTALL_HEIF = install_command("pillow-heif")
ROUNDED_TWICE = 1.0  # Pillow averages rows, then columns, each rounded to 8 bits


def saved(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def box_mean(pixels: np.ndarray) -> np.ndarray:
    """Area average to 32×32 of a square whose side is a multiple of 32, by reshaping."""
    step = len(pixels) // 32
    return pixels.reshape(32, step, 32, step, -1).mean(axis=(1, 3))


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.open(PHOTOGRAPHS / "astronaut.png").convert("RGB")  # 512×512


def heic(image: Image.Image, **options) -> bytes:
    """A HEIC file as a telephone writes it, by libheif's encoder."""
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims a size and has no pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 1000) + b"IDAT"


def test_a_32_by_32_picture_is_left_untouched(tiny_images):
    for tiny in tiny_images[:20]:
        assert_array_equal(decode(encode_png(tiny)).tiny, tiny)


def test_a_32_by_32_jpeg_is_what_pillow_decodes(image_files):
    path = sorted(image_files.rglob("*.*"))[0]
    pillow = np.asarray(Image.open(path).convert("RGB"))
    assert_array_equal(decode(path.read_bytes()).tiny, pillow)


def test_a_larger_picture_is_area_averaged(astronaut):
    tiny = decode(saved(astronaut, "PNG")).tiny
    assert np.abs(tiny - box_mean(np.asarray(astronaut, np.float64))).max() < ROUNDED_TWICE


def test_the_centre_square_is_taken(astronaut):
    wide = Image.new("RGB", (1024, 512), "red")
    wide.paste(astronaut, (256, 0))
    decoded = decode(saved(wide, "PNG"))
    assert_array_equal(decoded.tiny, decode(saved(astronaut, "PNG")).tiny)
    assert (decoded.width, decoded.height) == (1024, 512)


@pytest.mark.parametrize("side", [1, 5, 31])
def test_a_smaller_picture_is_enlarged(side):
    grey = Image.new("RGB", (side, side), (10, 20, 30))
    assert (decode(saved(grey, "PNG")).tiny == (10, 20, 30)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_photograph_is_set_upright(astronaut, orientation):
    """A file in any orientation, with its EXIF tag, decodes to the same picture."""
    upright = astronaut.crop((0, 0, 480, 320))
    # How a camera stores a picture with this tag.
    back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright.transpose(back) if back is not None else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(saved(stored, "PNG", exif=exif))
    assert_array_equal(decoded.tiny, decode(saved(upright, "PNG")).tiny)
    assert (decoded.width, decoded.height) == (480, 320)
    assert_array_equal(whole_picture(saved(stored, "PNG", exif=exif)), upright)


def test_transparency_becomes_white(astronaut):
    clear = astronaut.copy()
    clear.putalpha(0)
    assert (decode(saved(clear, "PNG")).tiny == 255).all()
    half = Image.new("RGBA", (64, 64), (0, 0, 0, 128))
    assert np.unique(decode(saved(half, "PNG")).tiny).tolist() == [127]
    assert np.unique(whole_picture(saved(half, "PNG"))).tolist() == [127]


def test_a_whole_picture_that_is_cut_short_is_refused(astronaut):
    with pytest.raises(InvalidImage, match="damaged or cut short"):
        whole_picture(saved(astronaut, "PNG")[:9000])


def test_a_palette_picture_with_a_transparent_colour_becomes_white_there():
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(0, (0, 0, 16, 32))
    tiny = decode(saved(palette, "GIF", transparency=0)).tiny
    assert (tiny[:, :16] == 255).all()
    assert (tiny[:, 16:] == (0, 0, 255)).all()


def test_the_first_frame_of_an_animation_is_taken(astronaut):
    other = ImageOps.invert(astronaut)
    for format in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if format == "WEBP" else {}
        moving = saved(astronaut, format, save_all=True, append_images=[other], **options)
        still = saved(astronaut, format, **options)
        assert_array_equal(decode(moving).tiny, decode(still).tiny)


def test_cmyk_becomes_rgb(astronaut):
    tiny = decode(saved(astronaut.convert("CMYK"), "TIFF")).tiny
    expected = box_mean(np.asarray(astronaut.convert("CMYK").convert("RGB"), np.float64))
    assert np.abs(tiny - expected).max() < ROUNDED_TWICE


def test_sixteen_bits_are_brought_down_to_their_high_eight():
    values = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64
    for format in ("PNG", "TIFF"):
        tiny = decode(saved(Image.fromarray(values), format)).tiny
        assert_array_equal(tiny, np.repeat((values >> 8)[..., None], 3, axis=2))


def test_grey_and_black_and_white_become_rgb(astronaut):
    for mode in ("L", "1", "LA"):
        tiny = decode(saved(astronaut.convert(mode), "PNG")).tiny
        assert (tiny == tiny[..., :1]).all()


def test_a_jpeg_is_decoded_at_reduced_scale_and_stays_close(astronaut):
    large = astronaut.resize((2048, 2048), Image.Resampling.BICUBIC)
    exact = box_mean(np.asarray(Image.open(io.BytesIO(saved(large, "JPEG"))), np.float64))
    decoded = decode(saved(large, "JPEG"))
    assert np.abs(decoded.tiny - exact).mean() < 1
    assert (decoded.width, decoded.height) == (2048, 2048)


def test_a_thumbnail_is_the_centre_square_of_at_most_128_pixels(photograph):
    thumbnail = decode(photograph, thumbnail=True).thumbnail
    assert thumbnail is not None
    with Image.open(io.BytesIO(thumbnail)) as image:
        assert (image.format, image.size) == ("JPEG", (128, 128))
        small = image.resize((32, 32), Image.Resampling.BOX)
    assert np.abs(np.asarray(small, float) - decode(photograph).tiny).mean() < 3


def test_a_picture_no_larger_than_the_tiny_image_has_no_thumbnail(tiny_images):
    assert decode(encode_png(tiny_images[0]), thumbnail=True).thumbnail is None


def test_the_tiny_image_is_the_same_with_and_without_a_thumbnail(photograph):
    assert_array_equal(decode(photograph, thumbnail=True).tiny, decode(photograph).tiny)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.9])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_file_is_refused(astronaut, format, share):
    data = saved(astronaut, format)
    with pytest.raises(InvalidImage, match="damaged or cut short") as caught:
        decode(data[: max(16, int(len(data) * share))])
    assert not isinstance(caught.value, UnsupportedFormat)


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"%PDF-1.7\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\0" * 1000],
)
def test_bytes_that_are_not_an_image_are_refused_with_the_accepted_formats(data):
    with pytest.raises(UnsupportedFormat, match="accepted are JPEG, PNG"):
        decode(data)


def test_a_format_that_is_not_accepted_is_refused_even_if_pillow_reads_it(astronaut):
    for format in ("PPM", "ICO", "JPEG2000"):
        with pytest.raises(UnsupportedFormat):
            decode(saved(astronaut.resize((64, 64)), format))


@pytest.mark.parametrize("size", [(10_000, 10_000), (8_001, 8_000), (2**31 - 1, 1), (50_000,) * 2])
def test_too_many_pixels_are_refused_by_the_header_alone(size):
    """The file ends after its header, so that decoding would raise 'cut short'."""
    with pytest.raises(ImageTooLarge, match="64,000,000"):
        decode(png_header(*size))


def test_32_bit_samples_are_refused(astronaut):
    with pytest.raises(UnsupportedFormat, match="grey, 1 sample of 32-bit float"):
        decode(saved(astronaut.convert("F"), "TIFF"))
    for mode in ("F", "I"):
        with pytest.raises(InvalidImage, match="32-bit samples"):
            from_picture(astronaut.convert("L").convert(mode))


def test_garbage_in_a_file_raises_no_error_but_invalid_image(photograph, tiny_images):
    rng = np.random.default_rng(0)
    for data in (photograph, encode_png(tiny_images[0])):
        for _ in range(150):
            damaged = bytearray(data)
            for position in rng.integers(0, len(data), 8):
                damaged[position] = rng.integers(256)
            try:
                tiny = decode(bytes(damaged)).tiny
            except InvalidImage:
                continue
            assert tiny.shape == (32, 32, 3)


def test_a_file_of_too_many_bytes_is_not_read(tmp_path):
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # sparse
    with pytest.raises(ImageTooLarge, match="at most 268,435,456 are read"):
        read_image_file(path)


def test_pixels_are_treated_like_a_file_of_them(astronaut, photograph):
    for picture in (astronaut, Image.open(io.BytesIO(photograph)).convert("RGB")):
        expected = decode(saved(picture, "PNG"), thumbnail=True)
        decoded = from_pixels(np.asarray(picture), thumbnail=True)
        assert_array_equal(decoded.tiny, expected.tiny)
        assert decoded.thumbnail == expected.thumbnail is not None
        assert (decoded.width, decoded.height) == picture.size


def test_32_by_32_pixels_are_left_untouched_and_too_many_refused(tiny_images):
    decoded = from_pixels(tiny_images[0], thumbnail=True)
    assert decoded.tiny is not None
    assert np.shares_memory(decoded.tiny, tiny_images)
    assert decoded.thumbnail is None
    many = np.broadcast_to(np.uint8(0), (8001, 8000, 3))
    with pytest.raises(ImageTooLarge, match="64,000,000"):
        from_pixels(many)


def test_a_heic_photograph_is_decoded_like_the_same_jpeg(photograph):
    picture = Image.open(io.BytesIO(photograph)).convert("RGB")
    decoded = decode(heic(picture, quality=95), thumbnail=True)
    assert np.abs(decoded.tiny - decode(photograph).tiny.astype(float)).mean() < 1
    assert (decoded.width, decoded.height) == picture.size
    with Image.open(io.BytesIO(decoded.thumbnail)) as thumbnail:
        assert thumbnail.size == (128, 128)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_heic_photograph_is_set_upright_once(astronaut, orientation):
    """libheif rotates the picture itself, and the EXIF tag must not rotate it again."""
    stored = astronaut.crop((100, 0, 340, 160))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode(saved(stored, "PNG", exif=exif))
    decoded = decode(heic(stored, quality=95, exif=exif.tobytes()))
    assert np.abs(decoded.tiny - upright.tiny.astype(float)).mean() < 1
    assert (decoded.width, decoded.height) == (upright.width, upright.height)


def test_a_thumbnail_embedded_in_a_heic_photograph_is_ignored(astronaut, monkeypatch):
    small = astronaut.resize((300, 300))
    without = decode(heic(small, quality=95))
    holding = heic(small, quality=95, thumbnails=[256])
    assert_array_equal(decode(holding).tiny, without.tiny)
    monkeypatch.setattr(pillow_heif.options, "THUMBNAILS", True)
    assert pillow_heif.open_heif(holding).info["thumbnails"] == [256]


@pytest.mark.parametrize(
    ("size", "error"),
    [
        ((8001, 8000), ImageTooLarge),
        ((10**5, 10**5), ImageTooLarge),
        ((2**31, 1), InvalidImage),
        ((16, 16), InvalidImage),  # fewer than the file has: refused before decoding
    ],
)
def test_a_heic_header_that_lies_about_the_size_is_refused(astronaut, size, error):
    data = bytearray(heic(astronaut))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", *size)
    with pytest.raises(error):
        decode(bytes(data))


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.9])
def test_a_truncated_heic_photograph_is_refused(astronaut, share):
    data = heic(astronaut)
    with pytest.raises(InvalidImage, match="damaged or cut short"):
        decode(data[: max(16, int(len(data) * share))])


def test_garbage_in_a_heic_photograph_raises_no_error_but_invalid_image(astronaut, tmp_path):
    """The decoder runs in a process of its own, so that a crash in libheif is noticed."""
    (tmp_path / "a.heic").write_bytes(heic(astronaut.resize((96, 96))))
    code = """
import sys
import numpy as np
from pathlib import Path
from hashsearch.errors import InvalidImage
from hashsearch.images import decode
whole, rng = Path(sys.argv[1]).read_bytes(), np.random.default_rng(0)
for trial in range(300):
    damaged = bytearray(whole)
    for at in rng.integers(0, len(whole) if trial % 2 else 600, 4):
        damaged[at] = rng.integers(256)
    try:
        assert decode(bytes(damaged)).tiny.shape == (32, 32, 3)
    except InvalidImage:
        pass
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.heic"], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("installed", [True, False])
def test_heic_is_accepted_only_if_its_library_is_installed(astronaut, tmp_path, installed):
    (tmp_path / "a.heic").write_bytes(heic(astronaut.resize((64, 64))))
    code = f"""
import sys
from pathlib import Path
if not {installed}:
    sys.modules["pillow_heif"] = None
from hashsearch.images import decode
from hashsearch.jobs.index.indexing import require_images
from hashsearch.sources.folder import Folder
source = Folder(Path(sys.argv[1]))
print(len(list(source)), dict(source.passed_over))
assert not sys.modules.get("pillow_heif"), "imported before it is needed"
try:
    print(decode((Path(sys.argv[1]) / "a.heic").read_bytes()).tiny.shape)
except Exception as error:
    print(type(error).__name__, error)
try:
    require_images(source)
    print("found")
except Exception as error:
    print(error)
"""
    run = [sys.executable, "-c", code, tmp_path]
    printed = subprocess.check_output(run, text=True).splitlines()
    lacks = f"HEIC files are read by pillow-heif, which is not installed: {INSTALL_HEIF}"
    assert printed == (
        ["1 {}", "(32, 32, 3)", "found"]
        if installed
        else [
            "0 {'.heic': 1}",
            f"UnsupportedFormat {lacks}",
            f"{tmp_path} holds no image files (but 1 .heic); {lacks}",
        ]
    )


def test_a_broken_heic_library_does_not_affect_other_files(astronaut, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # its import fails
    monkeypatch.setattr(images, "_register_heif", images._register_heif.__wrapped__)
    with pytest.raises(InvalidImage):
        decode(heic(astronaut))
    buffer = io.BytesIO()
    astronaut.save(buffer, "AVIF")
    assert decode(buffer.getvalue()).width == astronaut.width


def test_a_film_is_not_called_a_damaged_image():
    with pytest.raises(UnsupportedFormat, match="not an image in an accepted format"):
        decode(b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(1000))
