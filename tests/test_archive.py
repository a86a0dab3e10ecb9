import gzip
import io
import json
import tarfile
import tracemalloc
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from hashsearch.errors import ImageTooLarge, InvalidImage, InvalidSource
from hashsearch.images import MAX_FILE_BYTES
from hashsearch.sources import datasets, webdataset
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.datasets import Dataset, open_jpeg_split, open_tar
from hashsearch.sources.folder import Folder


def tar_of(folder: Path, path: Path, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        archive.add(folder, folder.name)
    return path


def tar_with(path: Path, files: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
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
        member = tarfile.TarInfo("a.jpg")
        member.size = len(picture)
        archive.addfile(member, io.BytesIO(picture))
    (image,) = TarArchive(tmp_path / "a.tar")
    assert (image.place, image.content) == ("!/a.jpg", picture)


# Bytes that other threads may take meanwhile, and the table of interned names, which paths add to.
OF_PYTHON = 12 * 2**20
OUTSIDE = (
    "../../a.jpg",
    "/etc/a.jpg",
    "C:/a.jpg",
    "c:a.jpg",
    "x/../../a.jpg",
    r"x\..\..\a.jpg",
    r"\a.jpg",
)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_member_whose_name_points_outside_is_refused_and_the_rest_goes_on(
    name, image_files, tmp_path
):
    picture = sorted(image_files.rglob("*.*"))[0].read_bytes()
    tar_with(tmp_path / "a.tar", [(name, picture), ("a..b.jpg", picture)])
    refused, image = TarArchive(tmp_path / "a.tar")
    assert isinstance(refused.content, InvalidImage)
    assert str(refused.content) == "its name points outside the archive"
    assert (image.place, image.content) == ("!/a..b.jpg", picture)


def test_of_two_members_of_one_name_the_first_counts(image_files, tmp_path):
    first, second = (path.read_bytes() for path in sorted(image_files.rglob("*.*"))[:2])
    tar_with(tmp_path / "a.tar", [("same.jpg", first), ("same.jpg", second)])
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


def test_the_names_of_members_are_not_kept_in_memory(tmp_path):
    members = (tarfile.TarInfo(f"{number}/{'x' * 10_000}.jpg") for number in range(2000))
    data = b"".join(member.tobuf(tarfile.GNU_FORMAT) for member in members)
    (tmp_path / "a.tar").write_bytes(data + bytes(1024))
    tracemalloc.start()
    count = sum(1 for _ in TarArchive(tmp_path / "a.tar"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 2000
    assert peak < OF_PYTHON  # of 20 MB


def test_an_archives_estimate_is_none_at_first_then_near_and_exact_at_the_end(
    image_files, tmp_path
):
    pictures = sorted(image_files.rglob("*.*"))
    files = [(f"{n}.jpg", pictures[n % 300].read_bytes()) for n in range(2000)]
    source = TarArchive(tar_with(tmp_path / "a.tar", files))
    assert source.estimate() is None
    images = iter(source)
    next(images)
    assert source.estimate() is None  # too little was read
    list(islice(images, 1200))
    assert source.estimate() == pytest.approx(2000, rel=0.1)
    assert len(list(images)) == 2000 - 1201
    assert source.estimate() == 2000
    next(iter(source))
    assert source.estimate() == 2000  # known from the time before


@pytest.mark.parametrize("order", [("train", "test"), ("test", "train")])
def test_the_estimate_of_a_split_is_of_the_split_alone(order, image_files, tmp_path, monkeypatch):
    """Wherever it lies in the archive, and however much of the archive is of the other split."""
    sizes = {"train": 2000, "test": 1300}
    pictures = [path.read_bytes() for path in sorted(image_files.rglob("*.*"))]
    files = [
        (f"cifar10/{split}/cat/{n}.jpg", pictures[n % 300])
        for split in order
        for n in range(sizes[split])
    ]
    archive = tar_with(tmp_path / "a.tar", files)
    monkeypatch.setattr(datasets, "DATASETS", {"cifar10": Dataset(True, in_jpegs=sizes)})
    for split, size in sizes.items():
        source = open_jpeg_split(archive, split)
        images, estimates = iter(source), []
        for _ in range(size):
            next(images)
            estimates.append(source.estimate())
        known = [estimate for estimate in estimates if estimate is not None]
        assert len(known) > size / 4
        assert known == pytest.approx([size] * len(known), rel=0.25)
        assert (list(images), source.estimate()) == ([], size)


def test_the_estimate_of_a_data_set_is_at_most_its_official_number(image_files, tmp_path):
    picture = min(image_files.rglob("*.*"), key=lambda path: path.stat().st_size).read_bytes()
    files = [(f"tinyimagenet32/train/cat/{n}.jpg", picture) for n in range(1500)]
    archive = tar_with(tmp_path / "a.tar", files)
    with archive.open("r+b") as file:
        file.truncate(100 * 2**30)  # it takes no disk
    source = open_tar(archive)
    images = list(islice(source, 1400))
    assert (len(images), source.estimate()) == (1400, 100_000)


@pytest.mark.parametrize("first", ["image", "note"])
@pytest.mark.parametrize(
    ("note", "content", "label"),
    [
        ("cls", b"7", "7"),
        ("cls", b" tabby cat\n", "tabby cat"),
        ("cls", b"", "shard"),
        ("json", json.dumps({"label": "dog", "width": 3}).encode(), "dog"),
        ("json", json.dumps({"label": 12}).encode(), "12"),
        ("json", json.dumps({"label": True}).encode(), "shard"),
        ("json", json.dumps({"label": ["a"]}).encode(), "shard"),
        ("json", b"[1, 2]", "shard"),
        ("json", b"{broken", "shard"),
        ("json", b"[" * 100_000, "shard"),
        ("json", b'{"label": "' + b"x" * 2**20 + b'"}', "shard"),
        ("json", b'{"label": "\\ud800 cat"}', "? cat"),
        ("json", b'{"label": "a\\u0000b"}', "a\0b"),
        ("json", b'{"label": 7.0}', "7"),
        ("json", b'{"label": -0.5}', "-0.5"),
        ("json", b'{"label": 1e400}', "shard"),
        ("json", b'{"label": NaN}', "shard"),
        ("json", b'{"label": %d}' % 2**200, str(2**200)),
        ("json", b'{"label": ' + b"1" * 5000 + b"}", "shard"),
        ("json", b'{"label": "' + b"x" * 1024 + b'"}', "x" * 1024),
        ("json", b'{"label": "' + b"x" * 1025 + b'"}', "shard"),
        ("cls", b"x" * 1025, "shard"),
        ("txt", b"a cat on a mat", "shard"),
    ],
)
def test_in_webdatasets_layout_the_label_lies_beside_the_image(
    note, content, label, first, image_files, tmp_path
):
    one, two = (path.read_bytes() for path in sorted(image_files.rglob("*.*"))[:2])
    sample = [("shard/000017.jpg", one), (f"shard/000017.{note}", content)]
    if first == "note":
        sample.reverse()
    source = TarArchive(tar_with(tmp_path / "a.tar", [*sample, ("shard/000018.jpg", two)]))
    assert [(image.place, image.label, image.content) for image in source] == [
        ("!/shard/000017.jpg", label, one),
        ("!/shard/000018.jpg", "shard", two),
    ]
    assert source.passed_over == Counter()


def test_all_images_of_a_sample_have_its_label_and_cls_comes_before_json(image_files, tmp_path):
    picture = sorted(image_files.rglob("*.*"))[0].read_bytes()
    names = ["1.left.jpg", "1.json", "1.right.jpg", "1.cls", "1.npy", "2.cls", "2.json", "3.jpg"]
    contents = {".jpg": picture, ".json": b'{"label": "dog"}', ".cls": b"cat", ".npy": b"x"}
    files = [(name, contents[Path(name).suffix]) for name in names]
    source = TarArchive(tar_with(tmp_path / "a.tar", files))
    assert [(image.place, image.label) for image in source] == [
        ("!/1.left.jpg", "cat"),
        ("!/1.right.jpg", "cat"),
        ("!/3.jpg", None),
    ]
    assert source.passed_over == Counter({".npy": 1, ".cls": 1, ".json": 1})


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("note", ["cls", "json"])
@pytest.mark.parametrize(
    ("images", "notes", "expected"),
    [
        (["v1.a", "v1.b"], {"v1.a": "cat", "v1.b": "dog"}, ["cat", "dog"]),
        (["v1.a", "v1.b"], {"v1.b": "dog"}, [None, "dog"]),
        (["v1.a", "v1.b"], {"v1": "cat"}, ["cat", "cat"]),
        (["v1.a", "v1.b"], {"v1": "cat", "v1.b": "dog"}, ["cat", "dog"]),
        (["x", "x.seg"], {"x": "cat"}, ["cat", "cat"]),
        (["x", "x.seg"], {"x": "cat", "x.seg": "mask"}, ["cat", "mask"]),
        (["x", "x.seg"], {"x.seg": "mask"}, [None, "mask"]),
        (["x", "x.seg"], {"x.meta": "cat"}, ["cat", None]),
        (["2024.01.1", "2024.01.1.seg"], {"2024.01.1": "cat"}, ["cat", "cat"]),
        (["1.2.3.left", "1.2.4.left"], {"1.2.3": "cat", "1.2": "dog"}, ["cat", "dog"]),
        (["a.b/1", "a.b/2"], {"a.b/1": "cat"}, ["cat", "a.b"]),
        (["x" + ".y" * 1000], {"x": "cat", "x" + ".y" * 900: "dog"}, ["cat"]),
    ],
)
def test_a_note_belongs_to_the_image_whose_name_it_shares_longest(
    images, notes, expected, note, backwards, image_files, tmp_path
):
    picture = sorted(image_files.rglob("*.*"))[0].read_bytes()
    files = [(f"{name}.jpg", picture) for name in images]
    for name, label in notes.items():
        content = label if note == "cls" else json.dumps({"label": label})
        files.append((f"{name}.{note}", content.encode()))
    # In the order of their names, as they are written, or all notes first.
    files.sort(key=lambda file: (backwards and file[0].endswith("jpg"), file[0]))
    found = {i.place: i.label for i in TarArchive(tar_with(tmp_path / "a.tar", files))}
    assert found == {f"!/{name}.jpg": label for name, label in zip(images, expected, strict=True)}


@pytest.mark.parametrize("notes_first", [False, True])
def test_notes_with_dots_are_found_in_a_sample_of_several_parts(notes_first, tmp_path, monkeypatch):
    monkeypatch.setattr(webdataset, "_MAX_SAMPLE_BYTES", 2**20)
    images = [(f"IMG.{number}.jpg", bytes(2**17)) for number in range(40)]
    notes = [(f"IMG.{number}.cls", b"class %d" % number) for number in range(40)]
    both = [pair for pairs in zip(notes, images, strict=True) for pair in pairs]
    files = [*notes, *images] if notes_first else both
    source = TarArchive(tar_with(tmp_path / "a.tar", files))
    assert [image.label for image in source] == [f"class {number}" for number in range(40)]
    assert source.passed_over == Counter()


def test_a_sample_without_end_is_not_kept_in_memory(tmp_path, monkeypatch):
    """Pictures whose names begin alike, up to the first dot, are one sample to the letter."""
    monkeypatch.setattr(webdataset, "_MAX_SAMPLE_BYTES", 2**20)
    files = [("IMG.cls", b"cat"), *((f"IMG.{number}.jpg", bytes(2**18)) for number in range(200))]
    tar_with(tmp_path / "a.tar", files)
    tracemalloc.start()
    labels = [image.label for image in TarArchive(tmp_path / "a.tar")]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert labels == ["cat"] * 200
    assert peak < OF_PYTHON + 4 * 2**20  # of 50


def test_a_sample_of_notes_alone_is_not_kept_in_memory_either(image_files, tmp_path, monkeypatch):
    monkeypatch.setattr(webdataset, "_MAX_SAMPLE_BYTES", 2**20)
    picture = sorted(image_files.rglob("*.*"))[0].read_bytes()
    notes = [(f"IMG.{number}.cls", b"x" * 1024) for number in range(15_000)]
    tar_with(tmp_path / "a.tar", [*notes, ("IMG.cls", b"cat"), ("IMG.jpg", picture)])
    tracemalloc.start()
    (image,) = TarArchive(tmp_path / "a.tar")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert image.label == "cat"
    assert peak < OF_PYTHON + 4 * 2**20  # of 19


def test_a_large_image_has_the_label_of_the_note_that_follows_it(tmp_path, monkeypatch):
    monkeypatch.setattr(webdataset, "_MAX_SAMPLE_BYTES", 2**20)
    large = bytes(2**20)
    files = [("1.jpg", large), ("1.cls", b"cat"), ("2.jpg", large), ("2.json", b'{"label": 7}')]
    source = TarArchive(tar_with(tmp_path / "a.tar", files))
    assert [image.label for image in source] == ["cat", "7"]


def test_the_parts_of_a_large_sample_have_all_of_its_notes(tmp_path, monkeypatch):
    monkeypatch.setattr(webdataset, "_MAX_SAMPLE_BYTES", 2**20)
    notes = [("1.json", b'{"label": "dog"}'), ("1.cls", b"cat")]
    images = [(f"1.{number}.jpg", bytes(2**20)) for number in range(3)]
    source = TarArchive(tar_with(tmp_path / "a.tar", [*notes, *images]))
    assert [image.label for image in source] == ["cat"] * 3


def test_hidden_folders_are_left_out_of_an_archive(image_files, tmp_path):
    picture = sorted(image_files.rglob("*.*"))[0].read_bytes()
    names = (".trash/a.jpg", "x/.git/y/b.jpg", "x/.c.jpg", "./x/d.jpg", "x/../../e.jpg")
    tar_with(tmp_path / "a.tar", [(name, picture) for name in names])
    shown, outside = TarArchive(tmp_path / "a.tar")
    assert (shown.place, shown.label, shown.content) == ("!/./x/d.jpg", "x", picture)
    assert str(outside.content) == "its name points outside the archive"


def test_kinds_passed_over_are_few_whatever_the_names(tmp_path):
    """DICOM's names end in numbers, and anything may end in anything."""
    names = [f"1.2.840.{number}" for number in range(500)]
    names += [f"a.x{number}" for number in range(500)] + ["b." + "y" * 300, "c.x7"]
    source = TarArchive(tar_with(tmp_path / "a.tar", [(name, b"") for name in names]))
    assert list(source) == []
    # Twenty kinds, one of them "others".
    kept = {f".x{number}": 1 for number in range(19)} | {".x7": 2}
    assert source.passed_over == Counter({"others": 500 + 481 + 1} | kept)
