"""Sources decoded and read into memory."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hashsearch.errors import InvalidImage, InvalidSource
from hashsearch.images import decode, from_pixels
from hashsearch.sources.base import SourceImage
from hashsearch.sources.folder import Folder
from hashsearch.sources.loading import decode_image, load_tiny_images


def test_images_that_cannot_be_read_are_left_out(image_files, tmp_path):
    good = sorted(image_files.rglob("*.*"))[0]
    (tmp_path / "good.jpg").write_bytes(good.read_bytes())
    (tmp_path / "bad.jpg").write_bytes(good.read_bytes()[:200])
    assert load_tiny_images(Folder(tmp_path)).shape == (1, 32, 32, 3)


def test_no_image_at_all_is_an_error(tmp_path):
    with pytest.raises(InvalidSource, match="no image that can be read"):
        load_tiny_images(Folder(tmp_path))


def source_image(content) -> SourceImage:
    return SourceImage("/a", None, 0, 0, content)


def test_one_image_is_decoded_from_a_path_its_bytes_or_its_pixels(image_files):
    file = sorted(image_files.rglob("*.*"))[0]
    data, pixels = file.read_bytes(), np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
    for content in (file, data):
        raw, decoded = decode_image(source_image(content), thumbnail=True)
        assert raw == data
        assert_array_equal(decoded.tiny, decode(data).tiny)
        assert decoded.thumbnail == decode(data, thumbnail=True).thumbnail
    raw, decoded = decode_image(source_image(pixels))
    assert raw is pixels
    assert_array_equal(decoded.tiny, from_pixels(pixels).tiny)
    assert decoded.thumbnail is None


def test_an_image_without_content_raises_the_reason(tmp_path):
    with pytest.raises(InvalidImage, match="it is encrypted"):
        decode_image(source_image(InvalidImage("it is encrypted")))
    with pytest.raises(FileNotFoundError):
        decode_image(source_image(tmp_path / "gone.jpg"))
