import io
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pyarrow
import pyarrow.feather
import pytest
from PIL import Image

from hashsearch.errors import InvalidSource
from hashsearch.sources import open_source
from hashsearch.sources.unread import UNREAD_KINDS, why_unread
from tests.test_archive import tar_of


def refused(path: Path, folders) -> str:
    with pytest.raises(InvalidSource) as caught:
        list(open_source(str(path), folders))
    return str(caught.value)


def test_a_tar_archive_packed_by_zstd_is_refused_with_what_is_read(image_files, tmp_path, folders):
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    tar_of(image_files, tmp_path / "my pictures.tar", "w")
    packed = tmp_path / "my pictures.tar.zst"
    subprocess.run(["zstd", "-q", "--rm", tmp_path / "my pictures.tar"], check=True)
    message = refused(packed, folders)
    command = f"zstd -d '{packed}'"
    assert f"{packed} is compressed by zstd, which is not read; unpack it with {command}" in message
    assert "; a source is CIFAR-10" in message
    assert "a tar archive (.tar, .tar.gz, .tar.bz2 or .tar.xz)" in message
    subprocess.run(["sh", "-c", f"{command} -q"], check=True)  # the advice helps
    assert len(list(open_source(str(tmp_path / "my pictures.tar"), folders))) == 300


def test_the_parts_of_a_zip_archive_are_refused_with_what_unpacks_them(
    photograph, tmp_path, folders
):
    if shutil.which("zip") is None:
        pytest.skip("Info-ZIP's zip is not installed")
    (tmp_path / "0.jpg").write_bytes(photograph)
    subprocess.run(["zip", "-q", "-0", "-s", "64k", "a.zip", "0.jpg"], cwd=tmp_path, check=True)
    for name, what in (("a.z01", "first"), ("a.zip", "last")):
        message = refused(tmp_path / name, folders)
        assert f"{name} is the {what} part of a zip archive in several parts, which is" in message
        assert "unpack it with 7z x" in message


def files_that_are_no_sources() -> dict[str, bytes]:
    pdf, arrow = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (40, 40)).save(pdf, "PDF")
    pyarrow.feather.write_feather(pyarrow.table({"a": [1]}), arrow)
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE images (data BLOB)")
    return {
        "a PDF": pdf.getvalue(),
        "an Arrow file": arrow.getvalue(),
        "an SQLite database": database.serialize(),
        "a video": b"\0\0\0 ftypisom\0\0\2\0isomiso2avc1mp41",
        "a RAR archive": b"Rar!\x1a\x07\x01\0",
        "a 7z archive": b"7z\xbc\xaf\x27\x1c\0\4",
        "an HDF5 file": b"\x89HDF\r\n\x1a\n",
    }


@pytest.mark.parametrize(("title", "data"), files_that_are_no_sources().items())
def test_a_file_of_an_unread_kind_is_named(title, data, tmp_path, folders):
    (tmp_path / "a.bin").write_bytes(data + bytes(2000))
    message = refused(tmp_path / "a.bin", folders)
    assert f"a.bin is {title}, which is not read; " in message
    assert "; a source is CIFAR-10" in message


@pytest.mark.parametrize("data", [b"", b"Rar?" * 500], ids=["empty", "damaged"])
def test_an_empty_or_damaged_file_of_an_unread_kind_is_named_by_its_suffix(data, tmp_path, folders):
    for kind in UNREAD_KINDS:
        for suffix in kind.suffixes:
            for name in (f"a{suffix}", f"B.tar{suffix.upper()}"):
                path = tmp_path / name
                path.write_bytes(data)
                advice = kind.advice.format(path=path)
                assert f"{path} is {kind.title}, which is not read; {advice}; a source is" in (
                    refused(path, folders)
                )


def test_first_bytes_tell_more_than_a_suffix(tmp_path, folders):
    (tmp_path / "a.pdf").write_bytes(b"Rar!\x1a\x07\x01\0" + bytes(2000))
    assert "a.pdf is a RAR archive, which is not read" in refused(tmp_path / "a.pdf", folders)


@pytest.mark.parametrize("kind", ["AVIF", "WEBP", "JPEG"])
def test_a_picture_is_of_no_unread_kind(kind, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "picture", kind)
    assert why_unread(tmp_path / "picture") is None
    assert why_unread(tmp_path) is None
    (tmp_path / "empty").touch()
    assert why_unread(tmp_path / "empty") is None


def test_every_row_of_the_table_is_a_sentence_with_the_path():
    for kind in UNREAD_KINDS:
        assert "{" not in kind.advice.format(path="a path")
        assert not kind.advice.endswith(".")
        assert os.linesep not in kind.title + kind.advice
