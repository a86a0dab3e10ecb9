import gzip
import io
import tarfile
from pathlib import Path

import pytest

from hashsearch.errors import ImageTooLarge, InvalidSource
from hashsearch.images import MAX_FILE_BYTES
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.folder import Folder


def tar_of(folder: Path, path: Path, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        archive.add(folder, folder.name)
    return path


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
