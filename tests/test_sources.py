import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hashsearch.errors import InvalidSource
from hashsearch.sources import locate, open_source, open_test_split
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.arrays import NpyArray
from hashsearch.sources.base import decode_path, encode_path
from hashsearch.sources.folder import Folder, ImageFile
from hashsearch.sources.parquet import ParquetImages
from hashsearch.sources.samples import CROPS, PHOTOGRAPHS, Samples
from hashsearch.sources.tinyimages import TinyImagesFile
from hashsearch.sources.zipped import ZipArchive
from tests.test_archive import tar_of


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
        ("nowhere", "nowhere does not exist; a folder, an image file, a tar or zip archive"),
        ("nowhere:test", "nowhere:test does not exist; a folder"),
        ("cifar10:validation", "a split is one of train, test"),
        ("{text}", "notes.txt is not a folder, an image file, a tar or zip archive"),
        ("{folder}:test", "has no test split; leave out :test"),
    ],
)
def test_a_source_that_is_none_is_refused(spec, message, image_files, tmp_path, folders):
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(InvalidSource, match=message):
        open_source(spec.format(text=tmp_path / "notes.txt", folder=image_files), folders)


def test_a_file_that_is_none_is_not_waited_for(tmp_path, folders):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InvalidSource, match=r"pipe\.jpg is not a folder, an image file"):
        open_source(str(tmp_path / "pipe.jpg"), folders)


def make_of_each_kind(folder: Path, image_files: Path, tiny_images: np.ndarray) -> dict[str, type]:
    """A small file of each kind, by its name."""
    picture = sorted(image_files.rglob("*.*"))[0]
    shutil.copy(picture, folder / "a.JPG")
    shutil.copytree(picture.parent, folder / "folder")
    tar_of(picture.parent, folder / "pictures.tgz")
    shutil.make_archive(str(folder / "pictures"), "zip", picture.parent)
    np.save(folder / "pictures.npy", tiny_images)
    (folder / "tiny_images_part.bin").write_bytes(bytes(3072))
    pyarrow.parquet.write_table(
        pyarrow.table({"image": [picture.read_bytes()]}), folder / "pictures.parquet"
    )
    return {
        "a.JPG": ImageFile,
        "folder": Folder,
        "pictures.tgz": TarArchive,
        "pictures.zip": ZipArchive,
        "pictures.npy": NpyArray,
        "tiny_images_part.bin": TinyImagesFile,
        "pictures.parquet": ParquetImages,
    }


def test_the_kind_of_a_source_is_known_by_its_content_or_else_its_name(
    image_files, tiny_images, tmp_path, folders
):
    for name, kind in make_of_each_kind(tmp_path, image_files, tiny_images).items():
        path = tmp_path / name
        assert type(open_source(str(path), folders)) is kind
        assert len(list(open_source(str(path), folders))) > 0
        assert open_test_split(str(path), folders) is None
        if kind in (TarArchive, ZipArchive, NpyArray, ParquetImages):
            renamed = path.rename(tmp_path / f"{path.stem}-of-{path.suffix[1:]}")
            assert type(open_source(str(renamed), folders)) is kind
            path.write_bytes(b"damaged")
            with pytest.raises(InvalidSource, match=re.escape(f"{path} is")):
                list(open_source(str(path), folders))
