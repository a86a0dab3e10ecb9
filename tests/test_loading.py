"""Sources read into memory."""

import pytest

from hashsearch.errors import InvalidSource
from hashsearch.sources.folder import Folder
from hashsearch.sources.loading import load_tiny_images


def test_images_that_cannot_be_read_are_left_out(image_files, tmp_path):
    good = sorted(image_files.rglob("*.*"))[0]
    (tmp_path / "good.jpg").write_bytes(good.read_bytes())
    (tmp_path / "bad.jpg").write_bytes(good.read_bytes()[:200])
    assert load_tiny_images(Folder(tmp_path)).shape == (1, 32, 32, 3)


def test_no_image_at_all_is_an_error(tmp_path):
    with pytest.raises(InvalidSource, match="no image that can be read"):
        load_tiny_images(Folder(tmp_path))
