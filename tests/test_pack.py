import io
import os
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hashsearch.errors import TrainingError
from hashsearch.sources import DataFolders, dataset_at_hand, open_source
from hashsearch.sources.loading import load_tiny_images
from tests.test_imports import imports_without
from training import pack as packing
from training.pack import evenly_spaced, filled, main, pack
from training.questions import UNSEEN_CLASSES

SEEN_CLASSES = ("n01629819", "n01641577")
NAMES = ("cifar10", "cifar100", "tinyimagenet32")


def jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_archive(path: Path, files: dict[str, bytes], mtime: int = 0) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), mtime
            archive.addfile(member, io.BytesIO(data))


def files_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


@pytest.fixture(scope="session")
def small_data(tiny_images) -> dict[str, dict[str, bytes]]:
    """The files of three small archives, each with a test image among its training images."""
    images = [jpeg(image) for image in tiny_images]
    test, rest = images[:5], images[5:]
    kinds = {
        "cifar10": ("cat", "ship"),
        "cifar100": ("apple", "bowl", "whale"),
        "tinyimagenet32": (*SEEN_CLASSES, *UNSEEN_CLASSES[:2]),
    }
    data = {}
    for number, (name, classes) in enumerate(kinds.items()):
        own = [*rest[number::3], test[number]]
        data[name] = {
            f"{name}/train/{classes[n % len(classes)]}/{n:04}.jpg": image
            for n, image in enumerate(own)
        }
    data["cifar10"] |= {f"cifar10/test/cat/{n:04}.jpg": image for n, image in enumerate(test)}
    return data


@pytest.fixture
def data(small_data, tmp_path, monkeypatch) -> DataFolders:
    monkeypatch.setattr(packing, "UNSEEN_IMAGES", 10)
    (tmp_path / "data").mkdir()
    for name, files in small_data.items():
        write_archive(tmp_path / f"data/{name}.tar.gz", files)
    return DataFolders(tmp_path / "data", tmp_path / "cache")


def sizes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def limit_for(data: DataFolders, share: float) -> int:
    """Bytes for what is not recompressed and a share of cifar100's images."""
    cifar10, tiny_imagenet, cifar100 = packing.choose(data, 10**9, packing.QUALITY)
    unseen = [file for file in tiny_imagenet.files if file.label in UNSEEN_CLASSES]
    kept = len(cifar10.data) + len(packing.packed("", unseen).data)
    return kept + int(share * len(cifar100.data))


def test_unchanged_files_come_first_and_cifar100_fills_the_rest(data, small_data, tmp_path):
    limit = limit_for(data, 0.6)
    archives = pack(data, tmp_path / "out", limit_bytes=limit)
    assert 0.95 * limit < sizes(tmp_path / "out") <= limit
    cifar10, tiny_imagenet, cifar100 = (
        files_of(tmp_path / f"out/{name}.tar.gz")
        for name in ("cifar10", "tinyimagenet32", "cifar100")
    )
    assert cifar10.items() < small_data["cifar10"].items()
    assert len(cifar10) == len(small_data["cifar10"]) - 6  # five test images and a copy of one
    assert tiny_imagenet.items() < small_data["tinyimagenet32"].items()
    counts = Counter(name.split("/")[2] for name in tiny_imagenet)
    assert counts == dict.fromkeys(UNSEEN_CLASSES[:2], 10)
    assert cifar100.keys() < small_data["cifar100"].keys()
    assert {name.split("/")[2] for name in cifar100} == {"apple", "bowl", "whale"}
    assert len(cifar100) == len(archives[2].files)
    for name, file in cifar100.items():
        original = Image.open(io.BytesIO(small_data["cifar100"][name]))
        expected = io.BytesIO()
        original.save(expected, "JPEG", quality=packing.QUALITY)
        assert file == expected.getvalue()


def test_the_names_of_the_data_sets_open_what_was_packed(data, tmp_path):
    archives = pack(data, tmp_path / "out", limit_bytes=limit_for(data, 0.6))
    folders = DataFolders(tmp_path / "out", tmp_path / "cache")
    for archive in archives:
        opened = {image.content for image in open_source(archive.name, folders)}
        assert opened == {file.data for file in archive.files}
        assert dataset_at_hand(archive.name, "test", folders) is None


def test_where_all_of_cifar100_fits_other_classes_fill_the_rest(data, small_data, tmp_path):
    limit = limit_for(data, 1.3)
    _, tiny_imagenet, cifar100 = pack(data, tmp_path / "out", limit_bytes=limit)
    assert 0.95 * limit < sizes(tmp_path / "out") <= limit
    assert len(cifar100.files) == len(small_data["cifar100"]) - 1
    others = [file for file in tiny_imagenet.files if file.label in SEEN_CLASSES]
    assert len(tiny_imagenet.files) == 20 + len(others)
    assert 0 < len(others) < 48
    originals = small_data["tinyimagenet32"]
    for file in tiny_imagenet.files:
        assert (file.data == originals[file.name]) is (file.label in UNSEEN_CLASSES)


def test_no_packed_image_has_the_pixels_of_a_test_image(data, tmp_path):
    def pixels(spec: str, folders: DataFolders) -> list[bytes]:
        return [image.tobytes() for image in load_tiny_images(open_source(spec, folders))]

    tests = set(pixels("cifar10:test", data))
    pack(data, tmp_path / "out", limit_bytes=10**7, quality=95)
    for name in NAMES:
        assert len(tests.intersection(pixels(name, data))) == 1
        assert not tests.intersection(pixels(name, DataFolders(tmp_path / "out", tmp_path)))


def test_the_same_images_give_the_same_bytes(data, small_data, tmp_path):
    limit = limit_for(data, 0.6)
    pack(data, tmp_path / "first", limit_bytes=limit)
    for name, files in small_data.items():  # written at another time, in another order
        turned = dict(reversed(files.items()))
        write_archive(tmp_path / f"data/{name}.tar.gz", turned, mtime=1_700_000_000)
    pack(data, tmp_path / "second", limit_bytes=limit)
    for name in NAMES:
        first, second = (tmp_path / f"{turn}/{name}.tar.gz" for turn in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_an_archive_is_filled_until_one_image_more_is_too_many(data):
    limit = 20_000
    candidates = packing._files("cifar100", data, set())
    archive = filled("cifar100", [], candidates, limit)
    more = packing.packed("cifar100", evenly_spaced(candidates, len(archive.files) + 1))
    assert len(archive.data) <= limit < len(more.data)


@pytest.mark.parametrize(
    ("change", "limit", "quality", "message"),
    [
        ("none", 10_000, 75, r"are not recompressed take [\d,]+ bytes; the limit is 10,000"),
        ("no cifar100", 10**7, 75, r"cifar100\.tar\.gz is neither in the HASHSEARCH_DATA folder"),
        ("none", 10**7, 96, "the quality must be from 1 to 95; got 96"),
        ("out exists", 10**7, 75, "out already exists; choose a new folder"),
    ],
)
def test_what_cannot_be_packed_leaves_nothing(data, tmp_path, change, limit, quality, message):
    if change == "no cifar100":
        (tmp_path / "data/cifar100.tar.gz").unlink()
    elif change == "out exists":
        (tmp_path / "out").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(TrainingError, match=message):
        pack(data, tmp_path / "out", limit_bytes=limit, quality=quality)
    assert sorted(tmp_path.iterdir()) == before


def test_an_image_that_cannot_be_read_is_left_out(data, small_data, tmp_path, capsys):
    files = small_data["cifar10"] | {"cifar10/train/cat/0000.jpg": b"damaged"}
    write_archive(tmp_path / "data/cifar10.tar.gz", files)
    pack(data, tmp_path / "out", limit_bytes=10**7)
    assert "cifar10/train/cat/0000.jpg" not in files_of(tmp_path / "out/cifar10.tar.gz")
    assert "2 images of" in capsys.readouterr().err


def test_the_command_tells_what_it_packed(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HASHSEARCH_DATA", os.fspath(data.data))
    assert main(["--out", os.fspath(tmp_path / "out"), "--mebibytes", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    size = (tmp_path / "out/cifar10.tar.gz").stat().st_size
    assert lines[0] == f"{tmp_path / 'out/cifar10.tar.gz'}: 99 images, {size:,} bytes"
    assert main(["--out", os.fspath(tmp_path / "out")]) == 1
    assert "training.pack: " in capsys.readouterr().err


@given(st.integers(0, 60), st.integers(0, 80))
def test_evenly_spaced_items_are_as_many_as_asked_at_equal_distances(n_items, count):
    chosen = evenly_spaced(range(n_items), count)
    assert len(chosen) == min(n_items, count)
    assert chosen[:1] == [0][: len(chosen)]
    distances = np.diff([*chosen, n_items])
    assert not chosen or (distances.min() > 0 and np.ptp(distances) <= 1)


def test_packing_needs_the_packages_of_training_alone():
    missing = (
        "faiss fastapi pydantic pydantic_settings uvicorn filelock pooch platformdirs requests "
        "pyarrow pillow_heif"
    )
    done = imports_without(missing.split(), "import training.pack")
    assert done.returncode == 0, done.stderr


@pytest.mark.soak
def test_real_images_fill_twenty_mebibytes(cifar10, tmp_path):
    data = DataFolders(cifar10.parent, tmp_path / "cache")
    if any(dataset_at_hand(name, "train", data) is None for name in NAMES):
        pytest.skip("CIFAR-100 or Tiny ImageNet is not under HASHSEARCH_DATA")
    archives = {a.name: a for a in pack(data, tmp_path / "out", limit_bytes=20 * 2**20)}
    assert 20_900_000 < sizes(tmp_path / "out") <= 20_971_520
    packed, original = (
        files_of(folder / "cifar10.tar.gz") for folder in (tmp_path / "out", data.data)
    )
    assert packed == {name: file for name, file in original.items() if "/train/" in name}
    unseen = Counter(file.label for file in archives["tinyimagenet32"].files)
    assert unseen == dict.fromkeys(UNSEEN_CLASSES, 100)
    classes = Counter(file.label for file in archives["cifar100"].files)
    assert len(classes) == len({image.label for image in open_source("cifar100", data)})
    assert max(classes.values()) - min(classes.values()) <= 1
