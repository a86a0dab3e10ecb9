import io
import os
import re
import shutil
import stat
import struct
import subprocess
import tracemalloc
import zipfile
import zlib
from collections import Counter
from copy import copy
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote
from zipfile import ZipInfo

import numpy as np
import pytest

from hashsearch.errors import ImageTooLarge, InvalidImage, InvalidSource
from hashsearch.images import MAX_FILE_BYTES
from hashsearch.sources import zipped
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.folder import Folder
from hashsearch.sources.zipped import ZipArchive, _directory, image_in_zip
from tests.test_archive import OF_PYTHON, OUTSIDE, tar_of

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
LOCAL, ENTRY, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"  # how the records begin


@pytest.fixture
def pictures(image_files) -> list[bytes]:
    return [path.read_bytes() for path in sorted(image_files.rglob("*.*"))[:4]]


def zip_with(path: Path, files: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return path


def overwrite(path: Path, mark: bytes, at: int, values: bytes) -> None:
    """Overwrite bytes of the first record that begins with a mark."""
    data = bytearray(path.read_bytes())
    begin = data.index(mark) + at
    data[begin : begin + len(values)] = values
    path.write_bytes(data)


@pytest.mark.parametrize("method", METHODS)
def test_a_zip_archive_yields_what_its_folder_does(image_files, tmp_path, method):
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w", method) as archive:
        for file in sorted(image_files.rglob("*")):
            archive.write(file, file.relative_to(image_files.parent))
        entries = len(archive.filelist)  # folders are some too
    source = ZipArchive(tmp_path / "pictures.zip")
    assert source.estimate() == entries > 300
    members = {image.place: image for image in source}
    assert len(members) == source.estimate() == 300
    for image in Folder(image_files):
        member = members["!/pictures" + image.place]
        assert member.content == image.content.read_bytes()
        assert (member.label, member.size) == (image.label, image.size)


@pytest.mark.parametrize("wide", [False, True])
def test_members_are_those_that_pythons_zipfile_reads(pictures, tmp_path, monkeypatch, wide):
    """Names in two encodings, 64-bit sizes, sizes after the data, a comment, bytes before it."""
    if wide:
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 500)  # so that 501 bytes count as many
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = b"a comment"
        archive.writestr("plain/a.jpg", pictures[0], zipfile.ZIP_STORED)
        archive.writestr("日本/é.jpg", pictures[1])
        with archive.open("sized/b.jpg", "w", force_zip64=True) as member:
            member.write(pictures[2])
        archive.writestr(zipfile.ZipInfo("caf*.jpg", (1999, 12, 31, 23, 59, 58)), pictures[3])
    (tmp_path / "a.zip").write_bytes(
        b"#!/bin/sh\n" + buffer.getvalue().replace(b"caf*.jpg", b"caf\x82.jpg")
    )
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        expected = [("!/" + quote(info.filename), archive.read(info)) for info in archive.filelist]
    images = list(ZipArchive(tmp_path / "a.zip"))
    assert [(image.place, image.content) for image in images] == expected
    assert [data for _, data in expected] == pictures
    assert images[3].place == "!/caf%C3%A9.jpg"
    assert images[3].mtime == datetime(1999, 12, 31, 23, 59, 58, tzinfo=UTC).timestamp() * 10**9


@pytest.mark.parametrize("flag", [False, True])
def test_names_in_utf8_are_read_with_and_without_their_flag(flag, pictures, tmp_path):
    """Info-ZIP's zip and macOS write UTF-8 without the flag, Python with it."""
    names = ["café/é.jpg", "日本/語.jpg", "plain/a.jpg"]
    path = tmp_path / "a.zip"
    if flag:
        zip_with(path, list(zip(names, pictures, strict=False)))
    else:
        for name, data in zip(names, pictures, strict=False):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_bytes(data)
        if shutil.which("zip") is None:
            pytest.skip("Info-ZIP's zip is not installed")
        # Where the locale is not of UTF-8, it copies the names' bytes and sets no flag.
        subprocess.run(
            ["zip", "-q", path, *names], cwd=tmp_path, env=os.environ | {"LC_ALL": "C"}, check=True
        )
    with zipfile.ZipFile(path) as archive:
        flags = {entry.flag_bits & 0x800 for entry in archive.infolist()[:2]}
    assert flags == {0x800 if flag else 0}
    images = list(ZipArchive(path))
    assert [image.place for image in images] == ["!/" + quote(name) for name in names]
    assert [image.label for image in images] == ["café", "日本", "plain"]
    assert [image.content for image in images] == pictures[:3]


def test_a_zip_archive_yields_the_names_of_the_tar_archive_of_its_folder(pictures, tmp_path):
    """Whatever bytes a name has that is valid UTF-8; the others differ, as zip has no raw names."""
    for number, name in enumerate(["été/naïve Ω.jpg", "ё/ж.jpg", "ａ/😀.jpg"]):
        (tmp_path / "x" / name).parent.mkdir(parents=True)
        (tmp_path / "x" / name).write_bytes(pictures[number])
    shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "x")
    tar_of(tmp_path / "x", tmp_path / "a.tar", "w")
    path = tmp_path / "a.zip"
    raw = bytearray(path.read_bytes())
    for mark, at in ((LOCAL, 6), (ENTRY, 8)):  # no flag: UTF-8 all the same
        for found in re.finditer(re.escape(mark), bytes(raw)):
            raw[found.start() + at : found.start() + at + 2] = bytes(2)
    path.write_bytes(raw)
    in_tar = {(i.place.replace("!/x/", "!/"), i.label) for i in TarArchive(tmp_path / "a.tar")}
    assert {(i.place, i.label) for i in ZipArchive(path)} == in_tar
    assert len(in_tar) == 3


def with_unicode_path(raw: bytes, name: str, of: bytes | None = None, version: int = 1) -> ZipInfo:
    """A member whose header has a name's bytes, and the field 0x7075 another name."""
    info = zipfile.ZipInfo(raw.decode("cp437"))
    field = struct.pack("<BL", version, zlib.crc32(raw if of is None else of)) + name.encode()
    info.extra = struct.pack("<HHB", 0x5455, 1, 0) + struct.pack("<2H", 0x7075, len(field)) + field
    return info


@pytest.mark.parametrize(
    ("info", "name"),
    [
        (with_unicode_path(b"Z/1.jpg", "Ω/1.jpg"), "Ω/1.jpg"),
        (with_unicode_path(b"?/1.jpg", "日本/1.jpg"), "日本/1.jpg"),
        (with_unicode_path(b"caf_/1.jpg", "café/1.jpg\0x"), "café/1.jpg"),
        (with_unicode_path(b"Z/1.jpg", "Ω/1.jpg", of=b"Y/1.jpg"), "Z/1.jpg"),  # since renamed
        (with_unicode_path(b"Z/1.jpg", "Ω/1.jpg", version=2), "Z/1.jpg"),
        (with_unicode_path(b"Z/1.jpg", "../1.jpg"), "../1.jpg"),
        (with_unicode_path(b"Z/1.jpg", "z\\1.jpg"), "z/1.jpg"),
    ],
)
def test_the_field_for_a_name_in_unicode_counts_if_it_is_of_the_name(
    info, name, pictures, tmp_path
):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(copy(info), pictures[0])
    (image,) = ZipArchive(tmp_path / "a.zip")
    assert image.place == "!/" + quote(name)
    assert isinstance(image.content, InvalidImage) == name.startswith("..")


def test_a_name_that_is_no_unicode_in_a_field_for_it_is_that_of_the_header(pictures, tmp_path):
    info = with_unicode_path(b"Z/1.jpg", "Ω/1.jpg")
    info.extra = info.extra.replace("Ω".encode(), b"\xff\xff")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, pictures[0])
    (image,) = ZipArchive(tmp_path / "a.zip")
    assert image.place == "!/Z/1.jpg"


def test_a_name_that_is_no_utf8_despite_its_flag_costs_no_other_member(pictures, tmp_path):
    files = [("a/é1.jpg", pictures[0]), ("a/é2.jpg", pictures[1]), ("b.jpg", pictures[2])]
    data = zip_with(tmp_path / "a.zip", files).read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace("é1".encode(), b"\x82\xff1"))
    with pytest.raises(UnicodeDecodeError):
        zipfile.ZipFile(tmp_path / "a.zip")
    names = ["a/é\xa01.jpg", "a/é2.jpg", "b.jpg"]  # code page 437 has a space at 255
    images = list(ZipArchive(tmp_path / "a.zip"))
    assert [(i.place, i.content) for i in images] == [
        ("!/" + quote(name), data) for name, data in zip(names, pictures, strict=False)
    ]


def zip_of_raw_names(path: Path, names: list[bytes], data: bytes) -> Path:
    """An archive whose members' names are bytes in an encoding that nothing marks."""
    stand_ins = [f"{number}".ljust(len(name), "_") for number, name in enumerate(names)]
    raw = zip_with(path, [(stand_in, data) for stand_in in stand_ins]).read_bytes()
    for stand_in, name in zip(stand_ins, names, strict=True):
        raw = raw.replace(stand_in.encode(), name)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("encoding", "folders"),
    [
        ("cp932", ["猫", "犬", "写真"]),
        ("cp932", ["ネコ", "いぬ"]),
        ("gbk", ["猫", "狗", "鸟"]),  # the bytes of the first are valid UTF-8
        ("big5", ["貓", "狗"]),
        ("cp949", ["고양이", "개"]),
        ("cp1251", ["кошка", "собака"]),
        ("cp1251", ["Кот", "Пёс"]),
        ("cp866", ["Кошка", "Собака"]),
        ("latin-1", ["café", "niño", "plage d'été"]),
        ("cp1250", ["pies", "żaba"]),
    ],
)
def test_folders_named_in_an_unknown_encoding_give_no_labels(encoding, folders, pictures, tmp_path):
    names = [f"{name}/1.jpg".encode(encoding) for name in [*folders, "plain"]]
    source = ZipArchive(zip_of_raw_names(tmp_path / "a.zip", names, pictures[0]))
    for _ in range(2):
        images = list(source)
    assert [unquote(image.place) for image in images] == [f"!/{n.decode('cp437')}" for n in names]
    assert [image.label for image in images] == [n if n.isascii() else None for n in folders] + [
        "plain"
    ]
    unsure = [name for name in names if not name.isascii()]
    assert source.remarks == [
        f"names in an unknown encoding ({len(unsure)}, such as {unsure[0].decode('cp437')})"
        " give no labels; give them by --labels"
    ]


@pytest.mark.parametrize("folders", [["café", "Öl"], ["niño", "¿qué"], ["Straße"], ["Bébé", "été"]])
def test_names_in_code_page_437_give_labels_and_a_remark(folders, pictures, tmp_path):
    names = [f"{name}/1.jpg".encode("cp437") for name in folders]
    source = ZipArchive(zip_of_raw_names(tmp_path / "a.zip", names, pictures[0]))
    assert [image.label for image in source] == folders
    (remark,) = source.remarks
    assert remark.startswith(
        f"names that are not marked as UTF-8 ({len(folders)}, such as {folders[0]}/1.jpg) were "
        "read as code page 437"
    )


def test_one_name_in_another_encoding_costs_those_in_utf8_no_label(pictures, tmp_path):
    names = [*(f"{n}/1.jpg".encode() for n in ("猫", "été", "ёж")), "café/1.jpg".encode("latin-1")]
    source = ZipArchive(zip_of_raw_names(tmp_path / "a.zip", names, pictures[0]))
    assert [image.label for image in source] == ["猫", "été", "ёж", None]
    assert len(source.remarks) == 1


def test_names_of_known_encoding_take_no_remark(pictures, tmp_path):
    names = [name.encode() for name in ("猫/1.jpg", "été/1.jpg", "plain/1.jpg")]
    source = ZipArchive(zip_of_raw_names(tmp_path / "a.zip", names, pictures[0]))
    assert [image.label for image in source] == ["猫", "été", "plain"]
    assert source.remarks == []


def test_a_name_in_an_unknown_encoding_is_not_cut_at_the_byte_of_a_backslash(pictures, tmp_path):
    names = ["表.jpg".encode("cp932"), "写真.jpg".encode("cp932")]
    assert b"\\" in names[0]
    source = ZipArchive(zip_of_raw_names(tmp_path / "a.zip", names, pictures[0]))
    assert [unquote(i.place) for i in source] == [f"!/{name.decode('cp437')}" for name in names]


@pytest.mark.parametrize(
    ("name", "place", "label"),
    [
        (r"cat\a.jpg", "!/cat/a.jpg", "cat"),
        (r"x\cat\a.jpg", "!/x/cat/a.jpg", "cat"),
        (r"x/cat\a.jpg", "!/x/cat%5Ca.jpg", "x"),
        (r"a.jpg", "!/a.jpg", None),
    ],
)
def test_backslashes_separate_folders_where_no_slash_does(name, place, label, pictures, tmp_path):
    (image,) = ZipArchive(zip_with(tmp_path / "a.zip", [(name, pictures[0])]))
    assert (image.place, image.label, image.content) == (place, label, pictures[0])


def test_names_are_compared_and_hidden_as_they_are_read(pictures, tmp_path):
    names = [r"cat\a.jpg", "cat/a.jpg", r".git\b.jpg", r"__MACOSX\c.jpg", "folder.jpg\\"]
    source = ZipArchive(zip_with(tmp_path / "a.zip", [(name, pictures[0]) for name in names]))
    (image,) = source
    assert image.place == "!/cat/a.jpg"
    assert source.estimate() == 1


def test_more_members_than_16_bits_count_are_read(tmp_path):
    """Their number is in the 64-bit record."""
    zip_with(tmp_path / "a.zip", [(f"{number}.jpg", b"") for number in range(66_000)])
    source = ZipArchive(tmp_path / "a.zip")
    assert source.estimate() == 66_000
    assert sum(1 for _ in source) == 66_000


def test_many_members_take_less_than_a_kilobyte_each(tmp_path):
    def peak(count: int, copy: int) -> int:
        path = tmp_path / f"{count}-{copy}.zip"  # since the directories read last are kept
        zip_with(path, [(f"{number}.jpg", b"") for number in range(count)])
        source = ZipArchive(path)
        tracemalloc.start()
        assert sum(1 for _ in source) == count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    # The lesser of two, since Python's table of interned names may grow during one of them.
    few, many = (min(peak(count, copy) for copy in range(2)) for count in (1000, 11_000))
    assert many - few < 10_000 * 1024


@pytest.mark.parametrize("name", [*OUTSIDE, "../x/a.jpg"])
def test_a_member_whose_name_points_outside_is_refused_and_the_rest_goes_on(
    name, pictures, tmp_path
):
    zip_with(tmp_path / "a.zip", [(name, pictures[0]), ("b.jpg", pictures[1])])
    refused, image = ZipArchive(tmp_path / "a.zip")
    assert isinstance(refused.content, InvalidImage)
    assert str(refused.content) == "its name points outside the archive"
    assert (image.place, image.content) == ("!/b.jpg", pictures[1])


def test_the_directory_is_read_once_for_many_members_and_again_once_it_changes(
    tmp_path, monkeypatch
):
    read = []

    def directory(file, path):
        read.append(path)
        return _directory(file, path)

    monkeypatch.setattr(zipped, "_directory", directory)

    def member(path, name):
        with path.open("rb") as file:
            return image_in_zip(file, path, name, lambda: False)

    files = [(f"d/{number}.png", b"%d" % number) for number in range(3000)]
    path = zip_with(tmp_path / "a.zip", files)
    for name, data in (*files[:50], *files[-50:]):
        assert member(path, name) == data
    assert member(path, "d/3000.png") is None
    assert len(read) == 1
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("d/3000.png", b"new")
    assert member(path, "d/3000.png") == b"new"
    assert len(read) == 2
    others = [zip_with(tmp_path / f"{n}.zip", [("a.png", b"%d" % n)]) for n in range(5)]
    assert [member(other, "a.png") for other in others] == [b"%d" % n for n in range(5)]
    tracemalloc.start()
    assert member(path, "d/1.png") == b"1"  # read again: it was the oldest that was kept
    assert tracemalloc.get_traced_memory()[0] < 3001 * 100
    tracemalloc.stop()
    assert len(read) == 8


def test_hidden_files_links_folders_and_what_macos_adds_are_left_out(pictures, tmp_path):
    link = zipfile.ZipInfo("link.jpg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.mkdir("folder.jpg")
        for name in ("__MACOSX/x/._a.jpg", "__MACOSX/b.jpg", "x/.c.jpg", "notes.txt", "x/d.jpg"):
            archive.writestr(name, pictures[0])
        archive.writestr(".trash/e.jpg", pictures[0])
        archive.writestr("x/.git/y/f.jpg", pictures[0])
    source = ZipArchive(tmp_path / "a.zip")
    (image,) = source
    assert (image.place, image.label) == ("!/x/d.jpg", "x")
    assert source.passed_over == Counter({".txt": 1})
    assert source.estimate() == 1


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_members_of_one_name_the_first_counts(pictures, tmp_path):
    zip_with(tmp_path / "a.zip", [("same.jpg", pictures[0]), ("same.jpg", pictures[1])])
    (image,) = ZipArchive(tmp_path / "a.zip")
    assert image.content == pictures[0]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ((ENTRY, 8, b"\x01\x00"), "it is encrypted"),
        ((ENTRY, 10, b"\x5d\x00"), "it is compressed by method 93; stored members and"),
        ((ENTRY, 10, b"\x0c\x00"), "it is damaged in its archive"),  # no bzip2
        ((ENTRY, 10, b"\x0e\x00"), "it is damaged in its archive"),  # no LZMA
        ((ENTRY, 16, bytes(4)), "it is damaged in its archive"),  # another checksum
        ((ENTRY, 24, struct.pack("<L", 10)), "it is damaged in its archive"),  # a smaller size
        ((ENTRY, 24, struct.pack("<L", 2**20)), "it is damaged in its archive"),  # a greater one
        ((ENTRY, 20, struct.pack("<L", 10)), "it is damaged in its archive"),  # compressed
        ((ENTRY, 42, struct.pack("<L", 2**31)), "it is damaged in its archive"),  # far away
        ((ENTRY, 20, b"\xff\xff\xff\xff"), "the file has 4,294,967,295 bytes"),  # no 64-bit size
        ((LOCAL, 0, b"XX"), "it is damaged in its archive"),
        ((LOCAL, 28, b"\xff\xff"), "it is damaged in its archive"),
        ((LOCAL, 50, bytes(100)), "it is damaged in its archive"),
    ],
)
def test_a_members_damage_is_its_own(damage, reason, pictures, tmp_path):
    files = [("a.jpg", pictures[0]), ("b.jpg", pictures[1])]
    zip_with(tmp_path / "a.zip", files, zipfile.ZIP_DEFLATED)
    overwrite(tmp_path / "a.zip", *damage)
    damaged, image = ZipArchive(tmp_path / "a.zip")
    assert isinstance(damaged.content, InvalidImage)
    assert str(damaged.content).startswith(reason)
    assert image.content == pictures[1]


@cache
def bomb(method: int) -> bytes:
    """An archive of a member that is larger than any image may be."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive, archive.open("bomb.jpg", "w") as member:
        for _ in range(MAX_FILE_BYTES // 2**24 + 1):
            member.write(bytes(2**24))
    return packed.getvalue()


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("claimed", [None, 1000, MAX_FILE_BYTES])
def test_a_bomb_is_not_unpacked_beyond_what_is_read_whatever_it_claims(claimed, method, tmp_path):
    (tmp_path / "a.zip").write_bytes(bomb(method))
    if claimed is not None:
        overwrite(tmp_path / "a.zip", ENTRY, 24, struct.pack("<L", claimed))
    tracemalloc.start()
    (image,) = ZipArchive(tmp_path / "a.zip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(image.content, InvalidImage)
    assert isinstance(image.content, ImageTooLarge) == (claimed is None)
    assert peak < OF_PYTHON + 2 * 2**20 + 2.2 * (claimed or 0)  # of 256


def test_members_that_share_their_bytes_are_read_once(tmp_path):
    zip_with(tmp_path / "a.zip", [("a.jpg", bytes(2**24))], zipfile.ZIP_DEFLATED)
    data = (tmp_path / "a.zip").read_bytes()
    begin, end = data.index(ENTRY), data.index(END)
    entries = b"".join(data[begin:end].replace(b"a.jpg", b"%d.jpg" % n) for n in range(9))
    length = struct.pack("<2H2L", 9, 9, len(entries), begin)
    (tmp_path / "a.zip").write_bytes(data[:begin] + entries + END + bytes(4) + length + bytes(2))
    first, *others = ZipArchive(tmp_path / "a.zip")
    assert first.content == bytes(2**24)
    assert [str(one.content) for one in others] == ["its bytes are those of other members"] * 8


@pytest.mark.parametrize(
    "damage",
    [
        (END, 16, struct.pack("<L", 2**31)),  # the directory begins beyond the end
        (END, 12, struct.pack("<L", 2**31)),  # and is larger than the file
        (END, 12, struct.pack("<L", 20)),  # or shorter than an entry
        (ENTRY, 0, b"XX"),
        (ENTRY, 28, b"\xff\xff"),  # a name that takes the next entry for its own
        (END, 0, b"XX"),
    ],
)
def test_a_damaged_directory_is_reported(damage, pictures, tmp_path):
    zip_with(tmp_path / "a.zip", [("a.jpg", pictures[0]), ("b.jpg", pictures[1])])
    overwrite(tmp_path / "a.zip", *damage)
    with pytest.raises(InvalidSource, match=r"a\.zip is no zip archive, or its directory is dam"):
        list(ZipArchive(tmp_path / "a.zip"))


def test_a_zip_archive_cut_short_is_reported(pictures, tmp_path):
    whole = zip_with(tmp_path / "a.zip", [("a.jpg", pictures[0])]).read_bytes()
    for length in (0, 4, 21, 30, len(whole) // 2, len(whole) - 1):
        (tmp_path / "a.zip").write_bytes(whole[:length])
        assert ZipArchive(tmp_path / "a.zip").estimate() is None
        with pytest.raises(InvalidSource, match="is no zip archive, or its directory is damaged"):
            list(ZipArchive(tmp_path / "a.zip"))


@pytest.mark.parametrize("method", METHODS[1:])
def test_garbage_anywhere_gives_images_or_our_own_errors(method, pictures, tmp_path):
    files = [(f"{number}.jpg", data) for number, data in enumerate(pictures)]
    whole = zip_with(tmp_path / "a.zip", files, method).read_bytes()
    rng = np.random.default_rng(0)
    tail = range(whole.index(ENTRY), len(whole))
    for trial in range(300):
        damaged = bytearray(whole)
        for at in rng.choice(tail if trial % 2 else len(whole), 3):
            damaged[at] = rng.choice([0, 255, rng.integers(256)])
        (tmp_path / "a.zip").write_bytes(damaged)
        try:
            contents = [image.content for image in ZipArchive(tmp_path / "a.zip")]
        except InvalidSource:
            continue
        assert all(isinstance(one, InvalidImage) or one in pictures for one in contents)
