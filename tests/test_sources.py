import gzip
import io
import os
import pickle
import shutil
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hashsearch.errors import ImageTooLarge, InvalidImage, InvalidSource
from hashsearch.images import MAX_FILE_BYTES
from hashsearch.sources import locate, open_source
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.base import decode_path, encode_path
from hashsearch.sources.cifar import CLASSES, CifarBatches, read_batch
from hashsearch.sources.folder import Folder
from hashsearch.sources.samples import CROPS, PHOTOGRAPHS, Samples
from tests.python2_pickle import dump_like_python2

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


def tar_of(folder: Path, path: Path, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        archive.add(folder, folder.name)
    return path


@given(
    st.binary(min_size=1, max_size=40).filter(lambda name: b"/" not in name and b"\0" not in name)
)
def test_any_file_name_can_be_encoded_and_comes_back(name):
    path = os.fsdecode(name)
    encoded = encode_path(path)
    assert encoded.isascii()
    assert not set(encoded) & set(" !#%/") - {"%"}
    assert os.fsencode(decode_path(encoded)) == name


@pytest.mark.parametrize(
    ("root", "place", "path"),
    [
        ("/photos", "/a%20b/c.jpg", "/photos/a b/c.jpg"),
        ("/photos", "/100%25%23%21.jpg", "/photos/100%#!.jpg"),
        ("/x.tar", "!/a/b.jpg", "/x.tar!/a/b.jpg"),
        ("/x.tar", "!/batches/data_batch_1#7", "/x.tar!/batches/data_batch_1#7"),
        ("/batches", "/test_batch.bin#0", "/batches/test_batch.bin#0"),
        ("/photos", "/%FF.jpg", "/photos/\udcff.jpg"),
    ],
)
def test_an_image_is_located_by_a_path_that_opens_where_there_is_one(root, place, path):
    assert locate(root, place) == path


def test_a_folder_yields_its_images_in_order_with_labels(image_files):
    images = list(Folder(image_files))
    paths = [path for path in sorted(image_files.rglob("*")) if path.is_file()]
    assert [image.content for image in images] == paths
    assert [image.label for image in images] == [path.parent.name for path in paths]
    for image, path in zip(images, paths, strict=True):
        assert locate(str(image_files), image.place) == str(path)
        assert (image.size, image.mtime) == (path.stat().st_size, path.stat().st_mtime_ns)


def test_a_folder_passes_over_other_files_hidden_ones_and_links_that_lead_out(
    image_files, tmp_path
):
    picture = sorted(image_files.rglob("*.*"))[0]
    root = tmp_path / "root"
    (root / ".cache").mkdir(parents=True)
    (root / "sub").mkdir()
    for name in (
        "a.JPG",
        ".hidden.jpg",
        ".cache/b.jpg",
        "sub/c.jpeg",
        "notes.txt",
        "d.HEIC",
        "plain",
    ):
        shutil.copy(picture, root / name)
    shutil.copy(picture, tmp_path / "outside.jpg")
    (root / "in.jpg").symlink_to(root / "a.JPG")
    (root / "out.jpg").symlink_to(tmp_path / "outside.jpg")
    (root / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (root / "loop").symlink_to(root)
    source = Folder(root)
    assert [image.place for image in source] == ["/a.JPG", "/in.jpg", "/sub/c.jpeg"]
    assert [image.label for image in source] == [None, None, "sub"]
    assert source.passed_over == Counter({".txt": 1, ".heic": 1, "": 2})


def test_one_entrys_trouble_is_not_the_folders(image_files, tmp_path):
    """A link to itself, a folder that may not be read, one a thousand levels deep."""
    picture = sorted(image_files.rglob("*.*"))[0]
    (tmp_path / "a.jpg").symlink_to(tmp_path / "a.jpg")
    shutil.copy(picture, tmp_path / "b.jpg")
    images = {image.place: image for image in Folder(tmp_path)}
    assert isinstance(images["/b.jpg"].content, Path)
    assert set(images) <= {"/a.jpg", "/b.jpg"}


def test_a_folder_that_cannot_be_listed_is_a_failure_of_its_own(image_files, tmp_path, monkeypatch):
    shutil.copytree(image_files, tmp_path / "pictures")
    closed = next(path for path in (tmp_path / "pictures").iterdir() if path.is_dir())
    scandir = os.scandir

    def refuse(path):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    images = list(Folder(tmp_path / "pictures"))
    (failed,) = [image for image in images if isinstance(image.content, InvalidImage)]
    assert failed.place == f"/{closed.name}"
    assert str(failed.content) == "it cannot be read: Permission denied"
    monkeypatch.undo()
    assert len(images) == 1 + 300 - len(list(closed.iterdir()))


def test_folders_may_be_nested_deeper_than_python_recurses(image_files, tmp_path):
    # Each level on its own: a path of that length cannot be named at once.
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    shutil.copy(sorted(image_files.rglob("*.*"))[0], tmp_path / "x.jpg")
    found = [image.place for image in Folder(tmp_path)]
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # Python's own rmtree recurses
    assert found[-1] == "/x.jpg"


def test_a_file_name_that_is_not_utf8_is_no_obstacle(image_files, tmp_path):
    picture = sorted(image_files.rglob("*.*"))[0]
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    shutil.copy(picture, folder / os.fsdecode(b"\xff\xfe.jpg"))
    (image,) = Folder(tmp_path)
    assert image.place == "/caf%E9/%FF%FE.jpg"
    assert image.label == "caf\ufffd"
    assert Path(locate(str(tmp_path), image.place)).read_bytes() == picture.read_bytes()


@pytest.mark.parametrize(("mode", "suffix"), [("w", "tar"), ("w:gz", "tar.gz"), ("w:xz", "tar.xz")])
def test_an_archive_yields_what_its_folder_does(image_files, tmp_path, mode, suffix):
    archive = tar_of(image_files, tmp_path / f"pictures.{suffix}", mode)
    members = {image.place: image for image in TarArchive(archive)}
    assert len(members) == 300
    for image in Folder(image_files):
        member = members["!/pictures" + image.place]
        assert member.content == image.content.read_bytes()
        assert (member.label, member.size) == (image.label, image.size)


def test_links_and_devices_in_an_archive_are_left_out(image_files, tmp_path):
    picture = sorted(image_files.rglob("*.*"))[0].read_bytes()
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (
            ("l.jpg", tarfile.SYMTYPE),
            ("h.jpg", tarfile.LNKTYPE),
            ("f.jpg", tarfile.FIFOTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        member = tarfile.TarInfo("../../outside.jpg")
        member.size = len(picture)
        archive.addfile(member, io.BytesIO(picture))
    (image,) = TarArchive(tmp_path / "a.tar")
    assert image.place == "!/../../outside.jpg"  # a name, never a path: nothing is extracted
    assert image.content == picture


def test_of_two_members_of_one_name_the_first_counts(image_files, tmp_path):
    first, second = (path.read_bytes() for path in sorted(image_files.rglob("*.*"))[:2])
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for data in (first, second):
            member = tarfile.TarInfo("same.jpg")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    (image,) = TarArchive(tmp_path / "a.tar")
    assert image.content == first


@pytest.mark.parametrize("mtime", ["nan", "inf", "-inf", "1e11", "-1e300"])
def test_a_members_time_that_is_none_counts_as_zero(image_files, tmp_path, mtime):
    picture = sorted(image_files.rglob("*.*"))[0].read_bytes()
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.jpg")
        member.size, member.pax_headers = len(picture), {"mtime": mtime}
        archive.addfile(member, io.BytesIO(picture))
    (image,) = TarArchive(tmp_path / "a.tar")
    assert (image.mtime, image.content) == (0, picture)


def test_a_size_that_no_archive_could_hold_is_refused(tmp_path):
    member = tarfile.TarInfo("a.jpg")
    member.pax_headers = {"size": str(10**15)}
    data = member.tobuf(tarfile.PAX_FORMAT) + bytes(1024)
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(InvalidSource, match="a member claims 1,000,000,000,000,000 bytes"):
        list(TarArchive(tmp_path / "a.tar"))


def test_an_archives_huge_member_is_passed_by_unread(tmp_path):
    member = tarfile.TarInfo("huge.jpg")
    member.size = MAX_FILE_BYTES + 1
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        file.write(member.tobuf())
        for _ in range(MAX_FILE_BYTES // 2**24):
            file.write(bytes(2**24))
        file.write(bytes(512) + bytes(1024))
    (image,) = TarArchive(tmp_path / "a.tar.gz")
    assert isinstance(image.content, ImageTooLarge)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_a_truncated_archive_yields_what_is_whole_and_then_says_so(image_files, tmp_path, share):
    whole = tar_of(image_files, tmp_path / "whole.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: int(len(whole) * share)])
    found = []
    with pytest.raises(InvalidSource, match=r"cut\.tar\.gz is no tar archive, or a damaged one"):
        found.extend(TarArchive(tmp_path / "cut.tar.gz"))
    assert 0 < len(found) < 300


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


def test_the_samples_are_the_same_every_time_and_their_splits_differ(folders):
    first, again = (list(open_source("samples", folders)) for _ in range(2))
    test = list(Samples("test"))
    assert len(first) == CROPS["train"] * len(PHOTOGRAPHS)
    assert len(test) == CROPS["test"] * len(PHOTOGRAPHS)
    for one, other in zip(first, again, strict=True):
        assert_array_equal(one.content, other.content)
    seen = {image.content.tobytes() for image in first}
    assert not any(image.content.tobytes() in seen for image in test)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "nowhere does not exist; a folder, a tar archive"),
        ("nowhere:test", "nowhere:test does not exist; a folder"),
        ("cifar10:validation", "a split is one of train, test"),
        ("{picture}", "neither a folder nor a tar archive; to index a picture, name its folder"),
        ("{folder}:test", "has no splits"),
    ],
)
def test_a_source_that_is_none_is_refused(spec, message, image_files, folders):
    picture = sorted(image_files.rglob("*.*"))[0]
    with pytest.raises(InvalidSource, match=message):
        open_source(spec.format(picture=picture, folder=image_files), folders)
