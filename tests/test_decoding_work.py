"""The work that a small file can ask for is bounded before it is done."""

import contextlib
import io
import struct
import time
import zlib

import pytest
from PIL import Image

from hashsearch.errors import ImageTooLarge, InvalidImage
from hashsearch.imagefiles import boxes
from hashsearch.imagefiles.jpeg import MAX_SCANS, scans_above
from hashsearch.imagefiles.plain import MAX_PARTS
from hashsearch.images import decode
from tests.image_bytes import after_start, bmp, chunk, png, progressive_jpeg, segment, tiff


def seconds(refused: bytes, match: str) -> float:
    """Of the processor, whatever else is at work."""
    started = time.thread_time()
    with pytest.raises(ImageTooLarge, match=match):
        decode(refused)
    return time.thread_time() - started


def test_a_large_jpeg_of_many_scans_is_refused_at_once():
    """Decoding it takes seconds."""
    data = progressive_jpeg(8000, 500)
    assert len(data) < 200_000
    assert seconds(data, "64,000,000 pixels has more than 12 scans") < 1


def test_the_scans_of_a_sequential_jpeg_cost_nothing_after_the_first():
    """libjpeg refuses a second scan if the first holds every component."""
    data = progressive_jpeg(8000, 500)
    at = data.index(b"\xff\xc2") + 1
    started = time.thread_time()
    with contextlib.suppress(InvalidImage):
        decode(data[:at] + b"\xc0" + data[at + 1 :])
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    ("side", "scans", "is_read"),
    [(64, 500, True), (64, 501, False), (1024, 500, True), (2048, 183, True), (2048, 184, False)],
)
def test_a_jpeg_may_have_as_many_scans_as_its_size_allows(side, scans, is_read):
    data = progressive_jpeg(side, scans)
    if is_read:
        assert decode(data).width == side
    else:
        seconds(data, f"more than {min(500, 12 * 64_000_000 // side**2)} scans")


def test_scans_within_other_segments_are_not_counted(photograph):
    thumbnails = segment(0xFE, b"\xff\xda" * 30_000)
    assert decode(after_start(photograph, thumbnails)).width
    scans = progressive_jpeg(64, 3)
    at = scans.rindex(b"\xff\xda")
    assert decode(scans[:at] + thumbnails + scans[at:]).width == 64
    assert decode(scans + b"\xff\xda" * 1000).width == 64  # behind the end
    assert scans_above(scans[scans.index(b"\xff\xda") :], 2)
    assert not scans_above(scans[scans.index(b"\xff\xda") :], 3)


def test_stuffed_bytes_and_restarts_cost_little():
    start = progressive_jpeg(64, 1)[:-2]
    filling = b"\xff\x00\xff\xd0" * (4 << 20)
    scans = segment(0xDA, b"\1\1\0\1\x3f\0") * MAX_SCANS
    assert seconds(start + filling + scans, "more than 500 scans") < 2


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (after_start(progressive_jpeg(64, 1), segment(0xE1, b"") * (MAX_PARTS + 1)), "segments"),
        (png(2, 8, bytes(97 * 32), chunk(b"teXt", b"") * (MAX_PARTS + 1)), "chunks"),
        (b"GIF89a" + bytes(1 << 24) + b"!\xfe" + b"\1a" * (MAX_PARTS + 1), "blocks"),
        (b"GIF89a" + bytes(7) + b"!\xfe\0" * (MAX_PARTS + 1), "blocks"),
        (b"RIFF\0\0\0\0WEBP" + b"JUNK\0\0\0\0" * (MAX_PARTS + 1), "chunks"),
        (b"\0\0\0\x10ftypavif\0\0\0\0" + b"\0\0\0\x08free" * (MAX_PARTS + 1), "boxes"),
    ],
    ids=["JPEG", "PNG", "GIF", "GIF-empty", "WEBP", "AVIF"],
)
def test_a_file_of_too_many_parts_is_refused(data, what):
    assert seconds(data, f"more than 1,000,000 {what}") < 5


def test_a_canvas_of_too_many_pixels_is_refused_before_webp_allocates_it():
    size = (9999).to_bytes(3, "little")
    data = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + size * 2 + bytes(100)
    seconds(data, "10000×10000 pixels; at most 64,000,000")


def test_run_lengths_of_bmp_are_decoded_up_to_a_size():
    """Pillow takes seconds, pixel by pixel in Python."""
    palette = bytes(range(64))
    row = b"\xff\x12" * 3 + b"\x03\x12" + b"\0\0"
    small = bmp(40, 4, row * 768 + b"\0\1", side=768, compression=2, palette=palette, colours=16)
    assert decode(small).width == 768
    large = bmp(40, 4, b"\xff\x12" * 4, side=8000, compression=2, palette=palette, colours=16)
    assert seconds(large, "8000×8000 pixels in RLE") < 1
    nothing = b"\0\0" * 4_000_000  # ends of lines
    assert seconds(bmp(40, 8, nothing, compression=1), "at most 8,000,000 bytes") < 1


def grey(size: tuple[int, int], extra, data: bytes) -> bytes:
    tags = {256: (4, [size[0]]), 257: (4, [size[1]]), 258: (3, [8]), 262: (3, [1]), 277: (3, [1])}
    return tiff({**tags, **extra}, data)


def test_tiles_far_larger_than_the_picture_are_refused():
    packed = zlib.compress(bytes(1024 * 1024))
    layout = {259: (3, [8]), 322: (4, [16_000]), 323: (4, [16_000]), 325: (4, [len(packed)])}
    data = grey((64, 64), {**layout, 324: (4, [300])}, packed)
    # The place of strips is added to every file here; a tiled one has none.
    data = data.replace(struct.pack("<HHI", 273, 4, 1), struct.pack("<HHI", 305, 4, 1))
    assert seconds(data, "256,000,000 pixels for a picture of 64×64") < 1
    # libtiff decodes the tiles of a file that has both.
    data = grey((64, 64), {**layout, 278: (4, [64]), 279: layout[325], 324: (4, [300])}, packed)
    assert seconds(data, "256,000,000 pixels for a picture of 64×64") < 1


def test_too_many_strips_are_refused():
    strips = 2_000_000
    layout = {259: (3, [1]), 278: (4, [1]), 279: (3, [16] * strips), 273: (3, [200] * strips)}
    assert seconds(grey((16, strips), layout, b""), "1,000,000 strips") < 2


def test_scans_of_jpeg_within_tiff_are_counted():
    for scans, is_read in ((12, True), (13, False)):
        data = progressive_jpeg(8000, scans)
        layout = {259: (3, [7]), 278: (4, [8000]), 279: (4, [len(data)])}
        whole = grey((8000, 8000), layout, data)
        if is_read:
            assert decode(whole).width == 8000
        else:
            seconds(whole, "13 scans of 64,000,000 pixels each")


@pytest.mark.parametrize("sizes", [{}, {279: (4, [0])}], ids=["missing", "zero"])
def test_scans_are_counted_where_the_size_of_a_strip_is_not_known(sizes):
    data = progressive_jpeg(8000, 13)
    layout = {259: (3, [7]), 278: (4, [8000]), **sizes}
    seconds(grey((8000, 8000), layout, data), "13 scans of 64,000,000 pixels each")


def test_strips_that_share_their_scans_count_each_time():
    part = progressive_jpeg(2000, 20)
    rows, strips = 2000, 10
    layout = {259: (3, [7]), 278: (4, [rows]), 279: (4, [len(part)] * strips)}
    first = grey((2000, rows * strips), {**layout, 273: (4, [0] * strips)}, b"")
    data = grey((2000, rows * strips), {**layout, 273: (4, [len(first)] * strips)}, part)
    seconds(data, "200 scans of 4,000,000 pixels each")


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + name + body


def derived(parts: dict[int, list[int]], size: int) -> bytes:
    """The head of a HEIC file whose pictures, all of one size, are made of others."""
    items = sorted({*parts, *(part for several in parts.values() for part in several)})
    infos = [box(b"infe", struct.pack(">B3xHH", 2, item, 0) + b"grid\0") for item in items]
    references = []
    for item, of in parts.items():
        ids = struct.pack(f">HH{len(of)}H", item, len(of), *of)
        references.append(box(b"dimg", ids))
    sizes = box(b"ipco", box(b"ispe", struct.pack(">4xII", size, size)))
    owners = b"".join(struct.pack(">HBB", item, 1, 1) for item in items)
    owners = box(b"ipma", struct.pack(">4xI", len(items)) + owners)
    body = box(b"iinf", struct.pack(">4xH", len(items)) + b"".join(infos))
    body += box(b"iref", bytes(4) + b"".join(references)) + box(b"iprp", sizes + owners)
    return box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", bytes(4) + body)


@pytest.mark.parametrize(
    ("parts", "size"),
    [
        ({1: [2] * 2000}, 1000),  # one picture, laid over itself
        ({n: [n + 1] * 10 for n in range(1, 8)}, 10),  # ten of ten of ten …
        ({n: [n + 1] for n in range(1, 20)}, 10),
        ({1: [2], 2: [1]}, 10),
    ],
)
def test_a_heic_picture_made_of_too_many_others_is_refused(parts, size):
    assert seconds(derived(parts, size), "put together from others") < 1


def test_the_grid_of_a_telephone_is_within_the_bounds():
    """48 megapixels of tiles of 512×512; here every size is a tile's."""
    data = derived({1: list(range(2, 2 + 192))}, 512)
    assert boxes.plain_file(data).data == data
    with pytest.raises(InvalidImage, match="damaged or cut short"):
        decode(data)


def test_ordinary_progressive_jpegs_of_full_size_are_read():
    buffer = io.BytesIO()
    Image.new("RGB", (8000, 8000)).save(buffer, "JPEG", progressive=True)
    assert decode(buffer.getvalue()).width == 8000


@pytest.mark.parametrize(
    "boxes",
    [
        box(b"iref", b"\1\0\0\0" + box(b"dimg", b"") * 10_000),
        box(b"iprp", box(b"ipma", struct.pack(">II", 0, 65_000)) * 10_000),
    ],
    ids=["dimg", "ipma"],
)
def test_boxes_do_not_read_what_follows_them(boxes):
    """Each of these small boxes would be read as 100 kB of the others, in minutes together."""
    meta = box(b"meta", bytes(4) + boxes + box(b"free", bytes(200_000)))
    started = time.thread_time()
    with pytest.raises(InvalidImage, match="damaged or cut short"):
        decode(box(b"ftyp", b"heic\0\0\0\0mif1heic") + meta)
    assert time.thread_time() - started < 1


@pytest.mark.parametrize("text", [b"\n" * 999_997 + b"zz", b"x" * 1_000_000 + b"\n" * 3 + b"z"])
def test_many_damaged_texts_of_a_png_cost_no_more_than_one(text):
    packed = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text, 9))
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(text, 9)[:-9])
    data = png(2, 8, bytes(97 * 32), packed * 2000, xmp * 2000)
    started = time.thread_time()
    assert decode(data).width == 32
    assert time.thread_time() - started < 1
