import os
import pickle
import resource
import shutil
import struct
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hashsearch.errors import InvalidSource
from hashsearch.sources import DataFolders, dataset_at_hand, open_source, open_test_split
from hashsearch.sources.cifar import CIFAR10, CIFAR100, CifarBatches, read_batch
from hashsearch.sources.folder import Folder
from tests.python2_pickle import dump_like_python2
from tests.test_archive import tar_of

# Small batches in CIFAR's own formats, made from real images.


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


def python_batch_of_100(images: np.ndarray, labels: list[int]) -> bytes:
    return dump_like_python2(
        {
            b"filenames": [b"bos_taurus_s_000507.png"] * len(images),
            b"batch_label": b"training batch 1 of 1",
            b"fine_labels": labels,
            b"coarse_labels": [label // 5 for label in labels],
            b"data": planes(images),
        }
    )


def binary_batch_of_100(images: np.ndarray, labels: list[int]) -> bytes:
    coarse = np.array(labels) // 5
    return np.column_stack([coarse, labels, planes(images)]).astype(np.uint8).tobytes()


@pytest.fixture(params=["python", "binary"])
def batches_of_100(request, tmp_path, tiny_images) -> Path:
    """CIFAR-100's folder of batches, python or binary: 100 and 20 images."""
    folder = tmp_path / f"cifar-100-{request.param}"
    folder.mkdir()
    make = python_batch_of_100 if request.param == "python" else binary_batch_of_100
    suffix = "" if request.param == "python" else ".bin"
    (folder / f"train{suffix}").write_bytes(make(tiny_images[:100], list(range(100))))
    (folder / f"test{suffix}").write_bytes(make(tiny_images[100:120], [99] * 20))
    (folder / "meta").write_bytes(b"the classes' names")
    return folder


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
    assert [image.label for image in images] == list(CIFAR10.classes) * 5
    inside = f"!/{batches.name}/" if archived else "/"
    name = "data_batch_3.bin" if batches.name.endswith("bin") else "data_batch_3"
    assert images[27].place == f"{inside}{name}#7"
    test = list(open_source(f"{path}:test", folders))
    assert_array_equal(np.stack([image.content for image in test]), tiny_images[50:60])
    assert {image.label for image in test} == {"cat"}


@pytest.mark.parametrize("archived", [False, True])
def test_cifar100s_own_batches_yield_images_and_their_fine_labels(
    batches_of_100, tiny_images, tmp_path, folders, archived
):
    name = batches_of_100.name
    path = tar_of(batches_of_100, tmp_path / f"{name}.tar.gz") if archived else batches_of_100
    images = list(open_source(str(path), folders))
    assert_array_equal(np.stack([image.content for image in images]), tiny_images[:100])
    assert [image.label for image in images] == list(CIFAR100.classes)
    suffix = ".bin" if name.endswith("binary") else ""
    assert images[27].place == (f"!/{name}/" if archived else "/") + f"train{suffix}#27"
    test = list(open_test_split(str(path), folders))
    assert_array_equal(np.stack([image.content for image in test]), tiny_images[100:120])
    assert {image.label for image in test} == {"worm"}


def test_cifar100_has_a_hundred_classes_in_the_alphabets_order():
    assert len(set(CIFAR100.classes)) == 100
    assert list(CIFAR100.classes) == sorted(CIFAR100.classes)


def test_cifar100_by_name_is_found_in_the_data_folder(batches_of_100, tmp_path):
    folders = DataFolders(data=tmp_path, cache=tmp_path / "empty")
    assert len(list(open_source("cifar100", folders))) == 100
    assert len(list(open_test_split("cifar100", folders))) == 20
    assert open_test_split("cifar100:train", folders) is None


def test_a_folder_with_a_file_named_train_is_not_cifar100(image_files, tmp_path, folders):
    (tmp_path / "train").write_bytes(b"choo")
    shutil.copy(sorted(image_files.rglob("*.*"))[0], tmp_path / "a.jpg")
    assert isinstance(open_source(str(tmp_path), folders), Folder)


@pytest.mark.parametrize("suffix", ["", ".bin", ".txt"])
def test_a_folder_of_pictures_with_lists_of_its_splits_is_not_cifar100(
    suffix, image_files, tmp_path, folders
):
    for name in ("train", "test"):
        (tmp_path / f"{name}{suffix}").write_text("a.jpg\n")
    shutil.copy(sorted(image_files.rglob("*.*"))[0], tmp_path / "a.jpg")
    assert len(list(open_source(str(tmp_path), folders))) == 1


def test_a_batch_that_an_archive_holds_twice_counts_once(batches, tmp_path):
    whole = batches / next(batches.glob("data_batch_2*")).name
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(batches, batches.name)
        archive.add(whole, f"{batches.name}/{whole.name}")
    images = list(CifarBatches(tmp_path / "a.tar", CIFAR10))
    assert len({image.place for image in images}) == len(images) == 50
    for path in batches.glob("data_batch_4*"):
        path.unlink()
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(batches, batches.name)
        archive.add(whole, f"{batches.name}/{whole.name}")
    with pytest.raises(InvalidSource, match="holds 4 of CIFAR-10's 5 train batches"):
        list(CifarBatches(tmp_path / "a.tar", CIFAR10))


@pytest.mark.parametrize(
    "claim", [b"Nr" + struct.pack("<I", 10**8), b"\x96" + struct.pack("<Q", 2**33)]
)
def test_a_pickle_gets_no_memory_by_claiming_it(claim):
    """A place in the memo, and a bytearray."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidSource, match="is no CIFAR-10 batch"):
        read_batch(b"\x80\x05" + claim + b".", "data_batch_1", CIFAR10)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 50_000  # KB


@pytest.mark.parametrize("label", [100, 255])
def test_labels_outside_cifars_hundred_are_refused(tiny_images, label):
    data = binary_batch_of_100(tiny_images[:1], [label])
    with pytest.raises(InvalidSource, match="labels outside CIFAR-100's 0 to 99"):
        read_batch(data, "train.bin", CIFAR100)


def test_the_batches_of_one_data_set_are_not_taken_for_the_others(tiny_images):
    for make, dataset in ((python_batch, CIFAR100), (python_batch_of_100, CIFAR10)):
        with pytest.raises(InvalidSource, match=f"is no {dataset.name} batch"):
            read_batch(make(tiny_images[:2], [0, 1]), "train", dataset)


def test_estimates_are_the_official_numbers(batches, batches_of_100):
    assert CifarBatches(batches, CIFAR10).estimate() == 50_000
    assert CifarBatches(batches, CIFAR10, "test").estimate() == 10_000
    assert CifarBatches(batches_of_100, CIFAR100).estimate() == 50_000


def test_cifar10_by_name_is_found_in_the_data_folder_or_the_cache(batches, tiny_images, tmp_path):
    for folders in (
        DataFolders(data=tmp_path, cache=tmp_path / "empty"),
        DataFolders(data=None, cache=tmp_path),
    ):
        assert len(list(open_source("cifar10", folders))) == 50
        assert len(list(open_source("cifar10:train", folders))) == 50
        assert len(list(open_source("cifar10:test", folders))) == 10


def test_a_batch_that_is_missing_is_reported(batches, folders):
    for path in batches.glob("data_batch_4*"):
        path.unlink()
    with pytest.raises(InvalidSource, match="holds 4 of CIFAR-10's 5 train batches"):
        list(CifarBatches(batches, CIFAR10))


def test_a_batch_cut_short_is_refused(batches):
    path = next(batches.glob("data_batch_2*"))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InvalidSource, match="no CIFAR-10 batch"):
        list(CifarBatches(batches, CIFAR10))


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
        read_batch(pickle.dumps(content, protocol=3), "data_batch_1", CIFAR10)
    assert not Path("/tmp/hashsearch-was-here").exists()


@pytest.mark.parametrize("label", [-1, 10, 2**70])
def test_labels_outside_cifars_ten_in_a_pickle_are_refused(tiny_images, label):
    with pytest.raises(InvalidSource, match="labels outside"):
        read_batch(python_batch(tiny_images[:1], [label]), "data_batch_1", CIFAR10)


@pytest.mark.parametrize("label", [10, 255])
def test_labels_outside_cifars_ten_are_refused(tiny_images, label):
    with pytest.raises(InvalidSource, match="labels outside"):
        read_batch(binary_batch(tiny_images[:1], [label]), "data_batch_1.bin", CIFAR10)


@pytest.mark.soak
def test_the_data_folders_archive_is_cifar10_with_both_splits(cifar10, folders):
    for split, count in (("train", 50_000), ("test", 10_000)):
        labels = Counter(image.label for image in open_source(f"cifar10:{split}", folders))
        assert labels == Counter(dict.fromkeys(CIFAR10.classes, count // 10))


@pytest.mark.parametrize("before", ["", "./"])
@pytest.mark.parametrize(("split", "count"), [("", 2), (":train", 2), (":test", 1)])
def test_the_jpeg_archive_named_by_its_path_has_splits_too(
    split, count, before, image_files, tmp_path, folders
):
    """So that a training on it, by whatever name, meets no test image unasked."""
    pictures = sorted(image_files.rglob("*.*"))[:3]
    with tarfile.open(tmp_path / "any-name.tar.gz", "w:gz") as archive:
        for place, picture in zip(("test/cat", "train/cat", "train/dog"), pictures, strict=True):
            archive.add(picture, f"{before}cifar10/{place}/{picture.name}")
    images = list(open_source(f"{tmp_path / 'any-name.tar.gz'}{split}", folders))
    assert len(images) == count
    assert all(f"/{split[1:] or 'train'}/" in image.place for image in images)


JPEG_ARCHIVES = ("cifar10", "cifar100", "tinyimagenet32")


@pytest.fixture
def jpeg_archives(image_files, tmp_path) -> DataFolders:
    """A data folder with the archives of three data sets, training images alone."""
    picture = sorted(image_files.rglob("*.*"))[0]
    for name in JPEG_ARCHIVES:
        with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(picture, f"{name}/train/cat/{picture.name}")
    return DataFolders(data=tmp_path, cache=tmp_path / "cache")


@pytest.mark.parametrize("name", JPEG_ARCHIVES)
@pytest.mark.parametrize("by_path", [False, True])
def test_a_jpeg_archive_is_found_by_name_and_never_yields_an_empty_test_split(
    name, by_path, jpeg_archives
):
    spec = f"{jpeg_archives.data}/{name}.tar.gz" if by_path else name
    for split in ("", ":train"):
        (image,) = open_source(f"{spec}{split}", jpeg_archives)
        assert image.label == "cat"
    if by_path:
        assert open_test_split(spec, jpeg_archives) is None
        with pytest.raises(InvalidSource, match="has no test split"):
            open_source(f"{spec}:test", jpeg_archives)
    else:
        assert dataset_at_hand(name, "test", jpeg_archives) is None


def test_tinyimagenet32_has_no_test_images_to_download(jpeg_archives):
    with pytest.raises(InvalidSource, match=r"tinyimagenet32\.tar\.gz with test images is in nei"):
        open_source("tinyimagenet32:test", jpeg_archives)


def test_test_images_that_the_jpeg_archive_lacks_come_from_the_official_batches(
    batches_of_100, tiny_images, jpeg_archives
):
    """The batches lie in the same folder."""
    assert len(list(open_source("cifar100", jpeg_archives))) == 1
    test = list(open_source("cifar100:test", jpeg_archives))
    assert_array_equal(np.stack([image.content for image in test]), tiny_images[100:120])


def test_an_archive_of_test_images_alone_yields_none_to_train_on(image_files, tmp_path, folders):
    picture = sorted(image_files.rglob("*.*"))[0]
    with tarfile.open(tmp_path / "any-name.tar", "w") as archive:
        archive.add(picture, f"cifar100/test/cat/{picture.name}")
    assert list(open_source(f"{tmp_path / 'any-name.tar'}", folders)) == []
    assert len(list(open_source(f"{tmp_path / 'any-name.tar'}:test", folders))) == 1
