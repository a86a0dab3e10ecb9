import ctypes
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hashsearch.cli import main
from hashsearch.errors import InvalidSource
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.sources import locate, open_source, open_test_split
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.arrays import NpyArray
from hashsearch.sources.base import SourceImage, decode_path, encode_path
from hashsearch.sources.datasets import DATASETS
from hashsearch.sources.folder import Folder, ImageFile
from hashsearch.sources.kinds import KINDS
from hashsearch.sources.parquet import ParquetImages
from hashsearch.sources.samples import CROPS, PHOTOGRAPHS, Samples
from hashsearch.sources.tinyimages import TinyImagesFile
from hashsearch.sources.zipped import ZipArchive
from tests.test_archive import tar_of

ROOT = Path(__file__).parents[1]


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


def test_the_samples_are_the_same_every_time_and_their_splits_differ(folders, monkeypatch):
    monkeypatch.setitem(CROPS, "train", 60)
    first, again = (list(open_source("samples", folders)) for _ in range(2))
    test = list(Samples("test"))
    assert len(first) == (CROPS["train"] + 1) * len(PHOTOGRAPHS) == Samples().estimate()
    assert len(test) == CROPS["test"] * len(PHOTOGRAPHS)
    whole = [image for image in first if isinstance(image.content, Path)]
    assert [image.content.name for image in whole] == list(PHOTOGRAPHS)
    for image in whole:
        assert image.content == Path(locate(str(Samples().root), image.place))
    for one, other in zip(first, again, strict=True):
        assert_array_equal(one.content, other.content)
    crops = [image.content for image in first if image not in whole]
    assert {crop.shape for crop in crops} == {(128, 128, 3)}
    seen = {crop.tobytes() for crop in crops}
    assert not any(image.content.tobytes() in seen for image in test)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "nowhere does not exist; a source is .* the name of a data set: cifar10, "),
        ("nowhere:test", "nowhere:test does not exist; a source is "),
        ("cifar10:validation", "a split is one of train, test"),
        ("{text}", "notes.txt is not a source of images; a source is .*, a zip archive"),
        ("{folder}:test", "has no test split; leave out :test"),
    ],
)
def test_a_source_that_is_none_is_refused(spec, message, image_files, tmp_path, folders):
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(InvalidSource, match=message):
        open_source(spec.format(text=tmp_path / "notes.txt", folder=image_files), folders)


def test_a_file_that_is_none_is_not_waited_for(tmp_path, folders):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InvalidSource, match=r"pipe\.jpg is not a source of images"):
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
    made = make_of_each_kind(tmp_path, image_files, tiny_images)
    assert len(made) == len(KINDS) - 1  # CIFAR's batches have tests of their own
    for name, kind in made.items():
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


TOY = """
from pathlib import Path
from hashsearch.sources import kinds, open_source, DataFolders
from hashsearch.sources.arrays import NpyArray

class Toy(NpyArray):
    pass

kinds.KINDS = (*kinds.KINDS, kinds.Kind("a toy's file", lambda path: path.suffix == ".toy", Toy))
"""


def run_with_toy(statements: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run Python, in a process of its own, with one more line in the table of kinds."""
    command = [sys.executable, "-c", TOY + statements, *arguments]
    environment = os.environ | {"COLUMNS": "1000"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)


def test_a_new_kind_of_source_takes_one_line_of_the_table(tmp_path):
    """It is then opened, named where a file is of no kind, and named in the command's help."""
    (tmp_path / "a.toy").write_text("bricks")
    (tmp_path / "notes.txt").write_text("none of these")
    opening = "import sys; print(type(open_source(sys.argv[1], DataFolders(None, Path()))))"
    assert run_with_toy(opening, str(tmp_path / "a.toy")).stdout == "<class '__main__.Toy'>\n"
    refused = run_with_toy(opening, str(tmp_path / "notes.txt"))
    assert "notes.txt is not a source of images" in refused.stderr
    assert "a toy's file" in refused.stderr
    shown = run_with_toy("from hashsearch.cli import main; main(['index', '--help'])")
    assert "a toy's file" in shown.stdout


def test_every_kind_is_named_in_the_help_and_where_a_path_is_of_none(
    tmp_path, folders, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "1000")  # no line is broken within a name
    (tmp_path / "notes.txt").write_text("none of these")
    with pytest.raises(InvalidSource) as caught:
        open_source(str(tmp_path / "notes.txt"), folders)
    with pytest.raises(SystemExit):
        main(["index", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for kind in KINDS:
        assert kind.title in str(caught.value)
        assert kind.title in shown
    for name in DATASETS:
        assert name in shown


def test_the_table_of_kinds_imports_no_extra():
    statement = "import hashsearch.sources.kinds, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True)
    assert "hashsearch.sources.parquet" in done.stdout.split()
    assert not {"pyarrow", "pillow_heif", "pooch", "torch"} & set(done.stdout.split())


FAR = 10_413_792_000 * 10**9  # 2300-01-01, which ext4 stores and 64 bits of nanoseconds do not


@pytest.mark.parametrize("mtime", [FAR, FAR + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**80])
def test_any_date_and_size_fit_the_catalog(mtime):
    image = SourceImage("/a.jpg", None, 2**64 - 1, mtime, b"")
    assert image.size == 2**63 - 1
    assert image.mtime == ctypes.c_int64(mtime).value  # wrapped as C does
    assert replace(image, label="cat") == replace(image, label="cat", mtime=image.mtime)


def test_files_of_any_date_are_indexed_whole_and_then_unchanged(
    empty_gallery, image_files, tiny_images, tmp_path, folders
):
    """A single file whose numbers the catalog refused took its whole commit with it."""
    made = make_of_each_kind(tmp_path, image_files, tiny_images)
    paths = [path for path in tmp_path.rglob("*") if path.name in made or path.parent.name in made]
    for path in paths:
        os.utime(path, ns=(FAR, FAR))
        if path.stat().st_mtime_ns != FAR:
            pytest.skip("this file system stores no date beyond 2262")
    expected = sum(len(list(open_source(str(tmp_path / name), folders))) for name in made)
    sources = [open_source(str(tmp_path / name), folders) for name in made]
    first = index_sources(empty_gallery, sources, workers=1)
    assert (first.failed, first.indexed + first.duplicates) == (0, expected)
    again = index_sources(empty_gallery, sources, workers=1)
    assert (again.indexed, again.failed) == (0, 0)
    assert again.unchanged == first.indexed + first.duplicates


def test_a_member_that_claims_any_size_is_a_failure_of_its_own(
    empty_gallery, image_files, tmp_path
):
    picture = sorted(image_files.rglob("*.*"))[0].read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        large = zipfile.ZipInfo("large.jpg")
        archive.writestr(large, picture)
        archive.writestr("whole.jpg", picture)
        large.file_size = 2**64 - 1
    holes = tarfile.TarInfo("holes.jpg")
    holes.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "holes.jpg",
        "GNU.sparse.realsize": str(2**70),
    }
    part = b"0\n".ljust(512, b"\0")  # a map of no parts
    holes.size = len(part)
    member = tarfile.TarInfo("whole.jpg")
    member.size = len(picture)
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(holes, io.BytesIO(part))
        archive.addfile(member, io.BytesIO(picture))
    sources = [ZipArchive(tmp_path / "a.zip"), TarArchive(tmp_path / "a.tar")]
    summary = index_sources(empty_gallery, sources, workers=1)
    assert (summary.indexed, summary.duplicates, summary.failed) == (1, 1, 2)
    reasons = [failure.reason for failure, _ in empty_gallery.catalog.failures()]
    assert sorted(reasons) == [
        "it is stored as a file with holes",
        "the file has 18,446,744,073,709,551,615 bytes; at most 268,435,456 are read",
    ]
    assert index_sources(empty_gallery, sources, workers=1).skipped == 2
