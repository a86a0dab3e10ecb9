import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from hashsearch.errors import ImageTooLarge, InvalidSource
from hashsearch.sources.arrays import NpyArray
from tests.conftest import PHOTOGRAPHS


def saved(folder: Path, array: np.ndarray) -> Path:
    np.save(folder / "a.npy", array)
    return folder / "a.npy"


def test_the_rows_of_an_array_are_its_images(tiny_images, tmp_path):
    for array in (tiny_images, tiny_images.reshape(-1, 3072), np.asfortranarray(tiny_images)):
        source = NpyArray(saved(tmp_path, array))
        images = list(source)
        assert source.estimate() == len(images) == 300
        assert_array_equal(np.stack([image.content for image in images]), tiny_images)
        assert (images[7].place, images[7].label, images[7].size) == ("#7", None, 3072)
        assert {type(image.content) for image in images} == {np.ndarray}


def as_planes(images: np.ndarray) -> np.ndarray:
    """(n, 3072): 1,024 bytes of red, then green, then blue, as CIFAR has them."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


@pytest.mark.parametrize("column_major", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 50, 300])
def test_rows_in_either_layout_become_the_right_pictures(rows, column_major, tiny_images, tmp_path):
    for start in range(0, 300, max(rows, 50)):
        expected = tiny_images[start : start + rows]
        for planes in (False, True):
            array = as_planes(expected) if planes else expected.reshape(rows, -1)
            source = NpyArray(saved(tmp_path, np.asfortranarray(array) if column_major else array))
            for _ in range(2):
                found = np.stack([image.content for image in source])
                assert_array_equal(found, expected)
            said = "its rows are read as planes of red, green and blue"
            assert [remark.startswith(said) for remark in source.remarks] == [True] * planes


def test_grey_rows_are_read_in_their_layout(tiny_images, tmp_path):
    grey = np.repeat(tiny_images[:5].mean(axis=3, keepdims=True).astype(np.uint8), 3, axis=3)
    for array in (grey.reshape(5, -1), as_planes(grey)):
        source = NpyArray(saved(tmp_path, array))
        assert_array_equal(np.stack([image.content for image in source]), grey)


@pytest.mark.parametrize(
    "rows",
    [
        np.full((9, 3072), 7, np.uint8),
        np.random.default_rng(0).integers(256, size=(1, 3072), dtype=np.uint8),
        np.random.default_rng(1).integers(256, size=(500, 3072), dtype=np.uint8),
        np.zeros((0, 3072), np.uint8),
        # Grey stripes, which differ less as planes.
        np.tile(np.repeat(np.arange(32) % 8 * 30, 3), (4, 32)).astype(np.uint8),
    ],
    ids=["constant", "one of noise", "noise", "none", "stripes"],
)
def test_rows_of_an_unclear_layout_are_read_pixel_by_pixel(rows, tmp_path):
    source = NpyArray(saved(tmp_path, rows))
    found = [image.content for image in source]
    assert_array_equal(np.reshape(found, rows.shape), rows)
    assert source.remarks == []


def test_grey_pictures_are_read_alike_in_either_layout(tiny_images, tmp_path):
    grey = tiny_images[:, :, :, 1:2].repeat(3, axis=3)
    for start in range(50):
        expected = grey[start::50]
        for array in (expected.reshape(len(expected), -1), as_planes(expected)):
            found = [image.content for image in NpyArray(saved(tmp_path, array))]
            assert_array_equal(found, expected)


def test_a_grey_array_is_made_of_three_equal_colours(tmp_path):
    grey = np.asarray(Image.open(PHOTOGRAPHS / "camera.png"))
    (first, second) = NpyArray(saved(tmp_path, np.stack([grey, grey.T])))
    assert_array_equal(first.content, np.stack([grey] * 3, axis=2))
    assert_array_equal(second.content, np.stack([grey.T] * 3, axis=2))
    assert first.size == 512 * 512


def test_rows_larger_than_what_is_mapped_at_a_time_are_whole(tmp_path):
    rng = np.random.default_rng(0)
    large = rng.integers(256, size=(3, 1500, 1500, 3), dtype=np.uint8)
    for image, expected in zip(NpyArray(saved(tmp_path, large)), large, strict=True):
        assert_array_equal(image.content, expected)


def test_an_array_without_rows_yields_none(tmp_path):
    source = NpyArray(saved(tmp_path, np.zeros((0, 32, 32, 3), np.uint8)))
    assert (list(source), source.estimate()) == ([], 0)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 32, 32, 3), np.float32),
        np.zeros((2, 32, 32, 3), np.int8),
        np.zeros((2, 32, 32, 3), bool),
        np.zeros((2, 32, 32, 4), np.uint8),
        np.zeros((2, 3, 32, 32), np.uint8),
        np.zeros((2, 0, 32, 3), np.uint8),
        np.zeros((2, 3000), np.uint8),
        np.zeros(3072, np.uint8),
        np.zeros((), np.uint8),
        np.zeros((1, 1, 32, 32, 3), np.uint8),
    ],
)
def test_another_array_is_refused_with_what_came_and_what_was_wanted(array, tmp_path):
    source = NpyArray(saved(tmp_path, array))
    with pytest.raises(InvalidSource) as caught:
        list(source)
    assert f"is an array of {array.dtype} {array.shape}; images of uint8" in str(caught.value)
    assert source.estimate() is None


@pytest.mark.parametrize("colours", [3, 4])
def test_one_picture_is_refused_where_many_were_wanted(colours, tmp_path):
    source = NpyArray(saved(tmp_path, np.zeros((512, 400, colours), np.uint8)))
    with pytest.raises(InvalidSource, match=r"is one image, an array of uint8 \(512, 400, "):
        list(source)


@pytest.mark.parametrize("shape", [(2, 40_000, 40_000), (2, 20_000, 20_000, 3)])
def test_images_of_too_many_pixels_are_refused_unread(shape, tmp_path):
    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, shape)  # it takes no disk
    tracemalloc.start()
    images = list(NpyArray(tmp_path / "a.npy"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [image.place for image in images] == ["#0", "#1"]
    assert {type(image.content) for image in images} == {ImageTooLarge}
    assert peak < 16 * 2**20  # an image has 1.2 GB at least


def test_an_array_that_python_2_saved_is_read_without_a_warning(tiny_images, tmp_path):
    """Warnings fail the suite."""
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (300L, 32L, 32L, 3L), }"
    (tmp_path / "a.npy").write_bytes(npy(header.ljust(117) + "\n", tiny_images.tobytes()))
    found = np.stack([image.content for image in NpyArray(tmp_path / "a.npy")])
    assert_array_equal(found, tiny_images)


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("/tmp/hashsearch-was-here"),)


def npy(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


def hostile_files() -> list[bytes]:
    objects, archive = io.BytesIO(), io.BytesIO()
    np.save(objects, np.array([Malicious()], object), allow_pickle=True)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.npy", npy(""))
    shape = "{'descr': '|u1', 'fortran_order': False, 'shape': %s}"
    return [
        b"",
        b"\x93NUMPY",
        objects.getvalue(),
        archive.getvalue(),
        pickle.dumps(Malicious()),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 3072)}", bytes(3072)),
        npy(shape % "(10, 3072)", bytes(3072)),  # cut short
        npy(shape % "(1000000000000, 3072)"),
        npy(shape % f"({2**62}, 3072)"),
        npy(shape % f"({2**200}, 3072)"),
        npy(shape % "(-1, 3072)", bytes(3072)),
        npy(shape % "(1.5, 3072)", bytes(3072)),
        npy(shape % "(1, 3072)" + "(" * 5000, bytes(3072)),
        npy("(" * 9000),
        npy("__import__('os').system('touch /tmp/hashsearch-was-here')"),
        npy(""),
    ]


@pytest.mark.parametrize("data", hostile_files(), ids=range(len(hostile_files())))
def test_a_file_that_is_none_or_a_hostile_one_is_refused(data, tmp_path):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(InvalidSource, match=r"a\.npy is (no array of NumPy's, or a dam|an array)"):
        list(NpyArray(tmp_path / "a.npy"))
    assert not Path("/tmp/hashsearch-was-here").exists()
