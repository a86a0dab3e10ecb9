import os
import pickle
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hashsearch.errors import InvalidSource
from hashsearch.sources import open_source
from hashsearch.sources.cifar import CLASSES, CifarBatches, read_batch
from tests.python2_pickle import dump_like_python2
from tests.test_archive import tar_of

# Small batches in CIFAR-10's own formats, made from real images.


def planes(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2).reshape(len(images), 3072)


def python_batch(images: np.ndarray, labels: list[int]) -> bytes:
    return dump_like_python2(
        {
            b"batch_label": b"training batch 1 of 5",
            b"labels": labels,
            b"data": planes(images),
            b"filenames": [b"leptodactylus_pentadactylus_s_000004.png"] * len(images),
        }
    )


def binary_batch(images: np.ndarray, labels: list[int]) -> bytes:
    rows = np.column_stack([np.array(labels, np.uint8), planes(images)])
    return rows.astype(np.uint8).tobytes()


@pytest.fixture(params=["py", "bin"])
def batches(request, tmp_path, tiny_images) -> Path:
    """CIFAR-10's folder of batches, python or binary, of 10 images each."""
    folder = tmp_path / f"cifar-10-batches-{request.param}"
    folder.mkdir()
    make = python_batch if request.param == "py" else binary_batch
    suffix = "" if request.param == "py" else ".bin"
    for number in range(5):
        part = tiny_images[10 * number : 10 * number + 10]
        (folder / f"data_batch_{number + 1}{suffix}").write_bytes(make(part, list(range(10))))
    (folder / f"test_batch{suffix}").write_bytes(make(tiny_images[50:60], [3] * 10))
    (folder / "readme.html").write_text("<p>not a batch</p>")
    return folder


@pytest.mark.parametrize("archived", [False, True])
def test_cifars_own_batches_yield_images_labels_and_places(
    batches, tiny_images, tmp_path, folders, archived
):
    path = tar_of(batches, tmp_path / f"{batches.name}.tar.gz") if archived else batches
    images = list(open_source(str(path), folders))
    assert_array_equal(np.stack([image.content for image in images]), tiny_images[:50])
    assert [image.label for image in images] == list(CLASSES) * 5
    inside = f"!/{batches.name}/" if archived else "/"
    name = "data_batch_3.bin" if batches.name.endswith("bin") else "data_batch_3"
    assert images[27].place == f"{inside}{name}#7"
    test = list(open_source(f"{path}:test", folders))
    assert_array_equal(np.stack([image.content for image in test]), tiny_images[50:60])
    assert {image.label for image in test} == {"cat"}


def test_cifar10_by_name_is_found_in_the_data_folder_or_the_cache(batches, tiny_images, tmp_path):
    from hashsearch.sources import DataFolders

    for folders in (
        DataFolders(data=tmp_path, cache=tmp_path / "empty"),
        DataFolders(data=None, cache=tmp_path),
    ):
        assert len(list(open_source("cifar10", folders))) == 50
        assert len(list(open_source("cifar10:train", folders))) == 50
        assert len(list(open_source("cifar10:test", folders))) == 10


def test_a_batch_that_is_missing_is_told(batches, folders):
    for path in batches.glob("data_batch_4*"):
        path.unlink()
    with pytest.raises(InvalidSource, match="holds 4 of CIFAR-10's 5 train batches"):
        list(CifarBatches(batches))


def test_a_batch_cut_short_is_refused(batches):
    path = next(batches.glob("data_batch_2*"))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InvalidSource, match="no CIFAR-10 batch"):
        list(CifarBatches(batches))


class Malicious:
    def __reduce__(self):
        return os.system, ("touch /tmp/hashsearch-was-here",)


class Pointers:
    """An array of objects whose pointers the pickle itself supplies."""

    def __reduce__(self):
        return np.ndarray, ((1,), "O", b"A" * 8)


class Reconstructed:
    """An array as NumPy pickles it, with any state."""

    def __init__(self, *state):
        self.state = state

    def __reduce__(self):
        return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), self.state


U1 = np.dtype("u1")


@pytest.mark.parametrize(
    "content",
    [
        Malicious(),
        {b"data": Malicious(), b"labels": [0]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [Malicious()]},
        {b"data": np.array([Path()], object), b"labels": [0]},
        {b"data": Pointers(), b"labels": [0]},
        {b"data": Reconstructed(1, (1, 3072), np.dtype("V8"), False, b"A" * 3072), b"labels": [0]},
        {b"data": Reconstructed(1, (1, 3072), U1, True, b"A" * 3072), b"labels": [0]},
        {b"data": Reconstructed(1, (10**9, 3072), U1, False, b"A" * 3072), b"labels": [0]},
        {b"data": Reconstructed(1, (1, 3072), U1, False, "A" * 3072), b"labels": [0]},
        {b"data": Reconstructed(), b"labels": [0]},
        [],
        {},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]},
        {b"data": np.zeros((1, 3072), np.float32), b"labels": [0]},
        {b"data": np.zeros((1, 3000), np.uint8), b"labels": [0]},
        {b"data": b"x" * 3072, b"labels": [0]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [b"cat"]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [[0]]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": 0},
    ],
)
def test_a_pickle_that_is_no_batch_or_asks_for_more_than_bytes_is_refused(content):
    with pytest.raises(InvalidSource, match="is no CIFAR-10 batch"):
        read_batch(pickle.dumps(content, protocol=3), "data_batch_1")
    assert not Path("/tmp/hashsearch-was-here").exists()


@pytest.mark.parametrize("label", [-1, 10, 2**70])
def test_labels_outside_cifars_ten_in_a_pickle_are_refused(tiny_images, label):
    with pytest.raises(InvalidSource, match="labels outside"):
        read_batch(python_batch(tiny_images[:1], [label]), "data_batch_1")


@pytest.mark.parametrize("label", [10, 255])
def test_labels_outside_cifars_ten_are_refused(tiny_images, label):
    with pytest.raises(InvalidSource, match="labels outside"):
        read_batch(binary_batch(tiny_images[:1], [label]), "data_batch_1.bin")


def test_the_data_folders_archive_is_cifar10_with_both_splits(cifar10, folders):
    for split, count in (("train", 50_000), ("test", 10_000)):
        labels = Counter(image.label for image in open_source(f"cifar10:{split}", folders))
        assert labels == Counter(dict.fromkeys(CLASSES, count // 10))


@pytest.mark.parametrize(("split", "count"), [("", 2), (":train", 2), (":test", 1)])
def test_the_jpeg_archive_named_by_its_path_has_splits_too(
    split, count, image_files, tmp_path, folders
):
    """So that a training on it, by whatever name, meets no test image unasked."""
    pictures = sorted(image_files.rglob("*.*"))[:3]
    with tarfile.open(tmp_path / "any-name.tar.gz", "w:gz") as archive:
        for place, picture in zip(("test/cat", "train/cat", "train/dog"), pictures, strict=True):
            archive.add(picture, f"cifar10/{place}/{picture.name}")
    images = list(open_source(f"{tmp_path / 'any-name.tar.gz'}{split}", folders))
    assert len(images) == count
    assert all(f"/{split[1:] or 'train'}/" in image.place for image in images)
