"""Media types of image files, by their first bytes."""

import io

import pytest
from PIL import Image

from hashsearch.imagefiles import FILE_FORMATS, media_type_of


def test_media_types_are_those_that_pillow_knows():
    Image.init()
    assert all(len(row.names) == len(row.media_types) for row in FILE_FORMATS)
    known = {
        name: media_type.name
        for row in FILE_FORMATS
        for name, media_type in zip(row.names, row.media_types, strict=True)
    }
    assert known.pop("HEIF") == "image/heic"  # Pillow itself does not read it
    assert known == {name: Image.MIME[name] for name in known}
    shown = {one.name for row in FILE_FORMATS for one in row.media_types if one.in_browsers}
    assert shown == {f"image/{n}" for n in ("jpeg", "png", "webp", "gif", "bmp", "avif")}


@pytest.mark.parametrize("row", FILE_FORMATS, ids=lambda row: row.names[0])
def test_the_media_type_of_a_file_is_that_of_its_first_bytes(row, photograph):
    file = io.BytesIO()
    Image.open(io.BytesIO(photograph)).save(file, row.names[0])
    assert media_type_of(file.getvalue()[:4096]) == row.media_types[0]


def test_heic_is_not_taken_for_avif_nor_a_film_for_a_picture():
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    assert media_type_of(heic).name == "image/heic"
    assert not media_type_of(heic).in_browsers
    assert media_type_of(b"\0\0\0\x18ftypisom\0\0\0\0mp41isom") is None
    assert media_type_of(b"") is None
    assert media_type_of(b"<html>") is None
