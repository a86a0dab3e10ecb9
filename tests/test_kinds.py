"""Each kind of image file is read by its true depth and meaning, or refused by its name."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image
from skimage.color import lab2rgb

from hashsearch.errors import InvalidImage, UnsupportedFormat
from hashsearch.images import decode, from_picture
from tests.image_bytes import bmp, chunk, grey_tiff, png, progressive_jpeg, segment

RANDOM = np.random.default_rng(0)


def levels(bits: int, channels: int = 1) -> np.ndarray:
    """(32, 32, channels) random samples."""
    return RANDOM.integers(0, 2**bits, (32, 32, channels))


def packed(samples: np.ndarray, bits: int) -> list[bytes]:
    """Each row's samples of any number of bits, from the highest bit on, in whole bytes."""
    rows = []
    for row in samples.reshape(32, -1):
        digits = "".join(f"{level:0{bits}b}" for level in row)
        digits += "0" * (-len(digits) % 8)
        rows.append(int(digits, 2).to_bytes(len(digits) // 8, "big"))
    return rows


def eight(samples: np.ndarray, bits: int) -> np.ndarray:
    """Samples brought to 8 bits: the high ones of more, or stretched to 0–255 if fewer."""
    return samples >> (bits - 8) if bits >= 8 else samples * 255 // (2**bits - 1)


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Mix 8-bit colour with white. alpha: 0 to 1."""
    return colour * alpha + 255 * (1 - alpha)


def assert_decoded(data: bytes, wanted: np.ndarray, tolerance: float = 0) -> None:
    tiny = decode(data).tiny.astype(float)
    assert np.abs(tiny - np.broadcast_to(wanted, (32, 32, 3))).max() <= tolerance


def assert_unread(data: bytes, kind: str) -> None:
    with pytest.raises(UnsupportedFormat, match=r"^this kind of .* is not read$") as caught:
        decode(data)
    assert kind in str(caught.value)


# PNG


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_png_is_read_by_its_depth(bits):
    samples = levels(bits)
    rows = b"".join(b"\0" + row for row in packed(samples, bits))
    assert_decoded(png(0, bits, rows), eight(samples, bits))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_level_of_a_grey_png_is_white(bits):
    samples = levels(bits)
    clear = int(samples[0, 0, 0])
    rows = b"".join(b"\0" + row for row in packed(samples, bits))
    wanted = np.where(samples == clear, 255, eight(samples, bits))
    data = png(0, bits, rows, chunk(b"tRNS", struct.pack(">H", clear)))
    assert_decoded(data, wanted)
    if bits in (1, 8, 16):  # of the others, Pillow does not say the depth
        with Image.open(io.BytesIO(data)) as picture:
            assert_array_equal(from_picture(picture).tiny, decode(data).tiny)


def test_only_the_whole_16_bits_of_a_level_are_transparent():
    samples = np.full((32, 32, 1), 0x1234)
    samples[16:] = 0x1235
    rows = b"".join(b"\0" + row for row in packed(samples, 16))
    data = png(0, 16, rows, chunk(b"tRNS", b"\x12\x34"))
    assert_decoded(data, np.where(samples == 0x1234, 255, 0x12))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colour", [2, 4, 6])
def test_colour_and_alpha_of_png_are_read_by_their_depth(bits, colour):
    channels = {2: 3, 4: 2, 6: 4}[colour]
    samples = levels(bits, channels)
    rows = b"".join(b"\0" + row for row in packed(samples, bits))
    high = eight(samples, bits).astype(float)
    wanted = high if colour == 2 else on_white(high[..., :-1], high[..., -1:] / 255)
    assert_decoded(png(colour, bits, rows), wanted, tolerance=1)


def test_a_transparent_colour_of_png_is_read_in_8_bits_and_refused_in_16():
    samples = levels(8, 3)
    samples[:8] = (1, 2, 3)
    rows = b"".join(b"\0" + row for row in packed(samples, 8))
    wanted = np.where((samples == (1, 2, 3)).all(axis=2, keepdims=True), 255, samples)
    assert_decoded(png(2, 8, rows, chunk(b"tRNS", b"\0\1\0\2\0\3")), wanted)
    wide = png(2, 16, bytes(193 * 32), chunk(b"tRNS", bytes(6)))
    assert_unread(wide, "PNG (16-bit colour with one transparent colour)")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_png_with_their_alpha_are_read(bits):
    samples = levels(bits)
    palette = RANDOM.integers(0, 256, (2**bits, 4))
    rows = b"".join(b"\0" + row for row in packed(samples, bits))
    plte = chunk(b"PLTE", palette[:, :3].astype(np.uint8).tobytes())
    alpha = chunk(b"tRNS", palette[:, 3].astype(np.uint8).tobytes())
    colours = palette[samples[..., 0]].astype(float)
    assert_decoded(png(3, bits, rows, plte), colours[..., :3])
    mixed = on_white(colours[..., :3], colours[..., 3:] / 255)
    assert_decoded(png(3, bits, rows, plte, alpha), mixed, tolerance=1)


def test_apples_png_is_named():
    data = png(2, 8, bytes(97 * 32))
    assert_unread(data[:8] + chunk(b"CgBI", bytes(4)) + data[8:], "CgBI")


# TIFF


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_grey_tiff_is_read_by_its_depth_and_by_which_level_is_white(bits, white, order):
    samples = levels(bits)
    whole = samples.astype(order + "u2").tobytes()
    data = whole if bits == 16 else b"".join(packed(samples, bits))
    wanted = eight(samples, bits)
    file = grey_tiff(bits, white, data, order=order)
    if (bits, order) == (12, ">"):
        assert_unread(file, "TIFF (grey, 1 sample of 12-bit unsigned)")
        return
    assert_decoded(file, wanted if white else 255 - wanted)
    if white or bits < 12 or (bits, order) == (16, "<"):  # which Pillow opens
        with Image.open(io.BytesIO(file)) as picture:
            assert_array_equal(from_picture(picture).tiny, decode(file).tiny)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_tiff_with_its_lowest_bit_first_is_read(bits):
    samples = levels(bits)
    data = np.packbits(
        np.unpackbits(np.frombuffer(b"".join(packed(samples, bits)), np.uint8)).reshape(-1, 8)[
            :, ::-1
        ]
    )
    for white in (0, 1):
        wanted = eight(samples, bits) if white else 255 - eight(samples, bits)
        assert_decoded(grey_tiff(bits, white, data.tobytes(), {266: (3, [2])}), wanted)


GREYS = ("minisblack", "miniswhite")

# Every kind that tifffile writes without a codec of its own, whatever HashSearch makes of it.
KINDS = [
    {"dtype": dtype, "channels": channels, "photometric": photometric, "extrasamples": extra,
     "planarconfig": planar, "tile": tile, "byteorder": order, "compression": compression}
    for dtype in ("u1", "u2", "i1", "i2", "i4", "u4", "f2", "f4", "f8")
    for channels, photometric, extra in (
        (1, "minisblack", None), (1, "miniswhite", None), (3, "rgb", None),
        (2, "minisblack", "unassalpha"), (2, "minisblack", "assocalpha"),
        (2, "miniswhite", "unassalpha"), (4, "rgb", "unassalpha"), (4, "rgb", "assocalpha"),
        (4, "rgb", "unspecified"), (4, "separated", None), (5, "separated", "unassalpha"),
    )
    for planar in (("contig", "separate") if channels > 1 else (None,))
    for tile in (None, (16, 16))
    for order in ("<", ">")
    for compression in ((None, "zlib") if tile is None else (None,))
]  # fmt: skip


def test_every_kind_that_tifffile_writes_is_read_rightly_or_refused_by_its_name():
    read = set()
    for kind in KINDS:
        options = {name: value for name, value in kind.items() if name not in ("dtype", "channels")}
        dtype, channels, photometric = kind["dtype"], kind["channels"], kind["photometric"]
        options["extrasamples"] = kind["extrasamples"] and [kind["extrasamples"]]
        most = 255 if dtype == "u1" else 65535 if dtype == "u2" else 100
        samples = (RANDOM.random((32, 32, channels)) * most).astype(dtype)
        if kind["extrasamples"] == "assocalpha":  # no colour is brighter than its alpha
            samples = np.minimum(samples, samples[..., -1:])
        planes = np.moveaxis(samples, 2, 0) if kind["planarconfig"] == "separate" else samples
        file = io.BytesIO()
        tifffile.imwrite(file, planes[..., 0] if channels == 1 else planes, **options)
        stored = tifffile.imread(io.BytesIO(file.getvalue()))
        assert_array_equal(stored.ravel(), planes.ravel())
        try:
            tiny = decode(file.getvalue()).tiny.astype(float)
        except UnsupportedFormat:
            continue
        read.add((dtype, channels, photometric, kind["extrasamples"]))
        assert np.abs(tiny - meant(samples / most * 255, photometric, kind)).max() <= 3, kind
    assert read == {
        *((dtype, 1, white, None) for dtype in ("u1", "u2") for white in GREYS),
        *((dtype, 3, "rgb", None) for dtype in ("u1", "u2")),
        *((dtype, 4, "separated", None) for dtype in ("u1", "u2")),
        *(
            (dtype, 4, "rgb", extra)
            for dtype in ("u1", "u2")
            for extra in ("unassalpha", "assocalpha", "unspecified")
        ),
        ("u1", 2, "minisblack", "unassalpha"),
        ("u1", 2, "minisblack", "assocalpha"),
    }  # fmt: skip


def meant(samples: np.ndarray, photometric: str, kind: dict) -> np.ndarray:
    """The RGB that samples of 0 to 255 mean."""
    if photometric == "separated":
        return (255 - samples[..., :3]) * (255 - samples[..., 3:4]) / 255
    colour = samples[..., :3] if photometric == "rgb" else samples[..., :1]
    if photometric == "miniswhite":
        colour = 255 - colour
    if kind["extrasamples"] == "unassalpha":
        return on_white(colour, samples[..., -1:] / 255)
    return colour + 255 - samples[..., -1:] if kind["extrasamples"] == "assocalpha" else colour


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (grey_tiff(32, 1, bytes(4096), {339: (3, [3])}), "grey, 1 sample of 32-bit float"),
        (grey_tiff(8, 1, bytes(1024), {339: (3, [2])}), "grey, 1 sample of 8-bit signed"),
        (grey_tiff(16, 1, bytes(2048), {339: (3, [2])}), "grey, 1 sample of 16-bit signed"),
        (grey_tiff(10, 1, bytes(1280)), "grey, 1 sample of 10-bit unsigned"),
        (grey_tiff(8, 1, bytes(1024), {259: (3, [50001])}), "compression 50001"),
        (grey_tiff(8, 1, bytes(1024), {259: (3, [4711])}), "compression 4711"),
        (grey_tiff(8, 32803, bytes(1024)), "colour filter array"),
        (grey_tiff(8, 4711, bytes(1024)), "photometric 4711"),
        (grey_tiff(8, 3, bytes(1024), {320: (3, list(range(256)) * 3)}), "colours of 8 bits"),
        (
            grey_tiff(8, 6, bytes(1536), {258: (3, [8] * 3), 277: (3, [3])}),
            "YCbCr, 3 samples of 8-bit unsigned, subsampling 2×2",
        ),
        (grey_tiff(5, 2, bytes(2048), {258: (3, [5, 6, 5]), 277: (3, [3])}), "5/6-bit"),
    ],
)
def test_a_kind_of_tiff_that_is_not_read_is_named(data, kind):
    assert_unread(data, kind)


def test_colour_of_brightness_and_two_differences_is_read():
    samples = levels(8, 3)
    samples[..., 1:] = (90, 200)
    tags = {258: (3, [8] * 3), 277: (3, [3]), 530: (3, [1, 1])}
    y, blue, red = (samples[..., at].astype(float) for at in range(3))
    rgb = [
        y + 1.402 * (red - 128),
        y - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
        y + 1.772 * (blue - 128),
    ]
    data = samples.astype(np.uint8).tobytes()
    assert_decoded(grey_tiff(8, 6, data, tags), np.clip(np.stack(rgb, 2), 0, 255), tolerance=1)
    packed_data = {**tags, 259: (3, [8])}
    wanted = np.clip(np.stack(rgb, 2), 0, 255)
    assert_decoded(grey_tiff(8, 6, zlib.compress(data), packed_data), wanted, tolerance=1)


def test_cielab_is_read():
    """Grey alone, since scikit-image does not adapt the white of D50, which TIFF has."""
    samples = levels(8, 3)
    samples[..., 1:] = 0
    grey = lab2rgb(samples * (100 / 255), illuminant="D65") * 255
    tags = {258: (3, [8] * 3), 277: (3, [3])}
    assert_decoded(grey_tiff(8, 8, samples.astype(np.uint8).tobytes(), tags), grey, tolerance=2)


def test_a_damaged_tiff_is_still_called_damaged():
    whole = grey_tiff(8, 1, bytes(1024))
    for data in (whole[:-1], whole[:60], whole[:8]):
        with pytest.raises(InvalidImage, match="damaged or cut short"):
            decode(data)
    assert decode(whole).width == 32


@pytest.mark.parametrize("order", "<>")
def test_a_bigtiff_is_read_or_named(order):
    grey = levels(8).astype(np.uint8)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, grey[..., 0], bigtiff=True, byteorder=order)
    if order == "<":
        assert_decoded(buffer.getvalue(), grey)
    else:
        with pytest.raises(UnsupportedFormat, match="BigTIFF in big-endian order"):
            decode(buffer.getvalue())


# BMP


@pytest.mark.parametrize("header", [40, 52, 56, 108, 124])
def test_an_alpha_that_is_zero_everywhere_means_an_opaque_bmp(header):
    colour = levels(8, 4).astype(np.uint8)
    colour[..., 3] = 0
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)[: 4 if header >= 56 else 3]
    opaque = bmp(header, 32, colour[::-1].tobytes(), compression=3, masks=masks)
    assert_decoded(opaque, colour[..., 2::-1])
    if header >= 56:
        colour[5, 5, 3] = 128
        mixed = bmp(header, 32, colour[::-1].tobytes(), compression=3, masks=masks)
        alpha = colour[..., 3:] / 255
        assert_decoded(mixed, on_white(colour[..., 2::-1], alpha), tolerance=1)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("colours", [1, 2, 3, 16])
def test_a_bmp_of_few_greys_keeps_its_bits(bits, colours):
    """Pillow reads one of two greys as if it had 1 bit a pixel."""
    samples = RANDOM.integers(0, colours, (32, 32, 1))
    greys = np.linspace(0, 255, colours).astype(np.uint8) if colours > 1 else np.zeros(1, np.uint8)
    palette = b"".join(bytes([grey] * 3 + [0]) for grey in greys)
    rows = b"".join(packed(samples[::-1], bits))
    data = bmp(40, bits, rows, palette=palette, colours=colours)
    assert_decoded(data, greys[samples])
    runs = b"".join(
        b"".join(bytes([1, level << (8 - bits)]) for level in row) + b"\0\0"
        for row in samples[::-1, :, 0].tolist()
    )
    compression = {8: 1, 4: 2}[bits]
    packed_data = bmp(
        40, bits, runs + b"\0\1", compression=compression, palette=palette, colours=colours
    )
    assert_decoded(packed_data, greys[samples])


@pytest.mark.parametrize("size", [26, 34, 53])
def test_a_bmp_cut_within_its_header_is_called_damaged(size):
    with pytest.raises(InvalidImage, match="damaged or cut short") as caught:
        decode(bmp(40, 24, bytes(3072))[:size])
    assert not isinstance(caught.value, UnsupportedFormat)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (bmp(40, 24, bytes(3072), compression=4), "JPEG inside"),
        (bmp(40, 2, bytes(256)), "2 bits"),
        (bmp(108, 32, bytes(4096), compression=3, masks=(0x3FF00000, 1023)), "bit fields"),
        (bmp(100, 24, bytes(3072)), "header of 100 bytes"),
    ],
)  # fmt: skip
def test_a_kind_of_bmp_that_is_not_read_is_named(data, kind):
    assert_unread(data, kind)


# GIF, JPEG, WebP, AVIF and HEIC


def framed_gif(frame: Image.Image, screen: tuple[int, int], place: tuple[int, int], **options):
    buffer = io.BytesIO()
    frame.save(buffer, "GIF", **options)
    data = bytearray(buffer.getvalue())
    struct.pack_into("<HH", data, 6, *screen)
    struct.pack_into("<HH", data, data.index(b",", 13 + (3 << (data[10] & 7) + 1)) + 1, *place)
    return bytes(data)


@pytest.mark.parametrize("clear", [None, 1])
def test_the_screen_of_a_gif_is_white_where_its_first_frame_does_not_lie(clear):
    frame = Image.new("P", (20, 16))
    frame.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    frame.paste(1, (0, 0, 20, 8))
    options = {} if clear is None else {"transparency": clear}
    data = framed_gif(frame, (32, 32), (6, 4), **options)
    wanted = np.full((32, 32, 3), 255)
    wanted[4:20, 6:26] = (200, 10, 10)
    wanted[4:12, 6:26] = (10, 200, 10) if clear is None else 255
    assert_decoded(data, wanted)


def test_a_gif_frame_larger_than_its_screen_is_read_whole():
    frame = Image.new("P", (32, 32), 1)
    frame.putpalette([0, 0, 0, 10, 200, 10])
    assert_decoded(framed_gif(frame, (16, 16), (0, 0)), np.array((10, 200, 10)))


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (struct.pack(">BHHB", 12, 32, 32, 1) + b"\1\x11\0", "12-bit samples"),
        (struct.pack(">BHHB", 8, 32, 32, 2) + b"\1\x11\0\2\x11\0", "2 components"),
    ],
)
def test_a_kind_of_jpeg_that_is_not_read_is_named(frame, kind):
    whole = progressive_jpeg(32, 2)
    start = whole.index(b"\xff\xc2")
    assert_unread(whole[:start] + segment(0xC2, frame) + whole[start:], kind)
    assert_unread(whole[:start] + segment(0xC5, frame) + whole[start:], "hierarchical")


def test_cmyk_of_jpeg_is_inverted_as_adobe_stores_it():
    ink = np.stack(np.broadcast_arrays(*np.ogrid[0:256:8, 0:256:8], 40, 90), 2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(ink, "CMYK").save(buffer, "JPEG", quality=100)
    wanted = (255.0 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
    assert np.abs(decode(buffer.getvalue()).tiny - wanted).mean() < 1


def test_a_premultiplied_heic_picture_is_mixed_with_white_once():
    import pillow_heif

    colour = np.full((32, 32, 3), (200, 40, 100), np.uint8)
    premultiplied = np.concatenate([colour // 2, np.full((32, 32, 1), 128, np.uint8)], axis=2)
    image = pillow_heif.from_bytes("RGBa", (32, 32), premultiplied.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, quality=-1)
    assert_decoded(buffer.getvalue(), on_white(colour, 128 / 255), tolerance=3)


def test_heic_of_10_bits_and_grey_heic_are_read():
    import pillow_heif

    wide = np.ascontiguousarray(np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint16), (32, 32)))
    for mode, samples in (("RGB;16", np.stack([wide * 257] * 3, 2)), ("I;16", wide * 257)):
        buffer = io.BytesIO()
        pillow_heif.from_bytes(mode, (32, 32), samples.tobytes()).save(buffer, quality=-1)
        assert_decoded(buffer.getvalue(), wide[..., None], tolerance=3)
