import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hashsearch.errors import InvalidSource
from hashsearch.sources import open_source
from hashsearch.sources.tinyimages import TinyImagesFile


def test_images_lie_plane_by_plane_and_each_plane_column_by_column(tiny_images, tmp_path, folders):
    with (tmp_path / "tiny_images.bin").open("wb") as file:
        for image in tiny_images[:40].tolist():
            for colour in range(3):
                for column in range(32):
                    file.write(bytes(image[row][column][colour] for row in range(32)))
    source = open_source(str(tmp_path / "tiny_images.bin"), folders)
    images = list(source)
    assert source.estimate() == 40
    assert_array_equal(np.stack([image.content for image in images]), tiny_images[:40])
    assert (images[39].place, images[39].label, images[39].size) == ("#39", None, 3072)


def test_a_file_of_many_is_read_in_its_order(tiny_images, tmp_path):
    many = np.tile(tiny_images, (10, 1, 1, 1))
    many[:, 0, 0, 0], many[:, 0, 0, 1] = np.arange(3000) // 256, np.arange(3000) % 256
    many.transpose(0, 3, 2, 1).tofile(tmp_path / "tiny_images.bin")
    for image, expected in zip(TinyImagesFile(tmp_path / "tiny_images.bin"), many, strict=True):
        assert_array_equal(image.content, expected)


def test_eighty_million_need_no_memory_before_they_are_read(tmp_path):
    with (tmp_path / "tiny_images.bin").open("wb") as file:
        file.truncate(80_000_000 * 3072)  # sparse
    source = TinyImagesFile(tmp_path / "tiny_images.bin")
    assert source.estimate() == 80_000_000
    assert not next(iter(source)).content.any()


@pytest.mark.parametrize("size", [1, 3071, 3073, 5 * 3072 - 1])
def test_a_size_that_is_no_whole_number_of_images_is_refused(size, tmp_path):
    (tmp_path / "tiny_images.bin").write_bytes(bytes(size))
    source = TinyImagesFile(tmp_path / "tiny_images.bin")
    with pytest.raises(
        InvalidSource, match=f"has {size:,} bytes?; images of 3,072 bytes each were"
    ):
        list(source)
    assert source.estimate() == size // 3072


def test_a_file_without_images_yields_none(tmp_path):
    (tmp_path / "tiny_images.bin").write_bytes(b"")
    assert list(TinyImagesFile(tmp_path / "tiny_images.bin")) == []
